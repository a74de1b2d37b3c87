package aside

import (
	"time"

	"github.com/gatewayz/aside/internal/stats"
)

// A Status tells how a call was answered.
type Status string

// The ways in which a call is answered.
const (
	StatusHit      Status = "hit"      // from the cache
	StatusStale    Status = "stale"    // from memory, without Redis' word that it is still right: Redis was away or failed
	StatusMiss     Status = "miss"     // by a load, this caller's or one that it shared
	StatusFallback Status = "fallback" // by a load, because Redis was away or failed
)

// A Tier tells where a value came from.
type Tier string

// Where values come from.
const (
	TierMemory Tier = "memory" // this process's memory
	TierRedis  Tier = "redis"
	TierOrigin Tier = "origin" // the loader
)

// A Result is a value that explains itself.
type Result[T any] struct {
	Value  T
	Status Status
	Tier   Tier
	Age    time.Duration // since the start of the load that made the value
	TTL    time.Duration // for how long the value may still be served; 0 if it is not stored
	Reason string        // why the answer was not a better one, in a few words
}

// count counts the call that was answered by the outcome, or by err.
func (o *outcome) count(in *stats.Counters, err error) {
	switch {
	case err != nil || o.status == StatusMiss:
		in.CountMiss()
	case o.status == StatusFallback:
		in.CountFallback()
	default:
		in.CountHit(stats.Hit{InMemory: o.tier == TierMemory, Stale: o.status == StatusStale, NotFound: o.value == nil})
	}
}

// resultOf gives one caller its share of an outcome.
func resultOf[T any](c *Cache, out outcome, err error) (Result[T], error) {
	if err != nil {
		return Result[T]{}, err
	}
	now := c.clock.Now()
	r := Result[T]{
		Status: out.status,
		Tier:   out.tier,
		Age:    time.Duration(max(0, now-out.loadedAt)),
		TTL:    time.Duration(max(0, out.freshUntil-now)),
		Reason: out.reason,
	}
	if out.value == nil {
		return r, out.absent
	}
	if e, ok := out.value.(*encoded); ok {
		err = e.copyTo(&r.Value)
		if err != nil {
			err = &Error{Code: CodeInvalidArgument, Message: "a copy of the value cannot be decoded into this type", Err: concealed(err)}
		}
		return r, err
	}
	r.Value = *out.value.(*T)
	return r, nil
}
