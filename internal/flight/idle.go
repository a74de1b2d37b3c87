package flight

import "context"

// Idle waits until no call and no load is under way, or until ctx ends: it returns ctx's error then. Calls and loads that begin in the meantime are
// waited for too. A load that has exceeded its time limit is not under way any more, even if it has not returned.
func (g *Group[K, V]) Idle(ctx context.Context) error {
	for {
		g.mu.Lock()
		if g.isIdle() {
			g.mu.Unlock()
			return nil
		}
		if g.idle == nil {
			g.idle = make(chan struct{})
		}
		idle := g.idle
		g.mu.Unlock()
		select {
		case <-idle:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Quiet reports whether no call and no load is under way.
func (g *Group[K, V]) Quiet() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.isIdle()
}

// isIdle requires mu.
func (g *Group[K, V]) isIdle() bool { return len(g.calls) == 0 && len(g.flights) == 0 }

// notifyIdle wakes those that wait in Idle, if there is nothing to wait for. It requires mu.
func (g *Group[K, V]) notifyIdle() {
	if g.idle != nil && g.isIdle() {
		close(g.idle)
		g.idle = nil
	}
}
