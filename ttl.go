package aside

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/gatewayz/aside/internal/causes"
	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/wire"
)

// A Policy says how one kind of value is cached. Category and TTL are required, and a Name if policies share a category. The zero value of
// every other field stands for the cache's default. Declare policies as package variables, and do not change them. List them in
// Options.Policies, so that New checks them; a policy that is not listed is checked at its first use.
//
// Policies are for kinds of values, and few. Of policies that are not listed, a cache remembers the first 256, and others while memory has
// entries of them. If each tenant has a TTL of its own, use one policy and WithTTL.
//
// A policy is for values of one Go type. Set another Version for another type. A value that another process has stored as a type with fewer
// fields is read with zeros in the others, until its TTL ends: so builds can read each other's values.
type Policy struct {
	// Name identifies the policy within a cache, for Options.TTLs and in messages. Default: the category. Two policies of one cache
	// cannot have the same name. If it differs from the category, stored values carry it: two policies of one category that make the same
	// key do not get each other's values, but replace them. After a change of the name, values in Redis are loaded again.
	Name string

	// Category is the first part of every key. It must not be empty, or contain a character that keys escape,
	// such as a colon. It has at most 509 bytes. "all" is reserved: in the admin API it stands for everything.
	Category string

	// Label is the label of the policy's metrics. Default: the category. Beyond 1,024 labels of policies that are not listed, all
	// further ones are counted under "(others)".
	Label string

	// TTL is how long a value may be served, counted from the start of its load: a value that took three seconds to
	// load is served for three seconds less. It must be at least 1 ms, the unit of Redis.
	TTL time.Duration

	// NegativeTTL is how long ErrNotFound is cached. Default: Options.NegativeTTL, or the TTL where that is shorter. Negative: it is not
	// cached.
	NegativeTTL time.Duration

	// NotFound are errors of the program, or of a library, by which the loader says that something does not exist, such as sql.ErrNoRows. A loader's
	// error that is plainly one of them, by errors.Is, is cached like ErrNotFound, and callers get an error that matches both, in all processes.
	// An error that wraps several is a failure. The errors must be comparable. They are known by their texts in Redis: do not list two with the same
	// text. Default: none but those of Options.NotFound, which count for all policies.
	NotFound []error

	// DegradedTTL is how long a stale value is served while Redis cannot confirm that it is current: from the loss of the connection on, or
	// from the start of a load without Redis. A value is never served past its TTL and Stale. Default: Options.DegradedTTL. Negative: stale values are
	// not served.
	DegradedTTL time.Duration

	// Stale is how long after its TTL a value is still served. Meanwhile a call in one of the processes starts a load in the background. A key that
	// nobody asks for is not refreshed. If the process that loads is killed, other processes try after Options.LeaseTTL, each about once a second. To
	// let nobody wait even then, set Stale to more than the sum of LeaseTTL, the time of a load, and 1.5 s. Default: Options.Stale. Negative: off.
	Stale time.Duration

	// StaleIfError is how long after its TTL a value is served if its load fails or takes longer than SoftTimeout. Redis and memory keep values for
	// that long. An invalidation ends a value at once, whatever fails. StaleIfError is at least Stale. Default: Options.StaleIfError, or Stale if
	// this is longer. Negative: Stale.
	StaleIfError time.Duration

	// SoftTimeout bounds how long callers wait for a load if StaleIfError allows an older value: from the start of the load until they get the older
	// value. The load goes on until LoadTimeout. SoftTimeout must be less than LoadTimeout. Default: Options.SoftTimeout. Negative: callers wait for
	// the load.
	SoftTimeout time.Duration

	// RefreshAhead is the last part of the TTL, as a fraction of up to 0.5, in which a hit starts a load in the background. The part is extended to
	// twice the time that a load takes, up to half of the TTL. It is shortened at random by up to a half, so that not all processes ask at once. The
	// longer a load takes, the more loads there are: half as many again if a load takes a quarter of the TTL. If a load takes half of the TTL or
	// longer, its value is not refreshed ahead. Default: Options.RefreshAhead. Negative: off.
	RefreshAhead float64

	// LoadTimeout bounds how long a caller waits for a load, and when the loader's context ends. Default:
	// Options.LoadTimeout.
	LoadTimeout time.Duration

	// LoadGrace is how long a load goes on after its last waiting caller has left: see Options.LoadGrace, which is the
	// default. Negative: such a load is cancelled at once.
	LoadGrace time.Duration

	// MaxBatch is how many ids one call of a batch loader gets at most, such as how many parameters a statement of the database may have. A
	// batch with more missing ids calls the loader several times, one call after the other, within the LoadTimeout of one load. Of keys of several
	// policies, the smallest MaxBatch counts. Default: 0, any number.
	MaxBatch int

	// Jitter shortens each value's TTL by a random share of up to this fraction, from 0 (off) to less than 1, so that
	// values stored together do not expire together.
	Jitter float64

	// Codec encodes values for Redis. Memory keeps Go values. Default: Raw for strings, byte slices and types based on them, otherwise JSON. A
	// policy that is built anew for each call needs an equal codec each time; codecs that Go cannot compare are equal if they have the same
	// type.
	Codec Codec

	// Version is for builds whose values have a new meaning and a type that still fits: 0 to 65535. A value of a lower version is a miss, and
	// is replaced. A build with a lower version does not replace values of a higher one: it keeps its own values in its memory.
	Version int

	// Place is where values of the policy are kept: PlaceBoth, PlaceMemory or PlaceRedis. Default: PlaceBoth.
	Place Place

	// MemoryTTL bounds how long memory serves a value without asking Redis again, also while Redis is unavailable. Redis keeps the value for its TTL. It
	// needs a Place of PlaceBoth. Without Redis, and for values that Redis does not hold, it means nothing. Default: 0, as long as the value is fresh.
	MemoryTTL time.Duration

	// CloneOnRead gives each caller a copy of the value, which it may change. Every hit then decodes the value, in memory mode too.
	CloneOnRead bool
}

// A Place is where a value may be kept.
type Place int

// The places of values.
const (
	// PlaceBoth: Redis, and the memory of the processes that read the value.
	PlaceBoth Place = iota

	// PlaceMemory: memory alone, for values that are cheap to load, too large for Redis, or not to leave the process. Each process loads the value for itself.
	// Invalidations by other processes reach it, by key, tag, category, pattern and everything, for which Redis has to push changes to this process:
	// where it does not (Health.Tracking), the value is not kept while Redis is in use. Set and Refresh remove the value from all processes, and the next call in
	// each of them loads: processes have no common order of what they keep. A call with Strong loads. Load.Previous returns nothing. In memory mode it is PlaceBoth.
	PlaceMemory

	// PlaceRedis: Redis alone, for values that are large and seldom read, or that are not to stay in memory. Each call reads Redis. In memory mode, and while Redis
	// is unavailable, nothing is kept, and concurrent calls still share a load.
	PlaceRedis
)

// TTL is a table of ready policies for an AI gateway:
//
//	aside.TTL.UserProfile.Key(c.HashID(id), "profile")
//
// Each row's Name is the name of its field. Options.TTLs overrides durations for one cache; do not change the rows once a cache exists. Like
// any other policy, a row is known to a cache once it is used or listed in Options.Policies: list the rows whose category is to be invalidated
// before their first use.
var TTL = struct {
	ModelsAll      Policy // 1 h
	ModelsGateway  Policy // 1 h
	ModelDetail    Policy // 1 h
	SessionsList   Policy // 5 min
	SessionDetail  Policy // 5 min
	SearchResults  Policy // 5 min
	ChatStats      Policy // 10 min
	UserProfile    Policy // 10 min
	UserCredits    Policy // 5 min
	ActivityStats  Policy // 30 min
	RankingsModels Policy // 4 h
	RankingsApps   Policy // 4 h
}{
	ModelsAll:      Policy{Name: "ModelsAll", Category: "models", TTL: time.Hour},
	ModelsGateway:  Policy{Name: "ModelsGateway", Category: "models", TTL: time.Hour},
	ModelDetail:    Policy{Name: "ModelDetail", Category: "models", TTL: time.Hour},
	SessionsList:   Policy{Name: "SessionsList", Category: "sessions", TTL: 5 * time.Minute},
	SessionDetail:  Policy{Name: "SessionDetail", Category: "sessions", TTL: 5 * time.Minute},
	SearchResults:  Policy{Name: "SearchResults", Category: "sessions", TTL: 5 * time.Minute},
	ChatStats:      Policy{Name: "ChatStats", Category: "stats", TTL: 10 * time.Minute},
	UserProfile:    Policy{Name: "UserProfile", Category: "user", Label: "user_profile", TTL: 10 * time.Minute},
	UserCredits:    Policy{Name: "UserCredits", Category: "user", Label: "user_credits", TTL: 5 * time.Minute},
	ActivityStats:  Policy{Name: "ActivityStats", Category: "activity", TTL: 30 * time.Minute},
	RankingsModels: Policy{Name: "RankingsModels", Category: "rankings", TTL: 4 * time.Hour},
	RankingsApps:   Policy{Name: "RankingsApps", Category: "rankings", TTL: 4 * time.Hour},
}

func predeclared() []*Policy {
	return []*Policy{
		&TTL.ModelsAll, &TTL.ModelsGateway, &TTL.ModelDetail, &TTL.SessionsList, &TTL.SessionDetail, &TTL.SearchResults,
		&TTL.ChatStats, &TTL.UserProfile, &TTL.UserCredits, &TTL.ActivityStats, &TTL.RankingsModels, &TTL.RankingsApps,
	}
}

func (p *Policy) name() string {
	if p.Name != "" {
		return p.Name
	}
	return p.Category
}

func (p *Policy) label() string {
	if p.Label != "" {
		return p.Label
	}
	return p.Category
}

// codecName is empty without a codec, and for one that panics, such as a nil pointer in the interface.
func (p *Policy) codecName() (name string) {
	defer func() { _ = recover() }()
	if p.Codec == nil {
		return ""
	}
	return p.Codec.Name()
}

// equal compares fields, so that a policy that is built anew for each call equals the first one.
func (p *Policy) equal(q *Policy) bool {
	return p.Name == q.Name && p.Category == q.Category && p.Label == q.Label && p.TTL == q.TTL && p.NegativeTTL == q.NegativeTTL && sameErrors(p.NotFound, q.NotFound) && p.DegradedTTL == q.DegradedTTL &&
		p.Stale == q.Stale && p.StaleIfError == q.StaleIfError && p.SoftTimeout == q.SoftTimeout && p.RefreshAhead == q.RefreshAhead &&
		p.LoadTimeout == q.LoadTimeout && p.LoadGrace == q.LoadGrace && p.MaxBatch == q.MaxBatch && p.Jitter == q.Jitter && p.codecName() == q.codecName() && sameCodec(p.Codec, q.Codec) && p.Version == q.Version && p.CloneOnRead == q.CloneOnRead &&
		p.Place == q.Place && p.MemoryTTL == q.MemoryTTL
}

// sameCodec compares codecs, which may have the same name and different keys, for example: by == where Go can compare them, otherwise by their
// type.
func sameCodec(a, b Codec) (same bool) {
	typ := reflect.TypeOf(a)
	switch {
	case typ != reflect.TypeOf(b):
		return false
	case typ == nil || !typ.Comparable():
		return true
	case typ.Kind() == reflect.Pointer && typ.Elem().Size() == 0:
		return true // Go does not say whether pointers to nothing are equal
	}
	defer func() {
		if recover() != nil {
			same = true // an interface in it holds a value that cannot be compared
		}
	}()
	return a == b
}

// sameErrors compares the errors of Policy.NotFound.
func sameErrors(a, b []error) bool {
	return slices.EqualFunc(a, b, func(x, y error) bool {
		return comparableError(x) == comparableError(y) && (!comparableError(x) || x == y)
	})
}

// comparableError reports whether == can compare an error with any other.
func comparableError(err error) bool { return err != nil && reflect.ValueOf(err).Comparable() }

// validateNotFound returns what is wrong with one of the errors of Policy.NotFound or Options.NotFound, empty if they are right.
func validateNotFound(errs []error) string {
	for i, err := range errs {
		at := "NotFound[" + strconv.Itoa(i) + "] "
		switch {
		case err == nil:
			return at + "is nil: leave it out"
		case !comparableError(err):
			return at + "is of type " + typeName(err) + ", which == cannot compare: give a variable that errors.New has made"
		case err == ErrNotModified || err == context.Canceled || err == context.DeadlineExceeded:
			return at + "is " + causes.Text(err) + ", which does not say that something does not exist: leave it out"
		}
		if same := slices.IndexFunc(errs[:i], func(e error) bool { return engine.StoredName(e) == engine.StoredName(err) }); same >= 0 {
			return at + "has the text of NotFound[" + strconv.Itoa(same) + "], by which processes tell them apart: give one of them"
		}
	}
	return ""
}

// validateBeside refuses a valid policy with an error for "not found" that has the text of another one in Options.NotFound.
func (p *Policy) validateBeside(ofAll []error) error {
	for i, err := range p.NotFound {
		for j, other := range ofAll {
			if comparableError(other) && err != other && engine.StoredName(err) == engine.StoredName(other) {
				return invalidOption("policy %q: NotFound[%d] has the text of Options.NotFound[%d], and is another error: processes tell them apart by their texts, so give one of them", p.name(), i, j)
			}
		}
	}
	return nil
}

// mostAhead bounds RefreshAhead: with more, values would be loaded anew most of the time.
const mostAhead = 0.5

// tooShort reports whether a duration that may be zero or negative is positive and less than the unit of Redis.
func tooShort(d time.Duration) bool { return d > 0 && d < time.Millisecond }

func (p Place) valid() bool { return p >= PlaceBoth && p <= PlaceRedis }

// reservedCategory stands for everything, in the admin API and for front ends.
const reservedCategory = "all"

// validate returns an error that names each invalid field.
func (p *Policy) validate() error {
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, invalidOption(format, args...))
		}
	}
	switch {
	case p.Category == "":
		bad(true, "policy %q has no Category: set the first part of its keys", p.Name)
	case p.Category == reservedCategory:
		bad(true, "policy %q: the Category %q is reserved for everything: use another one", p.name(), p.Category)
	case !keyspace.Plain(p.Category):
		bad(true, "policy %q: Category %q has a character that keys escape (one of : * ? [ ] \\ { } %% or a control character): leave it out", p.name(), p.Category)
	case len(keyspace.CategoryPrefix)+len(p.Category) > wire.MaxTagName:
		bad(true, "policy %.40q: its Category has %d bytes: use at most %d", p.name(), len(p.Category), wire.MaxTagName-len(keyspace.CategoryPrefix))
	}
	bad(p.TTL <= 0, "policy %q: TTL is %v: set a positive duration", p.name(), p.TTL)
	bad(p.TTL > 0 && p.TTL < time.Millisecond, "policy %q: TTL is %v: set at least 1ms, the unit of Redis", p.name(), p.TTL)
	bad(p.LoadTimeout < 0, "policy %q: LoadTimeout is %v: set a positive duration, or 0 for the cache's default", p.name(), p.LoadTimeout)
	bad(tooShort(p.Stale), "policy %q: Stale is %v: set at least 1ms, 0 for the cache's default, or a negative duration for off", p.name(), p.Stale)
	bad(tooShort(p.StaleIfError), "policy %q: StaleIfError is %v: set at least 1ms, 0 for the cache's default, or a negative duration for off", p.name(), p.StaleIfError)
	bad(tooShort(p.SoftTimeout), "policy %q: SoftTimeout is %v: set at least 1ms, 0 for the cache's default, or a negative duration for none", p.name(), p.SoftTimeout)
	bad(!(p.RefreshAhead <= mostAhead), "policy %q: RefreshAhead is %v: set a fraction of at most %v, 0 for the cache's default, or a negative number for off", p.name(), p.RefreshAhead, mostAhead) // NaN too
	wrong := validateNotFound(p.NotFound)
	bad(wrong != "", "policy %q: %s", p.name(), wrong)
	bad(p.MaxBatch < 0, "policy %q: MaxBatch is %d: set a positive number of ids, or 0 for any number", p.name(), p.MaxBatch)
	bad(!(p.Jitter >= 0 && p.Jitter < 1), "policy %q: Jitter is %v: set a fraction from 0 to less than 1", p.name(), p.Jitter) // NaN too
	bad(p.Version < 0 || p.Version >= 1<<engine.VersionBits, "policy %q: Version is %d: set a number from 0 to %d", p.name(), p.Version, 1<<engine.VersionBits-1)
	bad(!p.Place.valid(), "policy %q: Place is %d: set PlaceBoth, PlaceMemory or PlaceRedis", p.name(), p.Place)
	bad(p.MemoryTTL < 0 || tooShort(p.MemoryTTL), "policy %q: MemoryTTL is %v: set at least 1ms, or 0 for as long as the value is fresh", p.name(), p.MemoryTTL)
	bad(p.MemoryTTL > 0 && p.Place == PlaceMemory, "policy %q: MemoryTTL is set, and Place is PlaceMemory, so that there is no Redis to ask: set the TTL alone", p.name())
	bad(p.MemoryTTL > 0 && p.Place == PlaceRedis, "policy %q: MemoryTTL is set, and Place is PlaceRedis, which keeps nothing in memory: leave one of them unset", p.name())
	bad(p.Codec != nil && p.codecName() == "", "policy %q: its Codec's Name is empty or panics: stored values need it", p.name())
	if p.Codec != nil {
		own, taken := wire.Builtin(wire.ID(p.Codec))
		bad(taken && own != p.Codec, "policy %q: its Codec has the Name of a codec of this package, %q, which would decode its values: give it another Name", p.name(), p.codecName())
	}
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

// Policies returns copies of the policies that the cache knows, sorted by name: those in Options.Policies, and those used so far that it
// remembers (see Policy). On a nil cache there are none.
func (c *Cache) Policies() []Policy {
	if c == nil || c.engine == nil {
		return nil
	}
	known := c.policies.all()
	list := make([]Policy, 0, len(known))
	for _, name := range slices.Sorted(maps.Keys(known)) {
		list = append(list, known[name].policy)
	}
	return list
}

// Labels returns the labels under which the cache counts, sorted: those of the policies in Options.Policies, of the policies used so far and, if
// there are too many of these, "(others)": see Policy.Label. Metrics has those of them that have counted something. On a nil cache there are none.
func (c *Cache) Labels() []string {
	if c == nil || c.engine == nil {
		return nil
	}
	return slices.Sorted(c.metrics.Labels())
}

// A Codec turns values into the bytes that Redis keeps, and back. It is an interface with three methods:
//
//	Name() string                       // identifies the format in stored values
//	Marshal(v any) ([]byte, error)      // v is a pointer to the value
//	Unmarshal(data []byte, v any) error // v is a pointer to a zero value; data must not be changed, but may be kept
//
// Memory keeps Go values, so in memory mode codecs run only for Policy.CloneOnRead and Options.ConsistencyCheck. A codec is used by many goroutines at once. A
// panic counts as a failure. Its Name is stored with every value: change it when the format changes, so that values in the old format
// become misses. "json", "cbor" and "raw" are taken.
//
// Two more methods are optional. If an error of the codec has the method NoValue(), the cache logs its text; of other errors it logs the type, since the
// text may quote the value. If the codec has the method Exclusive() bool and that returns true, the cache does not decode values that were stored by
// "json", "cbor" or "raw": a codec that encrypts needs this, since anyone who can write to Redis could store a value in clear text.
type Codec = wire.Codec

// JSONFunctions are an implementation of JSON, such as sonic's. Set as Options.JSON, they replace encoding/json, and must follow its rules. They are
// called by many goroutines at once. The package checks what it checks with encoding/json too: values that JSON
// would change are refused, and values of another build of a type. The format stays the same, so processes with different functions read each
// other's values. Set both functions.
type JSONFunctions = wire.JSONFunctions

// The codecs of the package. A stored value is decoded by the codec that encoded it, so a policy can change from one of these to another
// without losing cached values. Each codec returns the value that it was given, or refuses it with an error that names the type and the field:
// docs/codecs.md has the rules, docs/codec-tables.md a table of types.
var (
	// JSON is encoding/json, the default for all types but bytes and strings. It leaves out unexported fields, and fields with the tag "-".
	// It refuses values that would be decoded as something else, such as a string that is not UTF-8, or an int in an interface.
	JSON = wire.JSON
	// CBOR is RFC 8949. It decodes several times as fast as JSON, and is smaller where values are not compressed. It keeps all numbers,
	// strings and bytes. Fields are named by their `cbor` tags, or by their `json` tags. It refuses types with unexported fields, except
	// locks and fields with the tag `cbor:"-"`.
	CBOR = wire.CBOR
	// Raw stores []byte, strings and types based on them as they are. It is the default for these.
	Raw = wire.Raw
)
