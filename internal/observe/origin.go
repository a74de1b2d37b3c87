package observe

import (
	"context"
	"sync"
)

// An Origin is the context of a call that has caused work in the background, until that begins: of several, which the work is for together, the
// last one. So no more than one context is kept. The zero value is ready.
type Origin struct {
	mu  sync.Mutex
	ctx context.Context // guarded by mu
}

// Note notes the context of a call. With a nil Observer it keeps nothing.
func (g *Origin) Note(ctx context.Context, o *Observer) {
	if o == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ctx = ctx
}

// Return notes a context that Take has returned again, since the work is not done, unless another one was noted in the meantime.
func (g *Origin) Return(ctx context.Context) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ctx == nil {
		g.ctx = ctx
	}
}

// Take returns the context that was noted last, and keeps it no longer; nil if none was.
func (g *Origin) Take() (ctx context.Context) {
	g.mu.Lock()
	defer g.mu.Unlock()
	ctx, g.ctx = g.ctx, nil
	return ctx
}
