package aside

import (
	"context"
	"sync"
)

// A lifetime counts what a cache has under way beside its flights: the calls that are not loads, and what runs in the background.
// A sync.WaitGroup would not do, since it must not grow from zero while somebody waits for it:
//
//  1. Set finds the cache open;
//  2. Close closes it, finds nothing under way, and returns;
//  3. Set begins something in the background.
//
// Here a call enters under the lock that close takes: it is either waited for or refused. The zero value is open.
type lifetime struct {
	mu     sync.Mutex
	inside int           // guarded by mu
	closed bool          // no call enters any more; guarded by mu
	over   bool          // nothing begins any more; guarded by mu
	empty  chan struct{} // closed when nothing is inside; made by wait; guarded by mu
}

// enter reports whether a call may go on. It then calls leave when it is done.
func (l *lifetime) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.inside++
	return true
}

func (l *lifetime) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inside--; l.inside == 0 && l.empty != nil {
		l.over = true
		close(l.empty)
		l.empty = nil
	}
}

// Go runs f in the background. It is for who is inside, or in a flight. Once Close has ended its wait, f is not run.
func (l *lifetime) Go(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	l.inside++
	go func() {
		defer l.leave()
		f()
	}()
}

// close refuses calls from now on.
func (l *lifetime) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}

// wait waits until nothing is inside any more, or until ctx ends. Nothing begins after that.
func (l *lifetime) wait(ctx context.Context) error {
	l.mu.Lock()
	if l.inside == 0 {
		l.over = true
		l.mu.Unlock()
		return nil
	}
	if l.empty == nil {
		l.empty = make(chan struct{})
	}
	empty := l.empty
	l.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		l.over = true
		return ctx.Err()
	}
}
