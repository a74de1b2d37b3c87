package engine

import (
	"context"
	"reflect"
	"runtime"

	"github.com/gatewayz/aside/internal/flight"
)

// A loader that calls the cache makes its load wait for others. Who waits for whom is known from the context that it passes on, so
// two rules hold for a loader that passes on its own:
//
//   - loads that would wait for each other, in a circle of any length, do not: the call that would close the circle fails;
//   - a load that another one waits for needs no place in the bulkhead, see there.
//
// The context of somebody else, such as that of the caller around the loader, hides in which load a call is made. The second rule
// then still holds as long as the call is made on the loader's own goroutine, whose stack shows that there is a load. The first
// does not: such loads wait until their time is up.

// Check finds out whether ctx is that of a loader of this cache, or of a load inside one, that is loading key: to wait
// for that load would be to wait for oneself.
func (e *Engine) Check(ctx context.Context, key string) error {
	for l := LoadOf(ctx); l != nil; l = l.parent {
		l.mu.Lock()
		over := l.ended || l.engine != e
		l.mu.Unlock()
		if over {
			continue
		}
		for _, a := range l.attempts {
			if a.Key == key {
				return &Error{Code: CodeReentrant, Key: key, Message: "a loader asked for the key that it is loading: it would wait for itself"}
			}
		}
	}
	return nil
}

// call is one of those that the load is to resolve, nil for one that nobody waits for.
func (l *Load) call() *flight.Call[flightKey, Outcome] {
	if l == nil || len(l.attempts) == 0 {
		return nil
	}
	return l.attempts[0].call
}

// noteWaiting notes that the load that ctx belongs to waits for a, and tells a's load of that. It fails where they would wait for each
// other.
func (e *Engine) noteWaiting(l *Load, a *attempt) error {
	if l != nil && l.engine == e || l == nil && e.loads.Full() && onLoadersStack() {
		a.call.Bypass() // the load that waits for this one has a place
	}
	waiter := l.call()
	if waiter == nil {
		return nil
	}
	if !waiter.Await(a.call) {
		a.call.Leave()
		return &Error{Code: CodeReentrant, Key: a.Key, Message: "a loader asked for a key whose load waits for the one that it is loading, itself or through others: none of them would ever end"}
	}
	a.waiter = waiter
	return nil
}

// forgo undoes awaited.
func (a *attempt) stopWaiting() {
	if a.waiter != nil {
		a.waiter.Forgo(a.call)
		a.waiter = nil
	}
}

// InLoader runs a loader. It stands on the stack of whatever that calls.
//
//go:noinline
func InLoader(load func()) { load() }

var inLoaderEntry = reflect.ValueOf(InLoader).Pointer()

// onLoadersStack reports whether it is called, directly or not, by a loader. It takes some microseconds.
func onLoadersStack() bool {
	var frames [64]uintptr
	for skip := 2; ; skip += len(frames) {
		n := runtime.Callers(skip, frames[:])
		for _, pc := range frames[:n] {
			if f := runtime.FuncForPC(pc - 1); f != nil && f.Entry() == inLoaderEntry {
				return true
			}
		}
		if n < len(frames) {
			return false
		}
	}
}
