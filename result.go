package aside

import (
	"context"
	"log/slog"
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

// A Cause is why a call was not answered from the cache. Result.Cause has the cause of one call, and LabelMetrics.Causes counts all misses. Each
// Result.Reason of a miss belongs to one cause.
type Cause string

// The causes of misses. A call that is answered from the cache has none.
const (
	// CauseAbsent: nothing is cached. The value was never stored, was evicted, was invalidated by its key, or has expired and was removed. A call
	// that ends before its cause is known, by its context or a timeout, counts here too.
	CauseAbsent      Cause = "absent"
	CauseExpired     Cause = "expired"     // the value is past its TTL and its Stale, and was not removed yet
	CauseInvalidated Cause = "invalidated" // Redis still holds the value, and a tag or the category of the value was invalidated
	CauseUnusable    Cause = "unusable"    // the cached value cannot be decoded, a part of it is gone, or another build, version or policy has stored it
	CauseUnavailable Cause = "unavailable" // Redis was unavailable or slow, or has not confirmed an invalidation yet: the call is a fallback
	CauseAsked       Cause = "asked"       // the call has the option Refresh, or bypasses the cache (Cache.Bypass)
)

// An Outcome is how a loader call ended. LabelMetrics counts the calls of each.
type Outcome string

// The outcomes of loader calls, the worst last. A batch is one loader call: it has the worst outcome of its ids.
const (
	OutcomeNotFound    Outcome = "not_found"    // ErrNotFound
	OutcomeNotModified Outcome = "not_modified" // ErrNotModified
	OutcomeOK          Outcome = "ok"           // a value
	OutcomeCanceled    Outcome = "canceled"     // an error after its context had ended, because no caller waited any more or the cache was closed
	OutcomeError       Outcome = "error"        // any other error
	OutcomeTimeout     Outcome = "timeout"      // LoadTimeout was over; the loader may still run
	OutcomePanic       Outcome = "panic"        // a panic, or runtime.Goexit
)

// The texts of Result.Reason. Code may compare Reason with these constants. Reason can also be a text about the connection to Redis, such as "redis did
// not answer in time". docs/messages.md lists these texts. They are for people, and may change.
const (
	// Of hits.
	ReasonFresh      = "fresh"                                                // the value is within its TTL
	ReasonRefreshing = "fresh, being refreshed"                               // RefreshAhead: a load runs in the background
	ReasonStale      = "past its TTL, being refreshed"                        // Stale: a load runs in the background, or begins soon
	ReasonLoadFailed = "past its TTL, the load failed"                        // StaleIfError: this call has waited for the load
	ReasonSlowLoad   = "past its TTL, the load takes longer than SoftTimeout" // StaleIfError; the load goes on
	ReasonBackoff    = "past its TTL, the last loads failed"                  // StaleIfError; the key is in backoff
	ReasonOverloaded = "past its TTL, too many loads"                         // StaleIfError; Options.MaxQueuedLoads was reached, or too many loaders have not returned

	// Of loads: why there was no hit.
	ReasonNotCached    = "not cached"                                         // also after an invalidation of the key, and after the value was removed
	ReasonExpired      = "expired"                                            // the value is past its TTL and its Stale, and was not removed yet
	ReasonInvalidated  = "invalidated by a tag or its category"               // Redis still holds the value
	ReasonUnusable     = "the stored value cannot be used"                    // the log says why
	ReasonIncomplete   = "a part of the stored value is gone"                 // Redis has evicted a chunk of a large value
	ReasonFewerFields  = "stored by this program as a type with fewer fields" // the key is used for two types
	ReasonOtherBuild   = "stored by a build with another type or codec"       // the loaded value stays in this process
	ReasonNewerBuild   = "stored by a newer build"                            // likewise
	ReasonOlderVersion = "stored by an older version of the policy"           // Policy.Version
	ReasonOtherPolicy  = "another policy's value is under this key"           // the log names it
	ReasonLeaseHeld    = "another process has held the lease for too long"    // for half of LoadTimeout
	ReasonUnconfirmed  = "redis has not confirmed an invalidation yet"        // of this process
	ReasonBypassed     = "the cache is bypassed"                              // Cache.Bypass
	ReasonSharedLoad   = "shared a load in flight"                            // followed by a colon, a space, and the reason of that load
)

// A Result is a value, and how the call got it.
type Result[T any] struct {
	Value  T
	Status Status        // whether the call was a hit, and whether Redis has confirmed the value
	Tier   Tier          // the origin of the value
	Age    time.Duration // since the start of the load that made the value, or of the last load that returned ErrNotModified
	TTL    time.Duration // how long the value is still fresh; 0 if it is not stored, past its TTL, or not confirmed by Redis
	Stale  time.Duration // how long the value was past its TTL when the call was answered; 0 if it was not
	Reason string        // why the call got this answer: one of the constants Reason…, or a text about Redis
	Cause  Cause         // why a miss or a fallback was no hit; empty for hits

	// ETag is the argument of Load.ETag in the loader.
	ETag string

	// LoadTime is how long the load took that made the value: the load of this call, or the load that has stored the value. For a value in Redis it is
	// in whole milliseconds. 0: not known, as after Set. After ErrNotModified, a hit has the time of the last load, or half of the LoadTime before
	// that load if this is longer.
	LoadTime time.Duration

	// Shared reports whether another call of this process had started the load of the value, and this call has waited for that load.
	Shared bool

	// Negative marks a "not found", cached or just loaded. Lookup returns such a Result together with an error that is ErrNotFound. With any other
	// error, the Result is zero.
	Negative bool
}

// count counts a call by its outcome, or by err, and reports whether it was a miss. why is the cause of a miss.
func count(in *stats.Counters, out engine.Outcome, err error, why stats.Cause) (missed bool) {
	switch {
	case err != nil || out.Status == engine.StatusMiss:
		in.CountMiss(why)
	case out.Status == engine.StatusFallback:
		in.CountFallback(why)
	default:
		in.CountHit(stats.Hit{InMemory: out.Tier == engine.TierMemory, Stale: out.Status == engine.StatusStale, NotFound: out.Value == nil})
		return false
	}
	return true
}

// logMiss logs a miss, if the program wants to see each of them.
func (c *Cache) logMiss(ctx context.Context, r *engine.Request, why stats.Cause) {
	if c.opts.Logger.Enabled(ctx, slog.LevelDebug) {
		c.opts.Logger.LogAttrs(ctx, slog.LevelDebug, "aside: miss", slog.String("policy", r.Policy.Name), slog.String("key", r.Key), slog.String("cause", why.String()))
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
