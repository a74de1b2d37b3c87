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

// A ConsistencyCheck compares a sample of hits with a fresh load, in the background. Metrics has its counters: Checked,
// Inconsistent, Unchecked and InconsistentPerMillion. It finds changes that were not invalidated, and invalidations that did not arrive. The
// zero value checks nothing. The idea is that of Meta's Polaris.
//
// A value that differs is not inconsistent at once, since its invalidation may be on its way. It is inconsistent if after SettleTime it is still
// served, was not replaced, and still differs from a fresh load. Then it is counted, and logged with its key at most once in ten seconds.
// Nothing is invalidated, since the loader's source may lag behind. For a policy that relies on its TTL alone, the count shows how often it
// serves old values.
//
// Two values are equal if the policy's Codec encodes them to the same bytes, or if the decoded values are equal by reflect.DeepEqual or by a
// method Equal(T) bool of their type T. So fields that the codec leaves out are not compared. A value that contains the time of its load needs
// an Equal method that ignores it. The codec runs in memory mode too.
//
// Callers are not delayed. Each check costs one loader call, on a context with the values of the sampled call, for the policy's LoadTimeout at
// most; two checks run at once. A check runs only if MaxLoads leaves it a place, and is cancelled when a caller's load needs that place. Errors
// and panics of the loader are not reported: the sample counts as unchecked. Loads and LoadErrors do not count checks.
type ConsistencyCheck struct {
	// SampleRate is the share of hits to sample, from 0 to 1: 0.01 is one in a hundred. Hits in memory and in Redis are sampled, if the call has
	// a loader. Stale hits, and hits inside a check, are not. Default: 0, none.
	SampleRate float64

	// SettleTime is how long an invalidation may take to arrive. A difference that is gone by then is not counted. Default: 10 s.
	SettleTime time.Duration

	// MaxPerSecond bounds how many checks begin in a second in this process, and so how many loads they cost. Samples beyond it count as
	// unchecked. Default: 10. Negative: no limit.
	MaxPerSecond float64
}

func (k ConsistencyCheck) withDefaults() (ConsistencyCheck, []error) {
	var errs []error
	k.SettleTime = min(cmp.Or(k.SettleTime, 10*time.Second), engine.Longest)
	k.MaxPerSecond = cmp.Or(k.MaxPerSecond, 10)
	if !(k.SampleRate >= 0 && k.SampleRate <= 1) { // NaN too
		errs = append(errs, invalidOption("Options.ConsistencyCheck.SampleRate is %v: set a share of the hits from 0, for none, to 1", k.SampleRate))
	}
	if k.SettleTime < 0 {
		errs = append(errs, invalidOption("Options.ConsistencyCheck.SettleTime is %v: set a positive duration, or 0 for the default", k.SettleTime))
	}
	if k.MaxPerSecond != k.MaxPerSecond {
		errs = append(errs, invalidOption("Options.ConsistencyCheck.MaxPerSecond is %v: set checks a second, 0 for the default, or a negative number for no limit", k.MaxPerSecond))
	}
	return k, errs
}

// drawn reports whether the hit with the number n is one to check. A program's package, where GetOrLoad is compiled for a type, gets the code
// of functions that it may inline from this one: of those of other packages only of such as are inlined here. So it is here that Drawn is called.
func (c *Cache) drawn(n uint64) bool { return c.sampler.Drawn(n) }

// sampleHit offers a hit in memory that was sampled. It is not inlined, so that other hits do not allocate what it needs.
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

// equalByMethod compares two pointers to T by T's method Equal(T) bool. Without that method it reports false.
func equalByMethod[T any](a, b any) bool {
	type equaler interface{ Equal(T) bool }
	v, w := a.(*T), b.(*T)
	if e, ok := any(*v).(equaler); ok {
		return e.Equal(*w)
	}
	e, ok := any(v).(equaler)
	return ok && e.Equal(*w)
}
