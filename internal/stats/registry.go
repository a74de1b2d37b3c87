// Package stats counts the calls of one cache and what they led to: exactly, by label, and without a lock.
package stats

import (
	"iter"
	"sync"
	"sync/atomic"
)

// A Registry has the counters of one cache: those of each label, and those without a label. The zero value is ready.
type Registry struct {
	InvalidationMessages atomic.Uint64 // from Redis, those about own changes included
	TrackingLost         atomic.Uint64 // how often messages could have been missed
	TrackingPaused       atomic.Uint64 // of these, how often because this process was idle
	RedisErrors          atomic.Uint64 // invalidations without a label that Redis did not confirm

	Invalidations [Invalidations]atomic.Uint64 // calls that this process has made, by what they invalidate
	RoundTrips    RoundTrips
	Swept         atomic.Uint64 // values that sweeps have removed from Redis

	labels   sync.Map     // label -> *Counters
	unlisted atomic.Int64 // labels that were met in calls
}

// MostLabels is how many labels come from calls. A label takes about eight kilobytes, and keeps them, since its counts must not be lost.
const MostLabels = 1024

// OtherLabels is the label that the calls under further labels are counted under.
const OtherLabels = "(others)"

// Label returns the counters of a label. A listed label was given when the cache was made, and always has counters of its own.
func (r *Registry) Label(name string, listed bool) *Counters {
	if c, ok := r.labels.Load(name); ok {
		return c.(*Counters)
	}
	if !listed && r.unlisted.Add(1) > MostLabels {
		name = OtherLabels
	}
	c, _ := r.labels.LoadOrStore(name, new(Counters))
	return c.(*Counters)
}

// Labels returns every label that has counters, in no order.
func (r *Registry) Labels() iter.Seq[string] {
	return func(yield func(string) bool) {
		r.labels.Range(func(name, _ any) bool { return yield(name.(string)) })
	}
}

// All returns every label and its counters, in no order.
func (r *Registry) All() iter.Seq2[string, *Counters] {
	return func(yield func(string, *Counters) bool) {
		r.labels.Range(func(name, counters any) bool { return yield(name.(string), counters.(*Counters)) })
	}
}

// Calls is the number of calls under all labels.
func (r *Registry) Calls() (sum uint64) {
	for _, c := range r.All() {
		sum += c.Calls()
	}
	return sum
}
