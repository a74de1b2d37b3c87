package redisstore

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"
)

// ErrBudget is the cause of the end of a context whose Budget is spent. It tells a Redis that is too slow from a caller
// who was in too much of a hurry.
var ErrBudget = errors.New("redis did not answer within its budget")

// bytesPerSecond is the transfer rate that an operation on a large value is given time for, on top of its limit. It is
// a slow one on purpose: the limit exists to notice a server that hangs, not to race it.
const bytesPerSecond = 32 << 20

// bytesPerKey is what each further key of a batch counts for, on top of its value: its command and its script take time
// too, and what a read brings is not known before.
const bytesPerKey = 4 << 10

// Budget bounds ctx to what one call may spend on Redis: the operation limit, and more where size bytes or several keys
// are to be moved. Where it is what ends the context, the cause is ErrBudget.
func (s *Store) Budget(ctx context.Context, size int64, keys int) (context.Context, context.CancelFunc) {
	return budgetUntil(ctx, time.Now().Add(s.grace.now()+allowance(size, keys)), new(atomic.Int64))
}

// More adds to what ctx, which Budget has made, may spend: the time for further bytes in several keys, which turned out to be
// needed. What was added to one Budget before counts as well, so a call that reads several large values has the time for all of
// them, and with nothing to add, what comes after them is not cut off by the limit that was set before they were met.
func (s *Store) More(ctx context.Context, size int64, keys int) (context.Context, context.CancelFunc) {
	b, ok := ctx.Value(budgetKey{}).(*budget)
	if !ok {
		return s.Budget(ctx, size, keys)
	}
	b.added.Add(int64(allowance(size, keys)))
	return budgetUntil(b.parent, b.until, b.added)
}

// A budget is a context that knows what it would be without its own deadline.
type budget struct {
	context.Context
	parent context.Context
	until  time.Time     // but for what was added
	added  *atomic.Int64 // nanoseconds
}

type budgetKey struct{}

func (b *budget) Value(key any) any {
	if key == (budgetKey{}) {
		return b
	}
	return b.Context.Value(key)
}

func budgetUntil(parent context.Context, until time.Time, added *atomic.Int64) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithDeadlineCause(parent, until.Add(time.Duration(added.Load())), ErrBudget)
	return &budget{ctx, parent, until, added}, cancel
}

// allowance is the time for size bytes and several keys, on top of the limit of an operation.
func allowance(size int64, keys int) time.Duration {
	bytes := float64(max(size, 0)) + bytesPerKey*max(float64(keys)-1, 0)
	if d := bytes / bytesPerSecond * float64(time.Second); d < math.MaxInt64/2 {
		return time.Duration(d)
	}
	return math.MaxInt64 / 2
}

// CallersOwn reports whether ctx has ended, and not because its Budget was spent: what failed under it says nothing of
// Redis.
func CallersOwn(ctx context.Context) bool {
	// rueidis sets the deadline on the connection, where it can strike a moment before the context's own timer does. Only
	// the context knows whose deadline it was.
	if d, ok := ctx.Deadline(); ok && ctx.Done() != nil && !time.Now().Before(d) {
		<-ctx.Done()
	}
	return ctx.Err() != nil && !errors.Is(context.Cause(ctx), ErrBudget)
}
