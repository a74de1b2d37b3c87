package aside

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/keyspace"
)

// Options configures a cache. The zero value is a cache in memory alone. Every zero field stands for its default.
type Options struct {
	// Redis is the server, cluster or Sentinel setup that stores values for all processes. Zero: memory alone. OptionsFromEnv fills it from
	// the environment, rueidis.ParseURL from a URL. Set a password by AuthCredentialsFn and Credentials: a Password field can be printed
	// where Options are part of an unexported field.
	//
	// The cache asks the first address that answers whether it is part of a cluster, and then connects to all primaries, by the addresses
	// that they announce. Otherwise all addresses must lead to the same server, and each connection is made to the first one that answers.
	// ForceSingleClient, a Sentinel, or a database other than 0 means one server. With a ConnLifetime, each connection is replaced
	// before it ends.
	//
	// New refuses options that would break the cache's guarantees: reads from replicas, rueidis' own client-side caching, its hooks and
	// DisableCache, ClientNoTouch, redirects of a standalone server, excessive sizes and delays, and a KeepAlive and ConnWriteTimeout with
	// which a hanging server is not noticed within 3 s.
	Redis rueidis.ClientOption

	// Namespace prefixes every name that this cache uses in Redis (keys, leases, versions, channel) with the namespace and "%:", as in
	// "shop%:models:all:all", so that several caches can share a server. Key.String, patterns, Keys and metrics do not include it. All
	// processes that share a cache must have the same Namespace. It has at most 64 bytes and none of : * ? [ ] \ { } % or a control
	// character. Default: none.
	Namespace string

	// Policies are checked by New. A policy that is not listed is checked at its first use. The cache knows the categories of listed policies
	// from the start: list a policy, also one of the table TTL, if its category can be invalidated before this process has used the policy.
	// Default: none.
	Policies []Policy

	// TTLs overrides the TTL of policies by Policy.Name: of those in Policies, and of those in the TTL table. A TTL must be at least 1 ms, and
	// an unknown name is an error. Default: none.
	TTLs map[string]time.Duration

	// Secret is the key of the hashes of HashID. It must have at least 16 bytes, which should be random, and be the same in every process:
	// NewSecret(os.Getenv("CACHE_SECRET")). Default: none. HashID is then a plain hash, and logs a warning.
	Secret Secret

	// MaxEntries bounds the entries in memory. Beyond it, the entries that are used least are evicted. Default: 100,000.
	MaxEntries int

	// MaxBytes bounds the estimated size of the values in memory. The estimate uses reflection. It does not follow unexported
	// pointers or maps, nor look into structs that contain a lock. A value larger than an eighth of MaxBytes may be loaded several times
	// before memory keeps it, since other values have to be evicted first. Default: 128 MiB.
	MaxBytes int64

	// MaxValueBytes bounds one value: in Redis its encoded size before compression, in memory its estimated size. A larger value is
	// returned, and not stored. A decoded value can take several times its encoded size in memory: a JSON or CBOR value that would take more
	// than 32 times MaxValueBytes is neither stored nor decoded. A Codec of your own must set such a limit itself. Default: 64 MiB, at
	// most 1 GiB.
	MaxValueBytes int

	// CompressFrom is the encoded size from which values are compressed (s2) in Redis. Default: 1 KiB. Negative: never.
	CompressFrom int

	// JSON encodes and decodes the format of the codec JSON in place of encoding/json. New tries it on some values, and fails where it differs.
	// Default: encoding/json.
	JSON JSONFunctions

	// ChunkFrom is the size, encoded and compressed, above which a value is stored in chunks of 256 KiB, each under a key of its
	// own. Chunks use a second connection, so that small values do not wait behind large ones. Default: 256 KiB. Negative: never.
	ChunkFrom int

	// OpTimeout bounds how long one call waits for Redis. Loads, and waits for other processes' loads, are not counted. Operations that begin at
	// about the same time end together, so each may take a sixteenth longer. Some get more time:
	//
	//   - the first connection: a second for each of its steps and three in all, or OpTimeout where that is longer;
	//   - values known to be large: a second for every 32 MiB;
	//   - batches: a second for every 8,192 keys;
	//   - the first operations of a process: a second, until one was quick enough, or the connection is three seconds old;
	//   - without chunks (ChunkFrom), the first operations of a policy: half a second.
	//
	// Default: 50 ms, at most 1 min.
	OpTimeout time.Duration

	// LoadTimeout bounds a load, and the wait of its callers, for policies that set none. Default: 60 s.
	LoadTimeout time.Duration

	// LoadGrace is how long a load goes on after its last waiting caller has left, for policies that set none. Its value is cached, and
	// callers that come in the meantime share it. So callers whose time limit is shorter than a load are still served from the cache in
	// the end. The load ends with the LoadTimeout at the latest.
	//
	// A load that has not begun has no LoadGrace: one that waits for a place (MaxLoads), or for another process's load, ends with its last
	// caller. If all places are taken, a load with waiting callers ends the load that has been without callers for the longest time, and
	// takes its place when that loader returns. So if callers keep asking for more keys than MaxLoads, and leave before their loads end,
	// some values may never be cached.
	//
	// A load asks the context of its first caller for values until it ends: do not pass a context that a framework reuses for another
	// request. Default: 5 s. Negative: a load is cancelled as soon as no caller waits for it.
	LoadGrace time.Duration

	// MaxLoads bounds how many loader calls of the process run at once. A batch counts as one. Loads that are made inside a loader, with its
	// context, share its place. Other loads are queued, first in, first out. Default: 256.
	MaxLoads int

	// MaxQueuedLoads bounds the queue of loads that wait for a place. Beyond that, calls fail with CodeOverloaded at once.
	// Default: 4 times MaxLoads. Negative: no queue.
	MaxQueuedLoads int

	// NegativeTTL is how long ErrNotFound is cached, for policies that set none, but no longer than their TTL. Default: 30 s.
	// Negative: it is not cached.
	NegativeTTL time.Duration

	// NotFound are errors by which loaders of all policies say that something does not exist, such as sql.ErrNoRows: see Policy.NotFound. Default:
	// none but ErrNotFound.
	NotFound []error

	// DegradedTTL is how long stale values are served while Redis is unavailable, for policies that set none: see
	// Policy.DegradedTTL. Default: 30 s. Negative: they are not served.
	DegradedTTL time.Duration

	// Stale, StaleIfError, SoftTimeout and RefreshAhead are for policies that set none: see Policy. Default: off, but 1 s of SoftTimeout.
	Stale, StaleIfError, SoftTimeout time.Duration
	RefreshAhead                     float64

	// LeaseTTL is how long other processes wait after the process that holds a key's lease crashes. Live holders renew their lease. Default:
	// 5 s, at least 100 ms.
	LeaseTTL time.Duration

	// Backoff is how long a key is not loaded after its second consecutive failure. Calls then fail with CodeBackoff, and wrap the last error.
	// It doubles with each further failure up to MaxBackoff, and varies randomly by a quarter. After the first failure the next caller
	// loads again. A failure is consecutive unless MaxBackoff has passed since the next load was allowed. Not counted are a load that
	// began before the last failure, and a loader that uses its caller's context instead of its own and fails when that caller leaves.
	//
	// The cache remembers the last 32,768 keys with failures, in addition to MaxEntries and MaxBytes, and 1,024 of their errors. For the
	// others it remembers the beginning of the error's text. Default: 100 ms. Negative: no backoff.
	Backoff time.Duration

	// MaxBackoff bounds Backoff. Default: 5 s, or Backoff where that is longer.
	MaxBackoff time.Duration

	// OnInvalidated is called for each invalidation that this process makes by Cache.Invalidate, InvalidateTags, InvalidateCategory,
	// InvalidatePattern or InvalidateAll, once Redis has confirmed it. Delivery is at least once: after a reconnect, invalidations of the
	// last seconds are sent again, and delivered again. It is called from one goroutine of its own, in the order of confirmation, and delays
	// nothing else. If 65,536 invalidations or 128 MiB of names are pending, they are collapsed into one with All set. A panic is logged.
	// Close waits up to 10 s until the pending ones are delivered, so OnInvalidated must return, and must not call Close. Default: none.
	OnInvalidated func(Invalidation)

	// SlowLoad is how long a loader call takes that is logged, at most once in ten seconds a policy, and that Recent has among SlowLoads. Set more than
	// your loads usually take. Default: 0, off.
	SlowLoad time.Duration

	// HotKeys is how many keys HotKeys counts at once, to find those that are asked for most. Set several times as many as you want to see: a key
	// is found for certain if its share of the calls is more than one in HotKeys. One call in 1,024 is counted, so a share is known to
	// about 0.01 after ten million calls. A hit in memory takes a few percent longer. Default: 0, off. At most 10,000.
	HotKeys int

	// ConsistencyCheck compares a small share of hits with a fresh load, and counts inconsistent ones. Default: none.
	ConsistencyCheck ConsistencyCheck

	// Observer is told what the cache does beside answering from memory, and if it wants, of a share of the hits in memory. Default: none.
	Observer Observer

	// Logger gets what an operator should see: changes of state, loads that fail, and values that cannot be read or stored. Its handler runs on
	// a goroutine of its own, and delays nothing. Lines are lost while the handler panics or is too slow, and a later line says how many. Calls
	// that miss, and invalidations, ask the handler's Enabled for the level Debug: it must return at once. Default: slog.Default().
	Logger *slog.Logger
}

// String returns a summary without passwords, user names and secrets.
func (o Options) String() string {
	if len(o.Redis.InitAddress) == 0 {
		return "aside.Options{memory}"
	}
	hosts := make([]string, len(o.Redis.InitAddress))
	for i, addr := range o.Redis.InitAddress {
		hosts[i] = addr[strings.LastIndex(addr, "@")+1:] // New refuses a URL, but it may be printed before
	}
	return fmt.Sprintf("aside.Options{redis %s db %d tls %t}", strings.Join(hosts, ","), o.Redis.SelectDB, o.Redis.TLSConfig != nil)
}

// Format writes String for every verb that prints a value: %d would otherwise print all fields.
func (o Options) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, o.String()) }

// LogValue is String, so that slog's handlers show no secret either.
func (o Options) LogValue() slog.Value { return slog.StringValue(o.String()) }

// MarshalText is String for encoding/json, by which slog's JSONHandler writes a struct that the options are a field of.
func (o Options) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

const (
	maxValueBytes = 1 << 30
	maxNamespace  = 64
)

// prefix is the prefix of all names that the cache uses in Redis. A key contains no percent sign followed by a colon, since a percent
// sign begins an escape, and a namespace contains no percent sign: so no name belongs to two caches.
func (o Options) prefix() string {
	if o.Namespace == "" {
		return ""
	}
	return o.Namespace + "%:"
}

// longestSilence bounds how long a hit in memory can count as fresh on a connection that delivers no pushes any more.
const longestSilence = 3 * time.Second

func cloneRedis(r rueidis.ClientOption) rueidis.ClientOption {
	r.InitAddress, r.ClientSetInfo = slices.Clone(r.InitAddress), slices.Clone(r.ClientSetInfo)
	r.TLSConfig, r.Sentinel.TLSConfig = r.TLSConfig.Clone(), r.Sentinel.TLSConfig.Clone()
	return r
}

// withDefaults returns the options with their zero fields filled in, and an error for each invalid one.
func (o Options) withDefaults() (Options, []error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, invalidOption("Options."+format, args...)) }

	// Copies, so that a caller that changes its slices and maps does not change a running cache.
	o.Policies, o.TTLs, o.NotFound = slices.Clone(o.Policies), maps.Clone(o.TTLs), slices.Clone(o.NotFound)
	o.Redis = cloneRedis(o.Redis)
	o.MaxEntries = cmp.Or(o.MaxEntries, 100_000)
	o.MaxBytes = cmp.Or(o.MaxBytes, 128<<20)
	o.MaxValueBytes = cmp.Or(o.MaxValueBytes, 64<<20)
	o.CompressFrom = cmp.Or(o.CompressFrom, 1<<10)
	o.ChunkFrom = cmp.Or(o.ChunkFrom, 256<<10)
	o.OpTimeout = cmp.Or(o.OpTimeout, 50*time.Millisecond)
	o.LoadTimeout = cmp.Or(o.LoadTimeout, time.Minute)
	o.LoadGrace = cmp.Or(o.LoadGrace, 5*time.Second)
	o.NegativeTTL = cmp.Or(o.NegativeTTL, 30*time.Second)
	o.LeaseTTL = cmp.Or(o.LeaseTTL, 5*time.Second)
	o.DegradedTTL = cmp.Or(o.DegradedTTL, 30*time.Second)
	if o.LoadTimeout > 0 && o.SoftTimeout >= o.LoadTimeout {
		bad("SoftTimeout is %v, and LoadTimeout %v: set less than LoadTimeout, or 0 for the default", o.SoftTimeout, o.LoadTimeout)
	}
	o.SoftTimeout = cmp.Or(o.SoftTimeout, time.Second)
	o.MaxLoads = cmp.Or(o.MaxLoads, 256)
	o.MaxQueuedLoads = cmp.Or(o.MaxQueuedLoads, 4*min(o.MaxLoads, math.MaxInt/4))
	o.Backoff = cmp.Or(o.Backoff, 100*time.Millisecond)
	o.MaxBackoff = cmp.Or(o.MaxBackoff, max(5*time.Second, o.Backoff))
	for _, d := range []*time.Duration{&o.LoadTimeout, &o.LoadGrace, &o.NegativeTTL, &o.LeaseTTL, &o.DegradedTTL, &o.Backoff, &o.MaxBackoff} {
		*d = min(*d, engine.Longest)
	}
	o.Logger = cmp.Or(o.Logger, slog.Default())

	if !keyspace.Plain(o.Namespace) || len(o.Namespace) > maxNamespace {
		bad("Namespace is %q: use at most %d bytes, and none of : * ? [ ] \\ { } %% or a control character", o.Namespace[:min(len(o.Namespace), maxNamespace)], maxNamespace)
	}
	if o.MaxEntries < 0 {
		bad("MaxEntries is %d: set a positive number, or 0 for the default", o.MaxEntries)
	}
	if o.MaxBytes < 0 {
		bad("MaxBytes is %d: set a positive number of bytes, or 0 for the default", o.MaxBytes)
	}
	if o.MaxValueBytes < 0 || o.MaxValueBytes > maxValueBytes {
		bad("MaxValueBytes is %d: set 1 to %d bytes, or 0 for the default", o.MaxValueBytes, maxValueBytes)
	}
	if o.JSON.Marshal != nil || o.JSON.Unmarshal != nil {
		if err := o.JSON.Check(); err != nil {
			bad("JSON: %v: set functions that follow the rules of encoding/json, or none", err)
		}
	}
	if o.OpTimeout < 0 || o.OpTimeout > time.Minute {
		bad("OpTimeout is %v: set a positive duration of at most 1m, or 0 for the default", o.OpTimeout)
	}
	if o.MaxLoads < 0 {
		bad("MaxLoads is %d: set a positive number, or 0 for the default", o.MaxLoads)
	}
	if o.LoadTimeout < 0 {
		bad("LoadTimeout is %v: set a positive duration, or 0 for the default", o.LoadTimeout)
	}
	for _, d := range []struct {
		name string
		time.Duration
	}{{"Stale", o.Stale}, {"StaleIfError", o.StaleIfError}, {"SoftTimeout", o.SoftTimeout}} {
		if tooShort(d.Duration) {
			bad("%s is %v: set at least 1ms, or 0 for the default", d.name, d.Duration)
		}
	}
	if o.StaleIfError > 0 && o.StaleIfError < o.Stale {
		bad("StaleIfError is %v, less than Stale, which is %v: set at least as much, or leave it unset", o.StaleIfError, o.Stale)
	}
	if !(o.RefreshAhead <= mostAhead) { // NaN too
		bad("RefreshAhead is %v: set a fraction of at most %v, or 0 for off", o.RefreshAhead, mostAhead)
	}
	if o.LeaseTTL < 100*time.Millisecond {
		bad("LeaseTTL is %v: set at least 100ms, or 0 for the default", o.LeaseTTL)
	}
	if o.MaxBackoff < o.Backoff {
		bad("MaxBackoff is %v: set at least Backoff, which is %v, or 0 for the default", o.MaxBackoff, o.Backoff)
	}
	if n := len(o.Secret.Reveal()); n > 0 && n < 16 {
		bad("Secret has %d bytes: use at least 16 random ones, or none", n)
	}
	if wrong := validateNotFound(o.NotFound); wrong != "" {
		bad("%s", wrong)
	}
	if o.SlowLoad < 0 {
		bad("SlowLoad is %v: set a positive duration, or 0 for off", o.SlowLoad)
	}
	if o.HotKeys < 0 || o.HotKeys > mostHotKeys {
		bad("HotKeys is %d: set how many keys to count, at most %d, or 0 for none", o.HotKeys, mostHotKeys)
	}
	var wrong []error
	o.ConsistencyCheck, wrong = o.ConsistencyCheck.withDefaults()
	return o, slices.Concat(errs, wrong, o.Observer.validate(), checkRedis(o.Redis))
}
