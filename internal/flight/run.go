package flight

import (
	"context"
	"errors"
	"runtime/debug"
	"time"
)

// A run is the load of one or more calls, in a goroutine of its own.
type run[K comparable, V any] struct {
	calls    []*Call[K, V]
	began    time.Time
	waiting  int           // calls that are unresolved and have waiters; guarded by group.mu
	bypass   chan struct{} // see Bypassed; nil until that is called; guarded by group.mu
	bypassed bool          // bypass is closed, or is to be; guarded by group.mu

	linger    time.Duration // see Linger
	lingering *time.Timer   // ends the linger time, while no caller waits for the run; guarded by group.mu
	working   int           // goroutines that do not Rest; guarded by group.mu
	queued    bool          // see Queue; guarded by group.mu
	watching

	ctx *loadContext // apart, since a loader may keep it
	waiter
}

// Run starts fn in a goroutine of its own and returns at once. fn is the load of calls, which the caller leads. The context of fn has
// the values of ctx and not its cancellation. It ends after timeout, or when no caller waits for any of the calls (see Linger).
//
// fn gives each call its result with Resolve. A call that fn leaves unresolved fails with the fitting error when fn returns, panics,
// calls runtime.Goexit, or has not returned after timeout.
//
// A call stays joinable until fn has returned. A caller that joins while fn stores a result that is already shared gets that
// result, and needs no load of its own. A call that was resolved with an error is not joinable any more.
func (g *Group[K, V]) Run(ctx context.Context, timeout time.Duration, fn func(context.Context), calls ...*Call[K, V]) {
	now := time.Now()
	r := &run[K, V]{calls: calls, began: now, working: 1, ctx: &loadContext{values: ctx, deadline: now.Add(timeout)}}

	g.mu.Lock()
	for _, c := range calls {
		c.run = r
		c.by.Store(&r.waiter)
		if c.bypass {
			r.closeBypass()
		}
		r.linger = max(r.linger, c.linger)
		if c.waiters > 0 && !c.resolved {
			r.waiting++
		}
	}
	closed := g.closed
	if closed == nil {
		// The lock is held, so the counter does not grow while Close waits for it.
		g.running.Add(1)
		g.flights[r] = struct{}{}
		if r.waiting == 0 {
			g.deserted(r) // see Lead
		}
	} else {
		g.endLocked(r, closed)
	}
	g.mu.Unlock()
	if closed != nil {
		r.ctx.cancel(closed)
		return
	}

	expiry := time.AfterFunc(timeout, func() {
		r.ctx.expire()
		if errors.Is(r.ctx.Cause(), ErrTimeout) {
			g.end(r, ErrTimeout)
		}
	})
	go func() {
		defer g.running.Done()
		defer func() {
			expiry.Stop()
			r.ctx.cancel(errLanded)
		}()
		growStack(0)
		g.fly(r, fn)
	}()
}

// growStack makes the stack of a new goroutine as large as a read with its decoding needs. While the stack is nearly empty, that costs a
// fraction of what it costs to double it twice or three times deep in the decoder, where all frames are copied: a twentieth of a read.
//
//go:noinline
func growStack(at int) byte {
	var room [usualStack]byte
	return room[at]
}

// usualStack is less than 16 KB, the largest stack that the runtime keeps for the next goroutine.
const usualStack = 8 << 10

// fly runs fn. However fn ends, fly resolves the calls that fn left unresolved.
func (g *Group[K, V]) fly(r *run[K, V], fn func(context.Context)) {
	err := ErrGoexit // stays if fn neither returns nor panics: only Goexit runs the deferred functions then
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
		g.end(r, err)
	}()
	fn(r.ctx)
	err = ErrUnresolved
	if cause := r.ctx.Cause(); cause != nil {
		err = cause // fn returned because its time was up
	}
}

// end resolves the unresolved calls of r with err, and keeps later callers from joining any call of r.
func (g *Group[K, V]) end(r *run[K, V], err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.endLocked(r, err)
}

// endLocked is end. It requires mu.
func (g *Group[K, V]) endLocked(r *run[K, V], err error) {
	for _, c := range r.calls {
		if !c.resolved {
			c.settle(*new(V), err)
		}
		g.forget(c)
	}
	r.waiting = 0
	r.rejoined() // the end of the linger time has nothing to cancel any more
	delete(g.flights, r)
	g.notifyIdle()
}

// callLeft counts a call of r that was resolved, or whose last caller has left. It requires mu.
func (g *Group[K, V]) callLeft(r *run[K, V]) {
	if r.waiting--; r.waiting <= 0 {
		g.deserted(r)
	}
}
