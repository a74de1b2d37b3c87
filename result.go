package aside

import (
	"time"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/stats"
)

// A Status says how a call was answered.
type Status string

// The statuses of a Result.
const (
	StatusHit      Status = "hit"      // from the cache
	StatusStale    Status = "stale"    // from memory, while Redis cannot confirm that the value is current
	StatusMiss     Status = "miss"     // by a load, its own or a shared one
	StatusFallback Status = "fallback" // by a load, because Redis was unavailable or failed
)

// A Tier says where a value came from.
type Tier string

// The tiers of a Result.
const (
	TierMemory Tier = "memory" // this process's memory
	TierRedis  Tier = "redis"
	TierOrigin Tier = "origin" // the loader
)

// A Result is a value, and how the call got it.
type Result[T any] struct {
	Value  T
	Status Status
	Tier   Tier
	Age    time.Duration // since the start of the load that made the value
	TTL    time.Duration // how long the value may still be served; 0 if it is not stored
	Reason string        // why the call was not an L1 hit, such as "expired" or "invalidated by a tag or its category"; for people, do not parse it
}

// count counts a call by its outcome, or by err.
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

// resultOf makes the Result of one caller.
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
		return r, &Error{Code: CodeInvalidArgument, Message: "the value cannot be decoded into this type", Err: concealed(err)}
	}
	return r, nil
}
