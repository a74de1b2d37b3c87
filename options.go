package aside

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/keyspace"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/redisstore"
)

// Options configures a cache. The zero value is a cache in memory alone; every zero field stands for its default.
type Options struct {
	// Redis is where values are kept, shared by all processes that name the same server. Zero: in memory alone.
	// OptionsFromEnv fills it from the environment, rueidis.ParseURL from a URL. A password belongs into AuthCredentialsFn, by
	// Credentials: no method of Options is asked when one in Password is printed as part of an unexported field. The first address that answers is asked whether
	// it is part of a cluster, whose primaries are then all connected to, by the addresses that they tell clients; if it is not,
	// all addresses must lead to the same server, and the first that answers is used, whenever a connection is made. ForceSingleClient,
	// a Sentinel, or a database other than 0 has it taken for one server. With a ConnLifetime, another connection takes the place of
	// each before its life ends. How often a cluster is looked at is up to the cache. An option that would break what the
	// cache promises is refused: reading from replicas, rueidis' own client-side caching, its hooks and DisableCache, ClientNoTouch,
	// redirects of a standalone server, sizes and delays without measure, and a KeepAlive and
	// ConnWriteTimeout with which a server that hangs would not be noticed within 3 s.
	Redis rueidis.ClientOption

	// Namespace keeps what several caches have on one Redis apart: the names of all that a cache with one keeps there, keys,
	// leases, generations and the channel of announcements included, begin with it and "%:", as in "shop%:models:all:all", and
	// it neither sees nor touches anything else. Key.String, patterns, Keys and metrics are without it. All processes that share
	// a cache have the same. It has at most 64 bytes and none of : * ? [ ] \ { } % or a control character. Default: none.
	Namespace string

	// Policies are checked by New, so that a mistake in one fails there and not at its first use. They, and their categories, are known
	// from the start: list rows of TTL too that are to be invalidated by category before this process has used them.
	Policies []Policy

	// TTLs overrides the TTL of policies, by name: those of Policies and of the TTL table.
	TTLs map[string]time.Duration

	// Secret keys the hashes of HashID. Use at least 16 random bytes, the same in every process: NewSecret(os.Getenv("CACHE_SECRET")).
	Secret Secret

	// MaxEntries bounds the entries in memory. Default: 100,000.
	MaxEntries int

	// MaxBytes bounds the bytes of the values in memory, as far as they can be estimated: what a type keeps behind
	// unexported pointers and maps, or beside a lock, is its own and not looked at. A value that takes more than an eighth of it may
	// be loaded some times before it is kept, since others have to give way to it. Default: 128 MiB.
	MaxBytes int64

	// MaxValueBytes bounds one value: in Redis its encoded bytes before compression, in memory its estimated size. A
	// larger one is returned but not stored. What a codec makes of so many bytes can take several times their size in
	// memory: a JSON or CBOR value that would take more than 32 times MaxValueBytes is neither stored nor decoded; a
	// Codec of your own has to see to that itself. Default: 64 MiB, at most 1 GiB.
	MaxValueBytes int

	// CompressFrom is the encoded size from which values are compressed (s2) in Redis. Default: 1 KiB. Negative: never.
	CompressFrom int

	// ChunkFrom is the size, encoded and compressed, above which a value is stored in chunks of 256 KiB, each under a key of its
	// own, which travel on a second connection: nobody who asks for a small value waits behind a large one. Default: 256 KiB.
	// Negative: never.
	ChunkFrom int

	// OpTimeout bounds what one call may wait for Redis, not counting loads, waits for other processes' loads, and the
	// first connection, which has a second for each of its steps and three in all, or OpTimeout where that is longer. Values
	// known to be large get more, a second for every 32 MiB; so do batches, a second for every 8,192 keys. The first operations of
	// a process may take a second, until one was quick enough, or it has had a connection for three seconds. Without chunks
	// (ChunkFrom) the first operations of a policy get half a second, since nothing is known of its values yet. Default:
	// 50 ms, at most 1 min.
	OpTimeout time.Duration

	// LoadTimeout bounds a load and everyone who waits for it, for policies that set none. Default: 60 s.
	LoadTimeout time.Duration

	// LoadGrace is how long a load goes on after the last caller that waited for it has left, for policies that set none: what it
	// brings is kept, and callers that come meanwhile share it. So callers that wait for less time than a load takes are served from
	// the cache all the same. It ends with the LoadTimeout at the latest. It is not for a load that has not begun yet: one that waits
	// for a place (MaxLoads), or for a load of another process, ends when nobody waits for it. Nor does it keep a place from a load
	// that somebody waits for: where all are taken, that one ends the load that nobody has waited for for the longest time, and has its
	// place as soon as its loader has come back. So where more keys than MaxLoads are asked for all the time, by callers that wait for
	// less time than their loads take, loads that nobody waits for give way, and what they were to bring may never be kept. A load asks the context of its first caller for values until it ends: pass none that a
	// framework uses again for another request. Default: 5 s. Negative: a load that nobody waits for is cancelled at once.
	LoadGrace time.Duration

	// MaxLoads bounds how many loader calls of the process run at once, those made inside of a loader not counted: they share
	// its place. A batch is one. The others wait in their order. Default: 256.
	MaxLoads int

	// MaxQueuedLoads bounds how many loads wait for a place; callers beyond that get an error with CodeOverloaded at once.
	// Default: 4 times MaxLoads. Negative: none waits.
	MaxQueuedLoads int

	// NegativeTTL is how long ErrNotFound is cached, for policies that set none, but no longer than their TTL. Default: 30 s.
	// Negative: not at all.
	NegativeTTL time.Duration

	// DegradedTTL is how long a value is served without Redis' word that it is still right, for policies that set none: see
	// Policy.DegradedTTL. Default: 30 s. Negative: not at all.
	DegradedTTL time.Duration

	// LeaseTTL is how long another process waits for the load of one that has died. A lease is renewed while its loader
	// runs. Default: 5 s, at least 100 ms.
	LeaseTTL time.Duration

	// Backoff is how long no load of a key begins after two in a row have failed; callers get the error of the last one meanwhile,
	// in one with CodeBackoff. It doubles with each further failure in a row up to MaxBackoff, and is varied by a quarter either way.
	// The first failure holds back nobody: those who waited for it get its error, and the next caller loads again. A failure is no
	// longer in a row with one that was so long ago that MaxBackoff has passed since the next load could have begun. Default: 100 ms. Negative: a failed load is repeated by the next
	// caller, always. The last 32,768 keys are remembered whose load has failed, beside what MaxEntries and MaxBytes bound,
	// and 1,024 errors of theirs: of others, what is told is the beginning of its text. A load that began before
	// the last failure is no further one, and a loader that fails since the caller around it has left, whose context it works with, is none at all.
	Backoff time.Duration

	// MaxBackoff bounds Backoff. Default: 5 s, or Backoff where that is longer.
	MaxBackoff time.Duration

	// OnInvalidated is told of each invalidation that this process has made by Cache.Invalidate, InvalidateTags,
	// InvalidateCategory, InvalidatePattern or InvalidateAll, once it is confirmed; where Redis was away, that is when it has come
	// back. It is told at least once: after a lost connection, invalidations of the last seconds are sent again, and told again. It
	// runs in a goroutine of its own, one call at a time, in the order of confirmation, and holds up nothing else. Where it cannot
	// keep up, and 65,536 invalidations or 128 MiB of names wait for it, they are told as one that has All set. A panic in it is logged. Close waits until it
	// has been told of the rest, up to 10 s, so it must not call Close, and must return. Default: nobody is told.
	OnInvalidated func(Invalidation)

	// Check has a small share of hits compared with what their loaders return now, and counts how many were wrong. Default:
	// none.
	Check Check

	// Logger gets what an operator should see: changes of state, and values that cannot be read or stored. Its handler runs on
	// a goroutine of its own and holds up nothing: lines that it does not take, because it panics or is too slow, are lost, and
	// the next one that it takes is followed by their number. Default: slog.Default().
	Logger *slog.Logger
}

// String tells what an operator may know: no password, no user name, no secret.
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

// prefix is what the names of all that the cache has in Redis begin with. In no key is a percent sign followed by a colon, since
// it begins an escape, and no namespace holds one: so no name is that of two caches.
func (o Options) prefix() string {
	if o.Namespace == "" {
		return ""
	}
	return o.Namespace + "%:"
}

// longestSilence bounds how long a hit in memory can count as fresh although Redis would not tell of a change any more.
const longestSilence = 3 * time.Second

func cloneRedis(r rueidis.ClientOption) rueidis.ClientOption {
	r.InitAddress, r.ClientSetInfo = slices.Clone(r.InitAddress), slices.Clone(r.ClientSetInfo)
	r.TLSConfig, r.Sentinel.TLSConfig = r.TLSConfig.Clone(), r.Sentinel.TLSConfig.Clone()
	return r
}

// withDefaults returns the options with their zero fields filled in, and all that is wrong with them.
func (o Options) withDefaults() (Options, []error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, invalidOption("Options."+format, args...)) }

	// Copies: a caller that goes on using its slices and maps must not change a running cache.
	o.Policies, o.TTLs = slices.Clone(o.Policies), maps.Clone(o.TTLs)
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
	if o.OpTimeout < 0 || o.OpTimeout > time.Minute {
		bad("OpTimeout is %v: set a positive duration of at most 1m, or 0 for the default", o.OpTimeout)
	}
	if o.MaxLoads < 0 {
		bad("MaxLoads is %d: set a positive number, or 0 for the default", o.MaxLoads)
	}
	if o.LoadTimeout < 0 {
		bad("LoadTimeout is %v: set a positive duration, or 0 for the default", o.LoadTimeout)
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
	var wrong []error
	o.Check, wrong = o.Check.withDefaults()
	errs = append(errs, wrong...)
	return o, append(errs, checkRedis(o.Redis)...)
}

// checkRedis refuses what New could not carry out, or what would break a promise.
func checkRedis(r rueidis.ClientOption) (errs []error) {
	refuse := func(set bool, field, why string) {
		if set {
			errs = append(errs, invalidOption("Options.Redis.%s: %s", field, why))
		}
	}
	const (
		replicas = "replicas lag behind, so an invalidated value could be read there: leave it unset"
		tracking = "the cache does its own client-side caching: leave it unset"
	)
	refuse(r.ReplicaOnly, "ReplicaOnly", replicas)
	refuse(r.SendToReplicas != nil, "SendToReplicas", replicas)
	//lint:ignore SA1019 deprecated, and refused as long as it works
	refuse(r.ReplicaSelector != nil, "ReplicaSelector", replicas)
	refuse(r.ReadNodeSelector != nil, "ReadNodeSelector", replicas)
	refuse(len(r.Standalone.ReplicaAddress) > 0, "Standalone.ReplicaAddress", replicas)
	refuse(r.NewCacheStoreFn != nil, "NewCacheStoreFn", tracking)
	refuse(r.ClientTrackingOptions != nil, "ClientTrackingOptions", tracking)
	refuse(r.OnInvalidations != nil, "OnInvalidations", tracking)
	refuse(r.DisableCache, "DisableCache", tracking+" (a server without tracking is noticed)")
	refuse(r.ClientNoTouch, "ClientNoTouch", "a server that is full would evict first what is read most: leave it unset")
	refuse(r.Standalone.EnableRedirect, "Standalone.EnableRedirect", "the cache would not know which server it reads: leave it unset, and name a Sentinel or a cluster")
	refuse(r.PipelineMultiplex > rueidis.MaxPipelineMultiplex, "PipelineMultiplex", fmt.Sprintf("at most %d", rueidis.MaxPipelineMultiplex))
	// With these rueidis opens further connections as commands come, in the time of whoever sends them.
	const dials = "a caller would wait for a connection to be made: leave it unset"
	refuse(r.DisableAutoPipelining, "DisableAutoPipelining", dials)
	refuse(r.BlockingPipeline != 0, "BlockingPipeline", dials)
	refuse(r.SelectDB < 0, "SelectDB", "a database has a number from 0 up")
	refuse(r.ConnWriteTimeout < 0, "ConnWriteTimeout", "set a positive duration, or 0 for the default")
	silence := redisstore.Silence(r)
	refuse(silence < 0 || silence > longestSilence, "Dialer.KeepAlive",
		"a server that hangs must be noticed within 3s: let twice KeepAlive (default 500ms) and ConnWriteTimeout (default 500ms) not come to more")
	refuse(r.Dialer.Timeout < 0, "Dialer.Timeout", "set a positive duration, or 0 for the default")
	const forEver = "no connection would be made after that time: leave it unset"
	refuse(!r.Dialer.Deadline.IsZero(), "Dialer.Deadline", forEver)
	refuse(!r.Sentinel.Dialer.Deadline.IsZero(), "Sentinel.Dialer.Deadline", forEver)
	refuse(r.ConnLifetime != 0 && r.ConnLifetime < time.Second, "ConnLifetime",
		"set at least 1s, or 0 for no end")
	refuse(r.MaxFlushDelay < 0 || r.MaxFlushDelay > mostFlushDelay, "MaxFlushDelay", "every command would wait for so long: set at most "+mostFlushDelay.String())
	refuse(r.RingScaleEachConn > mostRingScale, "RingScaleEachConn", fmt.Sprintf("each connection takes memory for as many commands as 2 to the power of it: set at most %d", mostRingScale))
	refuse(r.ReadBufferEachConn > mostBuffer, "ReadBufferEachConn", fmt.Sprintf("set at most %d bytes", mostBuffer))
	refuse(r.WriteBufferEachConn > mostBuffer, "WriteBufferEachConn", fmt.Sprintf("set at most %d bytes", mostBuffer))
	const names = "Redis takes names of printable ASCII characters without spaces"
	refuse(!isClientName(r.ClientName), "ClientName", names)
	refuse(!isClientName(r.Sentinel.ClientName), "Sentinel.ClientName", names)
	refuse(r.ClusterOption.ShardsRefreshInterval < 0, "ClusterOption.ShardsRefreshInterval", "set a positive duration, or 0 for none")
	refuse(r.Sentinel.TopologyRefreshInterval < 0, "Sentinel.TopologyRefreshInterval", "set a positive duration, or 0 for none")
	// A dialer of the user's own may give addresses another meaning. The address is not shown: it may be a whole URL.
	ownDialer := r.DialCtxFn != nil || r.DialFn != nil
	refuse(slices.ContainsFunc(r.InitAddress, func(addr string) bool { return addr == "" || !ownDialer && !isHostPort(addr) }),
		"InitAddress", "it holds an address that is not of the form host:port (OptionsFromEnv and rueidis.ParseURL take URLs)")
	if len(r.InitAddress) == 0 {
		// Somebody who gives a password or a database means a server, and must not get a cache in memory without a word.
		set := r.Username != "" || r.Password != "" || r.SelectDB != 0 || r.TLSConfig != nil || r.Sentinel.MasterSet != "" ||
			r.DialCtxFn != nil || r.AuthCredentialsFn != nil || r.ClientName != ""
		refuse(set, "InitAddress", "it is empty although other fields of Redis are set: name the server as host:port, or leave all of Redis unset for memory alone")
	}
	return errs
}

const (
	mostFlushDelay = 5 * time.Millisecond
	mostRingScale  = 16
	mostBuffer     = 64 << 20
)

func isClientName(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < '!' || r > '~' })
}

// isHostPort reports whether a server can be dialled under addr.
func isHostPort(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	return err == nil && (host == "" || isHost(host)) && isPort(port)
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

// isHost reports whether text can be a host's name or its IP address, the latter without brackets.
func isHost(text string) bool {
	if strings.Contains(text, ":") {
		_, err := netip.ParseAddr(text)
		return err == nil
	}
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return strings.ContainsRune(`/\@?#[]%"<>`, r) || unicode.IsSpace(r) || unicode.IsControl(r)
	})
}
