package engine

import (
	"context"
	"reflect"
	"runtime"

	"github.com/gatewayz/aside/internal/flight"
)

// A loader that calls the cache makes its load wait for other loads. The context that it passes on says in which load the call is made. Two
// rules hold for a loader that passes on its own context:
//
//   - Loads never wait for each other in a circle of any length: the call that would close the circle fails.
//   - A load that another load waits for needs no place in the bulkhead: see package bulkhead.
//
// Another context, such as that of the caller around the loader, hides in which load a call is made. The second rule then still holds for a
// call on the loader's own goroutine, whose stack shows that there is a load. The first rule does not: such loads wait until their time is up.

// Check returns an error if ctx belongs to a load of key, or to a load inside it: that load would wait for itself.
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
				return &Error{Code: CodeReentrant, Key: key, Message: "loader called the cache for the key it is loading (deadlock)"}
			}
		}
	}
	return nil
}

// call returns a call that the load resolves, nil for a load without callers.
func (l *Load) call() *flight.Call[flightKey, Outcome] {
	if l == nil || len(l.attempts) == 0 {
		return nil
	}
	return l.attempts[0].call
}

// noteWaiting notes that the load l, if the call is made inside one, waits for a's load. It fails if the two would wait for each other.
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
		return &Error{Code: CodeReentrant, Key: a.Key, Message: "loader called the cache for a key whose load waits for the loader's own key, directly or through other loads (deadlock)"}
	}
	a.waiter = waiter
	return nil
}

// stopWaiting undoes noteWaiting.
func (a *attempt) stopWaiting() {
	if a.waiter != nil {
		a.waiter.Forgo(a.call)
		a.waiter = nil
	}
}

// InLoader runs a loader. onLoadersStack looks for its frame.
//
//go:noinline
func InLoader(load func()) { load() }

var inLoaderEntry = reflect.ValueOf(InLoader).Pointer()

// onLoadersStack reports whether a loader is on the stack of this goroutine. It takes some microseconds.
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
