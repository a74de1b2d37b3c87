// Package freshness divides the life of a cached value into phases: until when it is served, and when it is to be loaded anew.
package freshness

import "time"

// A Phase is a part of a value's life.
type Phase int

// The phases, in their order.
const (
	Fresh   Phase = iota // served
	Ageing               // served, and loaded anew in the background
	Stale                // past its TTL: served, and loaded anew in the background
	OnError              // served where it cannot be loaded anew
	Dead                 // never served
)

// Times are the ends of a value's phases, on any one clock. None is earlier than the one before.
type Times struct {
	RefreshAt  int64 // the end of Fresh
	FreshUntil int64 // the end of Ageing, and of the value's TTL
	StaleUntil int64 // the end of Stale
	DeadUntil  int64 // the end of OnError
}

// Plain are the times of a value that is of no use after its TTL, and is not loaded anew before.
func Plain(freshUntil int64) Times { return Times{freshUntil, freshUntil, freshUntil, freshUntil} }

// At returns the phase at a time.
func (t Times) At(now int64) Phase {
	switch {
	case now < t.RefreshAt:
		return Fresh
	case now < t.FreshUntil:
		return Ageing
	case now < t.StaleUntil:
		return Stale
	case now < t.DeadUntil:
		return OnError
	}
	return Dead
}

// Windows are a policy's strategies. The zero value has none.
type Windows struct {
	Ahead   float64       // the last part of the TTL in which a value is loaded anew
	Stale   time.Duration // for how long after its TTL a value is served
	OnError time.Duration // for how long after its TTL a value is served where it cannot be loaded anew; Stale where that is longer
}

// None reports whether there is no strategy.
func (w Windows) None() bool { return w == Windows{} }

// Rest is how long a value is kept after its TTL.
func (w Windows) Rest() time.Duration { return max(w.Stale, w.OnError) }

// Times returns the times of a value, in nanoseconds. took is how long its load took. draw is from [0, 1), and differs between processes
// and values, so that they do not all refresh at one moment.
//
// A value is loaded anew twice the time of a load before its TTL ends, or in the last part of the TTL that Ahead gives, where that is
// longer: so the new value is there in time. A draw shortens this by up to a half. It is never more than half of the TTL: of values whose load
// takes longer than a quarter of their TTL, all time would be spent on loads.
func (w Windows) Times(loadedAt, freshUntil int64, took time.Duration, draw float64) Times {
	t := Times{
		RefreshAt: freshUntil, FreshUntil: freshUntil,
		StaleUntil: freshUntil + int64(w.Stale), DeadUntil: freshUntil + int64(w.Rest()),
	}
	if w.Ahead > 0 {
		ttl := freshUntil - loadedAt
		lead := max(w.Ahead*float64(ttl), 2*float64(took)) * (1 - draw/2)
		t.RefreshAt -= int64(min(lead, float64(ttl)/2))
	}
	return t
}
