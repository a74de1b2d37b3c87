package aside

import (
	"time"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/stats"
)

// A Status is the kind of answer of a call.
type Status string

// The statuses of a Result.
const (
	StatusHit      Status = "hit"      // from the cache
	StatusStale    Status = "stale"    // from the cache: the value is past its TTL, or Redis cannot confirm that it is current; see Reason
	StatusMiss     Status = "miss"     // by a load, started by this call or joined by it
	StatusFallback Status = "fallback" // by a load, because Redis was unavailable or failed
)

// A Tier is the origin of a value.
type Tier string

// The tiers of a Result.
const (
	TierMemory Tier = "memory" // this process's memory
	TierRedis  Tier = "redis"  // Redis
	TierOrigin Tier = "origin" // the loader: of this call, or of a load that the call has joined
)

// A Cause is why a call was not answered from the cache: Result has it as Cause, and LabelMetrics counts the misses of each. It is the kind of a
// Reason.
type Cause string

// The causes of misses. A call that is answered from the cache has none.
const (
	// CauseAbsent: nothing is cached. The value was never stored, was evicted or invalidated by its key, or its time is over: Redis and memory
	// remove such values. Also that of a call that ended before its cause was known, since its context ended or the time of its load was up.
	CauseAbsent      Cause = "absent"
	CauseExpired     Cause = "expired"     // the cached value is still there, and past its TTL and past Stale
	CauseInvalidated Cause = "invalidated" // Redis still holds the value, and a tag or the category of the value was invalidated
	CauseUnusable    Cause = "unusable"    // the cached value cannot be decoded, a part of it is gone, or another build, version or policy has stored it
	CauseUnavailable Cause = "unavailable" // Redis was unavailable or slow, or has not confirmed an invalidation yet: the call is a fallback
	CauseAsked       Cause = "asked"       // Refresh
)

// An Outcome is how a loader call ended. LabelMetrics counts the calls of each.
type Outcome string

// The outcomes of loader calls. A batch is one call: it has the worst outcome of its ids, in this order.
const (
	OutcomeNotFound    Outcome = "not_found"    // ErrNotFound
	OutcomeNotModified Outcome = "not_modified" // ErrNotModified
	OutcomeOK          Outcome = "ok"           // a value
	OutcomeCanceled    Outcome = "canceled"     // an error after its context had ended, because no caller waited any more or the cache was closed
	OutcomeError       Outcome = "error"        // any other error
	OutcomeTimeout     Outcome = "timeout"      // LoadTimeout was over; the loader may still run
	OutcomePanic       Outcome = "panic"        // a panic, or runtime.Goexit
)

// The texts of Result.Reason. There are more texts, about the connection to Redis, such as "redis did not answer in time": docs/messages.md has
// them. Of those, the name of no constant and no wording is promised.
const (
	// Of hits.
	ReasonFresh      = "fresh"                                                // the value is within its TTL
	ReasonRefreshing = "fresh, being refreshed"                               // RefreshAhead: it is loaded anew in the background
	ReasonStale      = "past its TTL, being refreshed"                        // Stale: likewise, or it will be in a moment
	ReasonLoadFailed = "past its TTL, the load failed"                        // StaleIfError: the load that this call has waited for
	ReasonSlowLoad   = "past its TTL, the load takes longer than SoftTimeout" // likewise; the load goes on
	ReasonBackoff    = "past its TTL, the last loads failed"                  // likewise; no load is made yet
	ReasonOverloaded = "past its TTL, too many loads"                         // likewise; Options.MaxQueuedLoads was reached

	// Of loads: why there was no hit.
	ReasonNotCached    = "not cached"                                         // nor is a value that was invalidated by its key, or whose last phase is over
	ReasonExpired      = "expired"                                            // the value that is still there is past its TTL, and past Stale
	ReasonInvalidated  = "invalidated by a tag or its category"               // Redis still holds it
	ReasonUnusable     = "the stored value cannot be used"                    // the log says why
	ReasonIncomplete   = "a part of the stored value is gone"                 // Redis has evicted it
	ReasonFewerFields  = "stored by this program as a type with fewer fields" // the key is used for two types
	ReasonOtherBuild   = "stored by a build with another type or codec"       // the loaded value stays in this process
	ReasonNewerBuild   = "stored by a newer build"                            // likewise
	ReasonOlderVersion = "stored by an older version of the policy"           // Policy.Version
	ReasonOtherPolicy  = "another policy's value is under this key"           // the log names it
	ReasonLeaseHeld    = "another process has held the lease for too long"    // for half of LoadTimeout
	ReasonUnconfirmed  = "redis has not confirmed an invalidation yet"        // of this process
	ReasonSharedLoad   = "shared a load in flight"                            // followed by a colon, a space, and the reason of that load
)

// A Result is a value, with the way in which the call got it.
type Result[T any] struct {
	Value  T
	Status Status        // whether the call was a hit, and whether Redis has confirmed the value
	Tier   Tier          // the origin of the value
	Age    time.Duration // since the start of the load that made the value, or the last one that found it to be not modified
	TTL    time.Duration // how long the value is still fresh; 0 if it is not stored, past its TTL, or not confirmed by Redis
	Stale  time.Duration // how long the value was past its TTL when the call was answered; 0 if it was not
	Reason string        // why the call was not answered by a fresh value in memory: one of the constants Reason…, or a text about Redis
	Cause  Cause         // of a miss or a fallback, the kind of its Reason; empty for hits

	// ETag is what the loader has given to Load.ETag.
	ETag string

	// LoadTime is how long the load that made the value took: this call's load, or the one that has stored the value. Of a value in Redis it is in
	// whole milliseconds. Of a value that was found to be not modified, a hit has the time of the last load, or half of the time that was known
	// before it, whichever is longer. 0: not known, as after Set.
	LoadTime time.Duration

	// Shared reports whether the value is from a load that another call of this process had started, and that this call has waited for.
	Shared bool

	// Negative marks a "not found", cached or just loaded. Lookup returns it together with an error that is ErrNotFound. With any other error, the
	// Result is zero.
	Negative bool
}

// count counts a call by its outcome, or by err. why is the cause of a miss.
func count(in *stats.Counters, out engine.Outcome, err error, why stats.Cause) {
	switch {
	case err != nil || out.Status == engine.StatusMiss:
		in.CountMiss(why)
	case out.Status == engine.StatusFallback:
		in.CountFallback(why)
	default:
		in.CountHit(stats.Hit{InMemory: out.Tier == engine.TierMemory, Stale: out.Status == engine.StatusStale, NotFound: out.Value == nil})
	}
}

// resultOf makes the Result of one caller.
func resultOf[T any](c *Cache, q *engine.Request, out engine.Outcome, err error) (Result[T], error) {
	if err != nil {
		return Result[T]{}, err
	}
	now := c.engine.Clock.Now()
	r := Result[T]{
		Status: Status(out.Status),
		Tier:   Tier(out.Tier),
		Age:    time.Duration(max(0, now-out.LoadedAt)),
		TTL:    time.Duration(max(0, out.FreshUntil-now)),
		Stale:  out.PastTTL(now),
		Shared: out.Shared(),
		Reason: out.Reason, ETag: out.ETag, LoadTime: out.LoadTime, Negative: out.Value == nil,
	}
	if out.Status == engine.StatusMiss || out.Status == engine.StatusFallback {
		r.Cause = Cause(q.Cause(&out).String())
	}
	if out.Value == nil {
		return r, absenceOf(out)
	}
	if v, ok := out.Value.(*T); ok {
		r.Value = *v
		return r, nil
	}
	var v T // of its own, so that a value that is not copied allocates nothing
	if err := engine.Copy(out.Value, &v); err != nil {
		return r, &Error{Code: CodeInvalidArgument, Message: "the value cannot be decoded into this type", Err: concealed(err)}
	}
	r.Value = v
	return r, nil
}
