// Package flight joins concurrent loads of one key into one load.
//
// A cache needs four things that a plain single flight does not have:
//
//   - The load runs on a context of its own. The cancellation of the first caller does not end the load of the callers that joined.
//   - Each caller waits no longer than its own context.
//   - A load that exceeds its time limit fails for all its callers at once, even if it ignores its context.
//   - One load may carry several keys. A batch joins the loads of single callers, and single callers join the load of a batch.
//
// A caller gets its Call from Join. The caller that leads it starts the load with Run. All callers wait with Wait.
package flight

import (
	"context"
	"sync"
)

// A Group keeps the calls that new callers may join. The zero value is ready. A Group is safe for concurrent use.
type Group[K comparable, V any] struct {
	mu      sync.Mutex
	calls   map[K]*Call[K, V]       // the calls that Join finds; guarded by mu
	flights map[*run[K, V]]struct{} // the runs that have not ended, for Close; guarded by mu
	closed  error                   // set by Close; guarded by mu
	begun   Ticket                  // how many calls have begun; guarded by mu
	idle    chan struct{}           // see Idle; nil while nobody waits for it; guarded by mu
	running sync.WaitGroup          // goroutines of Run
}

// Join returns the call of key that callers may share, and whether the caller leads it. A leader must hand the call to Run, or
// Forsake it. Every caller, leader or not, must call Wait or Leave once. See JoinWhile and Forget for calls that are not joined.
func (g *Group[K, V]) Join(key K) (call *Call[K, V], lead bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.join(key)
}

// JoinNew is Join for a caller that must not share a call that began earlier. The caller always leads. Later callers join its call.
func (g *Group[K, V]) JoinNew(key K) (call *Call[K, V], lead bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.calls, key)
	return g.join(key)
}

// join requires mu.
func (g *Group[K, V]) join(key K) (call *Call[K, V], lead bool) {
	if c, ok := g.calls[key]; ok && c.open() {
		c.waiters++
		if c.waiters == 1 && c.run != nil && !c.resolved {
			// All callers of this key had left. Its load goes on, for other keys of the batch or for the linger time.
			c.run.waiting++
			c.run.rejoined()
		}
		return c, false
	}
	g.begun++
	c := &Call[K, V]{group: g, key: key, waiters: 1, freshness: freshness{began: g.begun}}
	c.done = make(chan struct{})
	if g.closed != nil {
		c.settle(*new(V), g.closed)
		return c, false
	}
	if g.calls == nil {
		g.calls = make(map[K]*Call[K, V])
		g.flights = make(map[*run[K, V]]struct{})
	}
	g.calls[key] = c
	return c, true
}

// Peek returns the result of key's call, if the call has a result that is not an error and may be joined.
func (g *Group[K, V]) Peek(key K) (val V, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c, found := g.calls[key]; found && c.resolved && c.err == nil && c.open() {
		return c.val, true
	}
	return val, false
}

// forget removes c from the map, unless its key has a newer call there. It requires mu.
func (g *Group[K, V]) forget(c *Call[K, V]) {
	if g.calls[c.key] == c {
		delete(g.calls, c.key)
	}
	c.notifyEnded()
	c.notifyLeft()
	g.notifyIdle()
}

// Close resolves every call with err, cancels every load, and makes later calls fail with err. It waits until all loads have
// returned, or until ctx ends.
func (g *Group[K, V]) Close(ctx context.Context, err error) error {
	g.mu.Lock()
	if g.closed == nil {
		g.closed = err
		for r := range g.flights {
			g.endLocked(r, err)
			r.ctx.cancel(err)
		}
		for _, c := range g.calls { // calls that have a leader and no Run yet
			if !c.resolved {
				c.settle(*new(V), err)
			}
		}
		clear(g.calls)
		g.notifyIdle()
	}
	g.mu.Unlock()

	landed := make(chan struct{})
	go func() {
		g.running.Wait()
		close(landed)
	}()
	select {
	case <-landed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
