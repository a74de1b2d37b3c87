package engine

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/freshness"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/loglimit"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/stats"
	"github.com/gatewayz/aside/internal/wire"
)

// A Policy is a policy of one cache, with the defaults filled in and the overrides applied.
type Policy struct {
	Name        string
	Label       string // of its counters
	Category    string
	Owner       uint64   // identifies the policy in its stored values
	Tags        []string // of all its values
	TTL         time.Duration
	NegativeTTL time.Duration // 0: not cached
	NotFound    []error       // a loader's error that is plainly one of these means "not found"
	DegradedTTL time.Duration // 0: stale values are not served
	LoadTimeout time.Duration
	LoadGrace   time.Duration // 0: none
	Jitter      float64
	Codec       wire.Codec // nil: the one that fits the type
	MaxBatch    int        // ids for one call of a batch loader; 0: any number
	CloneOnRead bool
	Windows     freshness.Windows
	SoftTimeout time.Duration // 0: none
	Place       Place
	MemoryTTL   time.Duration // 0: as long as a value is fresh
	Counters    *stats.Counters
	Holder      Holder // holds the policy, and is the owner of its entries in memory

	label       profileLabel
	ownWindows  atomic.Bool  // some values have windows of their own: see windows.go
	largestSeen atomic.Int64 // the size of the largest stored value so far, in bytes: see Engine.budget
	loadTime    atomic.Int64 // how long its loads take: see observeLoad
	logs        policyLogs
	scopes      atomic.Pointer[[]*near.Scope] // the last ones used
	checked     atomic.Pointer[typeAndCodec]  // the last type whose first values were all checked: see checkFirst
	types       sync.Map                      // the types of values that were stored in Redis or read there: see narrower
}

// policyLogs keep the log lines about a policy from being repeated.
type policyLogs struct {
	panics       loglimit.Limiter // loaders that panicked
	failures     loglimit.Limiter // other loads that failed
	slow         loglimit.Limiter // loads that took longer than Options.SlowLoad
	overloads    loglimit.Limiter // loads that were refused
	refreshes    loglimit.Limiter // values that could not be loaded anew
	late         loglimit.Limiter // loads that are slow for their TTL
	unusable     loglimit.Limiter // values in Redis that cannot be used
	unstorable   loglimit.Limiter // values that cannot be stored
	shared       loglimit.Limiter // values of other policies under its keys
	inconsistent loglimit.Limiter // values that a check has found to be wrong
}

// LogInconsistent reports whether a line about an inconsistent value may be logged, and how many were suppressed since the last one.
func (pl *Policy) LogInconsistent(now int64) (suppressed int64, ok bool) {
	return pl.logs.inconsistent.Allow(now)
}

// A Holder is a type of the package above that holds a policy.
type Holder interface{ Resolved() *Policy }

// Resolved returns the policy itself. A struct that embeds it is a Holder.
func (pl *Policy) Resolved() *Policy { return pl }

// scope returns the scope of entries that rest on list, of which it keeps a copy. Most entries of a policy rest on the same list. They share one scope, so that a hit
// finds it in the processor's cache.
func (pl *Policy) scope(list []*near.Validity, tags []string) *near.Scope {
	const most = 8
	var recent []*near.Scope
	if p := pl.scopes.Load(); p != nil {
		recent = *p
	}
	for _, s := range recent {
		if slices.Equal(s.Validities, list) {
			return s
		}
	}
	s := &near.Scope{Owner: pl.Holder, Validities: slices.Clone(list), StaleFor: pl.DegradedTTL, Tags: keyspace.GivenNames(tags, func(tag string) string { return tag })}
	next := append([]*near.Scope{s}, recent[:min(len(recent), most-1)]...)
	pl.scopes.Store(&next)
	return s
}

// observeSize notes the size of a stored value.
func (pl *Policy) observeSize(size int64) {
	for {
		old := pl.largestSeen.Load()
		if size <= old || pl.largestSeen.CompareAndSwap(old, size) {
			return
		}
	}
}

// observeLoad notes how long a load took, as a moving mean.
func (pl *Policy) observeLoad(took time.Duration) {
	const weight = 8
	mean := pl.loadTime.Load()
	if mean == 0 {
		mean = int64(took)
	}
	pl.loadTime.Store(mean + (int64(took)-mean)/weight)
}

// until is when a stored value expires: when its writer says, but no later than the policy's TTL allows now, which may have been shortened
// since. A TTL that a loader or a caller has chosen is not shortened. No value is served after DeadUntil, also if somebody else has written its
// times, in any order.
func (pl *Policy) until(h *wire.Header) int64 {
	if h.OwnTTL {
		return min(h.FreshUntil, h.DeadUntil)
	}
	ttl := pl.TTL
	if h.Negative {
		ttl = pl.NegativeTTL
	}
	return min(h.FreshUntil, h.DeadUntil, h.LoadStart+ttl.Microseconds())
}
