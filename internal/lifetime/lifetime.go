// Package lifetime counts the calls and the background work of something that can be closed, so that Close waits for them.
package lifetime

import (
	"context"
	"sync"
)

// A Group counts the calls that are running, and what runs in the background. A sync.WaitGroup would not do, since it must not grow
// from zero while somebody waits for it:
//
//  1. Set finds the cache open;
//  2. Close closes it, finds nothing running, and returns;
//  3. Set begins something in the background.
//
// Here a call enters under the lock that Close takes: it is either waited for or refused. The zero value is open.
type Group struct {
	mu      sync.Mutex
	running int           // guarded by mu
	closed  bool          // no call enters; guarded by mu
	over    bool          // nothing begins; guarded by mu
	empty   chan struct{} // closed when nothing is running; made by Wait; guarded by mu
}

// Enter reports whether a call may go on. The caller then calls Leave when it is done.
func (g *Group) Enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.running++
	return true
}

// Leave ends a call that has entered.
func (g *Group) Leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running--; g.running == 0 && g.empty != nil {
		g.over = true
		close(g.empty)
		g.empty = nil
	}
}

// Go runs f in the background. A call that has entered may use it, and so may a load. After Wait has returned, f is not run.
func (g *Group) Go(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over {
		return
	}
	g.running++
	go func() {
		defer g.Leave()
		f()
	}()
}

// Close refuses calls from now on.
func (g *Group) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

// Wait waits until nothing is running, or until ctx ends. Nothing begins after that.
func (g *Group) Wait(ctx context.Context) error {
	g.mu.Lock()
	if g.running == 0 {
		g.over = true
		g.mu.Unlock()
		return nil
	}
	if g.empty == nil {
		g.empty = make(chan struct{})
	}
	empty := g.empty
	g.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		g.mu.Lock()
		defer g.mu.Unlock()
		g.over = true
		return ctx.Err()
	}
}
