package aside

import (
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/keyspace"

	"github.com/gatewayz/aside/internal/wire"
)

// A Policy is a row of the TTL table: how one kind of value is cached. Name, Category and TTL are enough; every other
// field's zero value stands for the cache's default. Declare policies as package variables, list them in
// Options.Policies, so that New checks them and Options.TTLs can override them, and do not change them afterwards. A
// policy that is not listed is checked at its first use. Policies are for kinds of values, and few: of those that are not listed,
// a cache keeps in mind the first 256, and others while it has something of them in memory. Where each tenant has its own TTL, use
// one policy and WithTTL.
//
// A policy is for values of one type; another Version is for another type. What is read as a type with more fields than it was stored with by
// another process has zero in those, until the TTL ends: so builds read each other's values.
type Policy struct {
	// Name identifies the policy within a cache, for Options.TTLs and in messages. Default: the category. Two
	// policies of one cache cannot have one name. Where it differs from the category it is also part of what a stored value is
	// checked for: two policies of one category that make the same key never get each other's values, though they replace them. After
	// a change of the name, what is in Redis is loaded again.
	Name string

	// Category is the first part of every key. It must not be empty or hold a character that a key would have to escape,
	// such as a colon. It has at most 509 bytes. "all" is reserved: it is what the admin API and front ends call everything.
	Category string

	// Label is what metrics are counted under. Default: the category. Beyond 1,024 labels of policies that are not listed, all
	// further ones are counted under "(others)".
	Label string

	// TTL is how long a value may be served, counted from the start of its load: a value that took three seconds to
	// load is served for three seconds less. It must be positive; a fraction of a second works exactly, down to the
	// millisecond that Redis counts in.
	TTL time.Duration

	// NegativeTTL is how long ErrNotFound is cached. Default: Options.NegativeTTL, or the TTL where that is shorter. Negative: not
	// at all.
	NegativeTTL time.Duration

	// DegradedTTL is how long a value is served without Redis' word that it is still right: after a connection was lost, or
	// from the start of a load for which Redis could not be asked. It never outlasts the TTL. Default: Options.DegradedTTL.
	// Negative: not at all.
	DegradedTTL time.Duration

	// LoadTimeout bounds how long a caller waits for a load, and when the loader's context ends. Default:
	// Options.LoadTimeout.
	LoadTimeout time.Duration

	// LoadGrace is how long a load goes on after the last caller that waited for it has left: see Options.LoadGrace, which is the
	// default. Negative: such a load is cancelled at once.
	LoadGrace time.Duration

	// Jitter shortens each value's TTL by a random share of up to this fraction, from 0 (off) to less than 1, so that
	// values stored together do not expire together.
	Jitter float64

	// Codec encodes values for Redis. A policy that is built anew for each call needs an equal codec each time: one that Go cannot
	// compare is taken for equal to others of its type. Default: Raw for strings, byte slices and types based on them, else JSON. Memory keeps
	// values as they are.
	Codec Codec

	// Version tells builds apart whose values mean something else, though their types fit: 0 to 65535. A value of a lower version is a
	// miss, and is replaced. A build of a lower version does not replace one of a higher: it keeps what it loads in its own memory.
	Version int

	// Private gives each caller a copy of its own, which it may change. Every hit then decodes the value, in memory mode too.
	Private bool
}

// TTL is the predeclared table of an AI gateway's values, usable as it is:
//
//	aside.TTL.UserProfile.Key(c.HashID(id), "profile")
//
// Each row's Name is its field's name. Options.TTLs overrides durations for one cache; the rows themselves must not be
// changed once a cache exists. A cache knows of a row once it is used or listed in Options.Policies, as of any other policy: list
// those that are to be invalidated by category, or at the admin API, before their first use.
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

// equal compares by what the fields say, so that a policy built anew for each call is the same as the first one.
func (p *Policy) equal(q *Policy) bool {
	return p.Name == q.Name && p.Category == q.Category && p.Label == q.Label && p.TTL == q.TTL && p.NegativeTTL == q.NegativeTTL && p.DegradedTTL == q.DegradedTTL &&
		p.LoadTimeout == q.LoadTimeout && p.LoadGrace == q.LoadGrace && p.Jitter == q.Jitter && p.codecName() == q.codecName() && sameCodec(p.Codec, q.Codec) && p.Version == q.Version && p.Private == q.Private
}

// sameCodec compares codecs, which may have the same name and, say, different keys: by what they are where Go can compare that, else by
// their type.
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
			same = true // an interface in it holds what cannot be compared
		}
	}()
	return a == b
}

// reservedCategory is what the admin API and front ends call everything.
const reservedCategory = "all"

func (p *Policy) validate() error {
	switch {
	case p.Category == "":
		return invalidOption("policy %q has no Category: set the first part of its keys", p.Name)
	case p.Category == reservedCategory:
		return invalidOption("policy %q: the Category %q is reserved for everything: use another one", p.name(), p.Category)
	case !keyspace.Plain(p.Category):
		return invalidOption("policy %q: Category %q holds a character that keys escape (one of : * ? [ ] \\ { } %% or a control character): leave it out", p.name(), p.Category)
	case len(keyspace.CategoryPrefix)+len(p.Category) > wire.MaxTagName:
		return invalidOption("policy %.40q: its Category has %d bytes: use at most %d", p.name(), len(p.Category), wire.MaxTagName-len(keyspace.CategoryPrefix))
	case p.TTL <= 0:
		return invalidOption("policy %q: TTL is %v: set a positive duration", p.name(), p.TTL)
	case p.TTL < time.Millisecond:
		return invalidOption("policy %q: TTL is %v: set at least 1ms, the unit of Redis", p.name(), p.TTL)
	case p.LoadTimeout < 0:
		return invalidOption("policy %q: LoadTimeout is %v: set a positive duration, or 0 for the cache's default", p.name(), p.LoadTimeout)
	case !(p.Jitter >= 0 && p.Jitter < 1): // NaN too
		return invalidOption("policy %q: Jitter is %v: set a fraction from 0 to less than 1", p.name(), p.Jitter)
	case p.Version < 0 || p.Version >= 1<<engine.VersionBits:
		return invalidOption("policy %q: Version is %d: set a number from 0 to %d", p.name(), p.Version, 1<<engine.VersionBits-1)
	case p.Codec != nil && p.codecName() == "":
		return invalidOption("policy %q: its Codec has an empty Name, or panics when asked for it: stored values are told apart by it", p.name())
	}
	if p.Codec != nil {
		if own, taken := wire.Builtin(wire.ID(p.Codec)); taken && own != p.Codec {
			return invalidOption("policy %q: its Codec has the Name of one that comes with the package, %q, which would read its values: give it another", p.name(), own.Name())
		}
	}
	return nil
}

// Policies returns what the cache knows by name: Options.Policies and those met in calls so far, rows of TTL included, as
// far as it keeps them in mind: see Policy. They are sorted by name, and copies. On a nil cache there are none.
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
