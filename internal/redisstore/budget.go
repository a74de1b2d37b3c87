package redisstore

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"
)

// ErrBudget is the cause of a context that ended because its Budget was spent. It distinguishes a slow Redis from an impatient
// caller.
var ErrBudget = errors.New("redis did not answer within its budget")

// bytesPerSecond is the transfer rate by which an operation on a large value gets more time. It is slow on purpose: the limit is
// to detect a server that hangs, not to race it.
const bytesPerSecond = 32 << 20

// bytesPerKey is what each further key of a batch counts for, its value apart: its command and its script take time too, and the
// size of what a read returns is not known before.
const bytesPerKey = 4 << 10

// Budget bounds ctx to the time that one call may spend on Redis: the limit of an operation, and more for size bytes or several
// keys. When that time is what ends the context, the cause is ErrBudget.
func (s *Store) Budget(ctx context.Context, size int64, keys int) (context.Context, context.CancelFunc) {
	return s.budgetUntil(ctx, time.Now().Add(s.grace.now()+allowance(size, keys)))
}

// Detached is Budget without the end of ctx: it has the values of ctx alone.
func (s *Store) Detached(ctx context.Context, size int64, keys int) (context.Context, context.CancelFunc) {
	return s.begin(&budget{parent: ctx, detached: true, until: time.Now().Add(s.grace.now() + allowance(size, keys))})
}

// More adds the time for further bytes in several keys to a ctx made by Budget. What was added to the same Budget before counts as
// well. So a call that reads several large values has the time for all of them. With nothing to add, later operations are not cut
// off by the limit that was set before the large values were met.
func (s *Store) More(ctx context.Context, size int64, keys int) (context.Context, context.CancelFunc) {
	b, ok := ctx.Value(budgetKey{}).(*budget)
	if !ok {
		return s.Budget(ctx, size, keys)
	}
	if b.added.Add(int64(allowance(size, keys))) == 0 {
		return ctx, func() {}
	}
	more := &budget{parent: b.parent, detached: b.detached, until: b.until, added: b.added}
	return more, s.limit(more)
}

func (s *Store) budgetUntil(parent context.Context, until time.Time) (context.Context, context.CancelFunc) {
	return s.begin(&budget{parent: parent, until: until})
}

func (s *Store) begin(b *budget) (context.Context, context.CancelFunc) {
	b.added = &b.extra
	return b, s.limit(b)
}

// limit gives b its end. Where that is a time alone, other operations may share it, and it comes up to a tick later. What is shared stays
// until its time has come, also when nobody uses it any more. So the end of a budget for much is not shared: most of its time is not used.
func (s *Store) limit(b *budget) context.CancelFunc {
	until := b.until.Add(time.Duration(b.added.Load()))
	if (b.detached || b.parent.Done() == nil) && time.Until(until) < 2*s.grace.now() {
		b.Context = s.ends.after(until, max(s.opTimeout/ticks, 50*time.Microsecond))
		return func() {}
	}
	parent, cancel := b.parent, context.CancelFunc(nil)
	if b.detached {
		parent = context.WithoutCancel(parent)
	}
	b.Context, cancel = context.WithDeadlineCause(parent, until, ErrBudget)
	return cancel
}

// ticks are how many ends of budgets are told apart within the limit of one operation.
const ticks = 16

// A budget is a context that remembers what it would be without its own deadline.
type budget struct {
	context.Context
	parent   context.Context
	detached bool          // it does not end with parent
	until    time.Time     // without what was added
	added    *atomic.Int64 // nanoseconds
	extra    atomic.Int64  // what added refers to in the first one
}

type budgetKey struct{}

func (b *budget) Value(key any) any {
	if key == (budgetKey{}) {
		return b
	}
	if v := b.Context.Value(key); v != nil { // a shared one has nothing but its cause
		return v
	}
	return b.parent.Value(key)
}

// allowance is the time for size bytes and several keys, beyond the limit of an operation.
func allowance(size int64, keys int) time.Duration {
	bytes := float64(max(size, 0)) + bytesPerKey*max(float64(keys)-1, 0)
	if d := bytes / bytesPerSecond * float64(time.Second); d < math.MaxInt64/2 {
		return time.Duration(d)
	}
	return math.MaxInt64 / 2
}

// CallersOwn reports whether ctx has ended for another reason than its Budget. A failure under such a ctx says nothing about
// Redis.
func CallersOwn(ctx context.Context) bool {
	// rueidis sets the deadline on the connection too, where it can expire a moment before the context's own timer. Only the
	// context knows whose deadline it was.
	if d, ok := ctx.Deadline(); ok && ctx.Done() != nil && !time.Now().Before(d) {
		<-ctx.Done()
	}
	return ctx.Err() != nil && !errors.Is(context.Cause(ctx), ErrBudget)
}
