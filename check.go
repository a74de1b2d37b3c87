package aside

import (
	"cmp"
	"context"
	"reflect"
	"time"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/sampler"
	"github.com/gatewayz/aside/internal/stats"
)

// A Check compares a small share of hits with what their loaders return now, in the background, and counts in Metrics how
// many of them were wrong: Checked, Inconsistent and Unchecked, and InconsistentPerMillion. It finds what no invalidation was
// sent for, and what did not arrive. The zero value checks nothing. It is the idea of Meta's Polaris.
//
// A value that differs is no inconsistency yet: its invalidation may be under way. It counts, and is logged with its key at
// most once in ten seconds, if after Within it is still served, was not replaced meanwhile, and still differs from what the
// loader returns then. Nothing is invalidated, since the loader's own source may lag behind. Where a policy relies on its TTL
// alone, what is counted is the price of that.
//
// Two values are the same if the policy's Codec encodes them to the same bytes, or to bytes that decode to values that are
// deeply equal, or equal by a method Equal(T) bool of their type T: what a codec leaves out is not compared, and a value with
// the time of its load in it differs from every other unless its Equal leaves that out. In memory mode too the codec is run.
//
// A check takes no time of any caller. It calls the loader as a load does, on a context with the values of the call that was
// drawn, for the policy's LoadTimeout at most, two at a time. It does so only where MaxLoads leaves it a place, and its
// context ends as soon as a caller's load needs that. Its errors and panics are nobody's, and such a value counts as
// unchecked. Loads and LoadErrors do not count it.
type Check struct {
	// Share of hits to check, from 0 to 1: of those in memory and in Redis whose callers brought a loader. 0.01 is one in a
	// hundred. Stale hits are not checked, nor those inside a check. Default: 0, none.
	Share float64

	// Within is how long an invalidation may take. Default: 10 s.
	Within time.Duration

	// Rate is how many checks begin in a second at most, whatever Share comes to: it bounds what they ask of the source.
	// What is drawn beyond that counts as unchecked. Default: 10. Negative: no limit.
	Rate float64
}

func (k Check) withDefaults() (Check, []error) {
	var errs []error
	k.Within = min(cmp.Or(k.Within, 10*time.Second), engine.Longest)
	k.Rate = cmp.Or(k.Rate, 10)
	if !(k.Share >= 0 && k.Share <= 1) { // NaN too
		errs = append(errs, invalidOption("Options.Check.Share is %v: set a share of the hits from 0, for none, to 1", k.Share))
	}
	if k.Within < 0 {
		errs = append(errs, invalidOption("Options.Check.Within is %v: set a positive duration, or 0 for the default", k.Within))
	}
	if k.Rate != k.Rate {
		errs = append(errs, invalidOption("Options.Check.Rate is %v: set checks a second, 0 for the default, or a negative number for no limit", k.Rate))
	}
	return k, errs
}

// drawn reports whether the hit with the number n is one to check. A program's package, where GetOrLoad is compiled for a type, gets the code
// of functions that it may inline from this one: of those of other packages only of such as are inlined here. So it is here that Drawn is called.
func (c *Cache) drawn(n uint64) bool { return c.sampler.Drawn(n) }

// sampleHit is for a hit in memory that was drawn. It is not inlined: what it makes is none of the other hits' business.
//
//go:noinline
func sampleHit[T any](ctx context.Context, c *Cache, key Key, counts *stats.Counters, load func(context.Context) (T, error)) {
	if !c.sampler.HasRoom(ctx, counts) {
		return
	}
	if p, err := c.policies.resolve(key.policy); err == nil {
		c.sampler.Offer(newSample(ctx, key.text, &p.Policy, reflect.TypeFor[T](), loadsOne(load), equalByMethod[T]))
	}
}

func newSample(ctx context.Context, key string, p *engine.Policy, typ reflect.Type, load engine.LoadFunc, equal func(a, b any) bool) *sampler.Sample {
	return &sampler.Sample{
		Context: ctx, Request: engine.Request{Key: key, Policy: p, Type: typ, TTL: p.TTL, Tags: p.Tags}, Load: load, Equal: equal,
	}
}

// equalByMethod is for two pointers to T. Where T has no method Equal(T) bool, no two values are equal by it.
func equalByMethod[T any](a, b any) bool {
	type equaler interface{ Equal(T) bool }
	v, w := a.(*T), b.(*T)
	if e, ok := any(*v).(equaler); ok {
		return e.Equal(*w)
	}
	e, ok := any(v).(equaler)
	return ok && e.Equal(*w)
}
