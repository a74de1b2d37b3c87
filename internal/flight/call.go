package flight

import (
	"context"
	"time"
)

// A Call is one key's share of a flight. Every caller that got it from Join ends its part exactly once, by Wait or Leave.
type Call[K comparable, V any] struct {
	group *Group[K, V]
	key   K

	waiters  int        // callers that have joined and not left; guarded by group.mu
	run      *run[K, V] // nil until Run; guarded by group.mu
	resolved bool       // guarded by group.mu
	joinable Condition  // see JoinWhile; nil for always; guarded by group.mu
	bypass   bool       // Bypass was called before Run; guarded by group.mu

	afterwards

	freshness
	awaited
	outcome[V]
}

// An outcome is what became of a call.
type outcome[V any] struct {
	val    V               // written once, before done is closed
	err    error           // likewise
	loadBy context.Context // see LoadOn; guarded by group.mu
}

// afterwards is what becomes of a load whose callers leave.
type afterwards struct {
	linger time.Duration // see Linger; guarded by group.mu
	wanted bool          // see LeaveBehind; guarded by group.mu
	behind bool          // Lead has led it
}

// A Condition says whether callers may join a call.
type Condition interface{ Joinable() bool }

// JoinWhile lets later callers join the call only while joinable reports true. It is asked under the group's lock at every Join
// of the key. It must be quick, and must not call back.
func (c *Call[K, V]) JoinWhile(joinable Condition) {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	c.joinable = joinable
}

// open reports whether later callers may join the call. It requires group.mu.
func (c *Call[K, V]) open() bool { return c.joinable == nil || c.joinable.Joinable() }

// Forget keeps later callers from joining the call. The callers that have joined get its result.
func (c *Call[K, V]) Forget() {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	c.group.forget(c)
}

// Resolve gives the call its result and wakes all callers that wait for it. It reports false if the call had a result already.
func (c *Call[K, V]) Resolve(val V, err error) bool {
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.resolved {
		return false
	}
	c.settle(val, err)
	if err != nil {
		g.forget(c)
	}
	if c.waiters > 0 && c.run != nil {
		g.callLeft(c.run)
	}
	return true
}

// settle writes the result. It requires group.mu.
func (c *Call[K, V]) settle(val V, err error) {
	c.resolved, c.val, c.err = true, val, err
	close(c.done)
	c.notifyEnded()
}

// Wait returns the call's result, or ctx's error if ctx ends first. When the last caller of a flight leaves like that, the load is
// cancelled, at once or after the linger time (see Linger). The next caller of the key then starts a new load.
func (c *Call[K, V]) Wait(ctx context.Context) (V, error) {
	return c.WaitFor(ctx, nil)
}

// WaitFor is Wait, and fails with ErrTimeout when over fires. It does not derive a context with a deadline from ctx. ctx may be the
// program's own implementation and end without an error, and the standard library then panics on a goroutine of its own.
func (c *Call[K, V]) WaitFor(ctx context.Context, over <-chan time.Time) (V, error) {
	select {
	case <-c.done:
		return c.val, c.err
	default:
	}
	select {
	case <-c.done:
		return c.val, c.err
	case <-ctx.Done():
		err := EndOf(ctx) // first: it may panic, and then the caller of WaitFor leaves, once
		c.Leave()
		return *new(V), err
	case <-over:
		c.Leave()
		return *new(V), ErrTimeout
	}
}

// Leave ends the part of a caller that does not wait for the call any more.
func (c *Call[K, V]) Leave() {
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	c.waiters--
	if c.waiters > 0 || c.resolved || c.run == nil {
		return
	}
	g.callLeft(c.run)
}

// Forsake resolves a call that will not be run with err. It does nothing to a call that was run.
func (c *Call[K, V]) Forsake(err error) {
	if c.by.Load() == nil {
		c.Resolve(*new(V), err)
	}
}
