package aside

import (
	"time"

	"github.com/gatewayz/aside/internal/engine"
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

// count counts a call that was answered by an outcome, or by err.
func count(in *stats.Counters, out engine.Outcome, err error) {
	switch {
	case err != nil || out.Status == engine.StatusMiss:
		in.CountMiss()
	case out.Status == engine.StatusFallback:
		in.CountFallback()
	default:
		in.CountHit(stats.Hit{InMemory: out.Tier == engine.TierMemory, Stale: out.Status == engine.StatusStale, NotFound: out.Value == nil})
	}
}

// resultOf gives one caller its share of an outcome.
func resultOf[T any](c *Cache, out engine.Outcome, err error) (Result[T], error) {
	if err != nil {
		return Result[T]{}, err
	}
	now := c.engine.Clock.Now()
	r := Result[T]{
		Status: Status(out.Status),
		Tier:   Tier(out.Tier),
		Age:    time.Duration(max(0, now-out.LoadedAt)),
		TTL:    time.Duration(max(0, out.FreshUntil-now)),
		Reason: out.Reason,
	}
	if out.Value == nil {
		return r, absenceOf(out)
	}
	if v, ok := out.Value.(*T); ok {
		r.Value = *v
		return r, nil
	}
	if err := engine.Copy(out.Value, &r.Value); err != nil {
		return r, &Error{Code: CodeInvalidArgument, Message: "a copy of the value cannot be decoded into this type", Err: concealed(err)}
	}
	return r, nil
}
