package aside

import (
	"context"
	"strconv"
	"time"

	"github.com/gatewayz/aside/internal/guard"
	"github.com/gatewayz/aside/internal/invalidate"
	"github.com/gatewayz/aside/internal/redisstore"
)

// An Invalidation describes a confirmed invalidation, for Options.OnInvalidated. One of Keys, Category, Pattern, Tags and All is set.
type Invalidation struct {
	Keys     []string  // as in Key.String
	Category string    // a whole category
	Pattern  string    // as in Pattern.String
	Tags     []string  // as given to InvalidateTags
	All      bool      // everything
	At       time.Time // when it was confirmed
}

// A Receipt is the result of an invalidation at its return, with methods that wait for the rest.
type Receipt struct {
	// Removed is how many values were removed before the call returned: from Redis, or in memory mode from memory. The values that
	// InvalidateCategory, InvalidateTags and InvalidateAll invalidate are removed later: see WaitCleanup.
	Removed int64
	// Confirmed says whether Redis has acknowledged the invalidation for all keys. In memory mode it is always true. If it is false, the
	// invalidation holds in this process, and is retried until Redis confirms it: see Wait.
	Confirmed bool

	ticket *invalidate.Ticket // nil if there was nothing to invalidate
}

// Wait waits until Redis has confirmed the invalidation. It returns nil then, ctx's error if ctx ends first, and ErrClosed if
// the cache is closed first: an invalidation that is not confirmed by then is lost.
func (r Receipt) Wait(ctx context.Context) error {
	if r.ticket == nil {
		return nil
	}
	return r.ticket.Wait(ctx)
}

// Replicated waits until Redis has confirmed the invalidation, and then until the given number of replicas of each primary have it. A failover
// to such a replica does not bring back the old value. Without Replicated a failover can bring it back for a moment, until the process that has
// invalidated it finds the new primary and sends the invalidation again.
//
// Redis replicates asynchronously. Replicated protects against one failover, and is no proof of durability: see the documentation of WAIT. It
// makes a connection of its own to each primary, so it takes some milliseconds more than a round trip.
//
// It returns nil in memory mode, ctx's error if ctx ends first (as it does if a primary has fewer replicas), and ErrClosed if the cache is
// closed first. It returns an *Error with CodeUnavailable if a connection to Redis was lost, or slots of a cluster have moved, since the
// invalidation was confirmed: it is not known then whether the replicas have it. Invalidate again in that case.
func (r Receipt) Replicated(ctx context.Context, replicas int) error {
	if replicas < 0 {
		return invalidArgument("Replicated: " + strconv.Itoa(replicas) + " replicas: give 0 or more")
	}
	if err := r.Wait(ctx); err != nil || r.ticket == nil {
		return err
	}
	err := r.ticket.Replicated(guard.Context(ctx), replicas)
	if unknown, ok := err.(*invalidate.UnknownError); ok {
		return &Error{Code: CodeUnavailable, Message: "it is not known whether replicas have the invalidation: " + redisstore.Describe(unknown.Err), Err: unknown.Err}
	}
	return err
}

// WaitCleanup waits until the memory of the invalidated values is freed, and returns how many values were removed. Invalidate and InvalidatePattern
// remove values themselves, so after them WaitCleanup waits no longer than Wait. InvalidateCategory, InvalidateTags and InvalidateAll invalidate
// values at once, and a background cleanup removes them. Values that have expired or were replaced before are not counted, nor are values that
// Invalidate could remove only after an outage. Concurrent invalidations of one tag, or of one pattern, can share one count; in memory
// mode a value counts for the first of them.
//
// While 65,536 tags wait for the cleanup, the values of further tags are left to expire, and are not counted.
//
// If ctx ends first, WaitCleanup returns the number so far and ctx's error; if the cache is closed first, ErrClosed.
func (r Receipt) WaitCleanup(ctx context.Context) (removed int64, err error) {
	if r.ticket == nil {
		return r.Removed, nil
	}
	return r.ticket.WaitCleanup(ctx)
}
