// Package flight joins concurrent loads of one key into one load.
//
// It differs from a plain single flight in four ways that a cache needs. The load runs on a context of its own, so the
// first caller's cancellation never ends the load of those who wait with it; each caller waits no longer than its own
// context; a load that outlives its time limit is given up for everybody at once, even when it ignores its context; and
// one flight may carry several keys, so that a batch and single callers share loads in both directions.
package flight

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"sync"
	"time"
)

// Errors that end a flight without the loader's own result.
var (
	// ErrTimeout means that the flight's time limit passed before the load came back.
	ErrTimeout = errors.New("load timed out")
	// ErrGoexit means that the load ended its goroutine with runtime.Goexit.
	ErrGoexit = errors.New("loader called runtime.Goexit")
	// ErrUnresolved means that the load returned without a result for the key.
	ErrUnresolved = errors.New("loader returned without a result")

	errAbandoned = errors.New("every caller has left")
	errLanded    = errors.New("load has ended")
)

// A PanicError is the result of a flight whose load panicked.
type PanicError struct {
	Value any    // what was given to panic
	Stack []byte // the stack of the goroutine that panicked
}

// Error gives the panic's value without its stack.
func (e *PanicError) Error() string { return "loader panicked: " + Text(e.Value) }

// Text is what was given to panic, for a reader. What it holds is not gone into, since it may hold itself: to write that would
// overflow the stack, which ends the process.
func Text(panicked any) string {
	switch panicked.(type) {
	case error, fmt.Stringer:
		return fmt.Sprint(panicked)
	}
	switch reflect.ValueOf(panicked).Kind() {
	case reflect.Struct, reflect.Map, reflect.Slice, reflect.Array, reflect.Pointer:
		return fmt.Sprintf("a value of type %T", panicked)
	}
	return fmt.Sprint(panicked)
}

// Unwrap returns the panic's value where that is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// A Group keeps the calls that new callers may join. The zero value is ready; a Group is safe for concurrent use.
type Group[K comparable, V any] struct {
	mu      sync.Mutex
	calls   map[K]*Call[K, V]      // what Join finds; guarded by mu
	flights map[*trip[K, V]]func() // ends each running flight's wait at Close; guarded by mu
	closed  error                  // set by Close; guarded by mu
	begun   Ticket                 // how many calls have begun; guarded by mu
	running sync.WaitGroup         // goroutines of Run
}

// A Call is one key's share of a flight. Everyone who got it from Join waits for it or leaves exactly once, by Wait or Leave.
type Call[K comparable, V any] struct {
	group *Group[K, V]
	key   K

	waiters  int           // callers that joined and have not left; guarded by group.mu
	trip     *trip[K, V]   // nil until Run; guarded by group.mu
	resolved bool          // guarded by group.mu
	guard    func() bool   // guarded by group.mu
	hurried  bool          // before Run; guarded by group.mu
	linger   time.Duration // likewise

	began Ticket        // its number among the group's calls
	grade int           // see JoinFresh; guarded by group.mu
	ended chan struct{} // likewise, nil where nobody waits for that; guarded by group.mu

	awaited
	val V     // written once, before done is closed
	err error // likewise
}

// A trip is the goroutine that loads one or more calls.
type trip[K comparable, V any] struct {
	calls  []*Call[K, V]
	wanted int // calls that are unresolved and have waiters; guarded by group.mu
	hurry  chan struct{}
	late   bool // hurry is closed; guarded by group.mu

	linger    time.Duration // for how long it goes on when nobody waits for it
	lingering *time.Timer   // for its end, while nobody waits for it; guarded by group.mu
	working   int           // how many of its goroutines do something; guarded by group.mu
	watchers  []Watcher     // guarded by group.mu

	cancel context.CancelCauseFunc
	waiter
}

// Join returns the call of key that callers may share, and whether the caller leads it. A leader must hand the call to
// Run, or Forsake it. Leader or not, it must call Wait or Leave once. A call whose guard is down is not shared any more.
func (g *Group[K, V]) Join(key K) (call *Call[K, V], lead bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.join(key)
}

// JoinNew is Join for a caller that must not share what began before it came: it always leads, and those who come later
// join it instead.
func (g *Group[K, V]) JoinNew(key K) (call *Call[K, V], lead bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.calls, key)
	return g.join(key)
}

func (g *Group[K, V]) join(key K) (call *Call[K, V], lead bool) {
	if c, ok := g.calls[key]; ok && c.open() {
		c.waiters++
		if c.waiters == 1 && c.trip != nil && !c.resolved {
			// Nobody waited for this key any more, but its load is still under way: for others of its batch, or for a while.
			c.trip.wanted++
			c.trip.revisited()
		}
		return c, false
	}
	g.begun++
	c := &Call[K, V]{group: g, key: key, waiters: 1, began: g.begun}
	c.done = make(chan struct{})
	if g.closed != nil {
		c.settle(*new(V), g.closed)
		return c, false
	}
	if g.calls == nil {
		g.calls = make(map[K]*Call[K, V])
		g.flights = make(map[*trip[K, V]]func())
	}
	g.calls[key] = c
	return c, true
}

// open reports whether later callers may share the call. The caller holds mu.
func (c *Call[K, V]) open() bool { return c.guard == nil || c.guard() }

// Guard keeps later callers from joining the call as soon as up reports false. It runs under the group's lock, at every
// Join of the key: it must be quick, and must not call back.
func (c *Call[K, V]) Guard(up func() bool) {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	c.guard = up
}

// Hurry tells the load of the call that somebody waits for it who cannot wait for other loads.
func (c *Call[K, V]) Hurry() {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	if c.hurried = true; c.trip != nil {
		c.trip.hasten()
	}
}

// hasten is called with the group's lock held.
func (t *trip[K, V]) hasten() {
	if !t.late {
		t.late = true
		close(t.hurry)
	}
}

// Hurried is closed by the first Hurry of one of the calls that are run together with c. It is for the load itself.
func (c *Call[K, V]) Hurried() <-chan struct{} {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	return c.trip.hurry
}

// Peek returns the result of key's call where there is one already and it is not an error.
func (g *Group[K, V]) Peek(key K) (val V, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c, found := g.calls[key]; found && c.resolved && c.err == nil && c.open() {
		return c.val, true
	}
	return val, false
}

// Run starts fn in a goroutine of its own, as the load of calls, which the caller leads, and returns at once. The
// context that fn gets carries ctx's values but not its cancellation; it ends after timeout, or when nobody waits for
// any of the calls any more: see Linger. fn gives each call its result with Resolve; what it leaves unresolved when it returns,
// panics, calls runtime.Goexit, or has not returned after timeout, is resolved with the fitting error.
//
// A call stays joinable until fn has returned, so that whoever comes while fn stores a result that is already shared
// gets that result instead of a load of its own. One that was resolved with an error is not joinable any more.
func (g *Group[K, V]) Run(ctx context.Context, timeout time.Duration, fn func(context.Context), calls ...*Call[K, V]) {
	ctx, stopTimer := context.WithTimeoutCause(context.WithoutCancel(ctx), timeout, ErrTimeout)
	ctx, cancel := context.WithCancelCause(ctx)
	t := &trip[K, V]{calls: calls, cancel: cancel, hurry: make(chan struct{}), working: 1}
	stopExpiry := context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), ErrTimeout) {
			g.end(t, ErrTimeout)
		}
	})

	g.mu.Lock()
	for _, c := range calls {
		c.trip = t
		c.by.Store(&t.waiter)
		if c.hurried {
			t.hasten()
		}
		t.linger = max(t.linger, c.linger)
		if c.waiters > 0 && !c.resolved {
			t.wanted++
		}
	}
	closed := g.closed
	if closed == nil {
		// Under the lock, so that Close never waits for a counter that is about to grow.
		g.running.Add(1)
		g.flights[t] = func() { g.endLocked(t, g.closed); cancel(g.closed) }
	} else {
		g.endLocked(t, closed)
	}
	g.mu.Unlock()
	if closed != nil {
		stopExpiry()
		cancel(closed)
		stopTimer()
		return
	}

	go func() {
		defer g.running.Done()
		defer func() {
			stopExpiry()
			cancel(errLanded)
			stopTimer()
		}()
		g.fly(ctx, t, fn)
	}()
}

// fly runs fn and turns every way in which it can end into a result for what it left unresolved.
func (g *Group[K, V]) fly(ctx context.Context, t *trip[K, V], fn func(context.Context)) {
	err := ErrGoexit // stands unless fn returns or panics: only Goexit runs the defers without either
	defer func() {
		if r := recover(); r != nil {
			err = &PanicError{Value: r, Stack: debug.Stack()}
		}
		g.end(t, err)
	}()
	fn(ctx)
	err = ErrUnresolved
	if cause := context.Cause(ctx); cause != nil {
		err = cause // fn came back because its time was up
	}
}

// Resolve gives the call its result, wakes everybody who waits for it, and reports whether it was the first to do so.
func (c *Call[K, V]) Resolve(val V, err error) bool {
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.resolved {
		return false
	}
	c.settle(val, err)
	if err != nil {
		g.drop(c)
	}
	if c.waiters > 0 && c.trip != nil {
		g.unwanted(c.trip)
	}
	return true
}

// Drop keeps later callers from joining the call; those who have joined get its result.
func (c *Call[K, V]) Drop() {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	c.group.drop(c)
}

// settle writes the result. The caller holds group.mu.
func (c *Call[K, V]) settle(val V, err error) {
	c.resolved, c.val, c.err = true, val, err
	close(c.done)
	c.over()
}

// Wait returns the call's result, or ctx's error if ctx ends first. When the last caller of a flight leaves like that,
// the flight's context is cancelled, at once or in a while (see Linger), and the next caller of the key starts a new one.
func (c *Call[K, V]) Wait(ctx context.Context) (V, error) {
	return c.WaitFor(ctx, nil)
}

// WaitFor is Wait, but fails with ErrTimeout when over fires. A context of the program's own is not derived from for that: the standard
// library panics, on a goroutine of its own, where one ends without an error.
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
		err := EndOf(ctx) // first: it may panic, and whoever called has to leave then, once
		c.Leave()
		return *new(V), err
	case <-over:
		c.Leave()
		return *new(V), ErrTimeout
	}
}

// EndOf is why a context has ended, also where its author has forgotten to say so: without an error it would be a success.
func EndOf(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return context.Canceled
}

// Forsake ends a call that will not be run, with an error. It does nothing to one that was run.
func (c *Call[K, V]) Forsake(err error) {
	if c.by.Load() == nil {
		c.Resolve(*new(V), err)
	}
}

// Leave is for a caller who does not wait for the call any more.
func (c *Call[K, V]) Leave() {
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	c.waiters--
	if c.waiters > 0 || c.resolved || c.trip == nil {
		return
	}
	g.unwanted(c.trip)
}

// unwanted notes that nobody waits for one of t's calls any more. The caller holds mu.
func (g *Group[K, V]) unwanted(t *trip[K, V]) {
	if t.wanted--; t.wanted <= 0 {
		g.deserted(t)
	}
}

// Close resolves every call with err, cancels every load, makes later calls fail with err, and waits until the loads
// have returned, or until ctx ends.
func (g *Group[K, V]) Close(ctx context.Context, err error) error {
	g.mu.Lock()
	if g.closed == nil {
		g.closed = err
		for _, end := range g.flights {
			end()
		}
		for _, c := range g.calls { // led, but not yet run
			if !c.resolved {
				c.settle(*new(V), err)
			}
		}
		clear(g.calls)
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

// end resolves what the flight left unresolved with err and lets nobody join it any more.
func (g *Group[K, V]) end(t *trip[K, V], err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.endLocked(t, err)
}

func (g *Group[K, V]) endLocked(t *trip[K, V], err error) {
	for _, c := range t.calls {
		if !c.resolved {
			c.settle(*new(V), err)
		}
		g.drop(c)
	}
	t.wanted = 0
	t.revisited() // nothing is left to cancel
	delete(g.flights, t)
}

// drop takes c out of the map, unless its key has a newer call there. The caller holds mu.
func (g *Group[K, V]) drop(c *Call[K, V]) {
	if g.calls[c.key] == c {
		delete(g.calls, c.key)
	}
	c.over()
}
