package engine

import (
	"context"

	"github.com/gatewayz/aside/internal/guard"
)

// Peek returns the cached value, without a load. If there is none, the outcome's status says whether Redis could be read.
func (e *Engine) Peek(ctx context.Context, r Request) (out Outcome, ok bool) {
	a := newAttempt(r)
	out, ok = e.readNear(a)
	if !ok {
		// A value that was just loaded may not be stored yet.
		out, ok = e.flights.Peek(a.flightKey())
		out.Status, out.Tier = StatusHit, TierMemory
	}
	if !ok && e.Store != nil && e.Calls.Enter() {
		defer e.Calls.Leave()
		out, ok = e.peekStore(ctx, a)
	}
	if !ok {
		return Outcome{Status: a.status}, false
	}
	return out, true
}

// peekStore reads the value in Redis. The fences are ended even if a codec ends the goroutine.
func (e *Engine) peekStore(ctx context.Context, a *attempt) (out Outcome, ok bool) {
	calm := guard.Context(ctx)
	e.awaitFirst(calm, a)
	budget, cancel := e.budget(calm, a)
	defer cancel()
	m := e.tags.Snapshot()
	defer m.End()
	defer func() { a.fence.End() }()
	e.takeFences(a, m, nil)
	ok = len(e.readStore(budget, m, []*attempt{a}, func(_ *attempt, o Outcome) { out = o })) == 0
	if !ok && a.status == StatusFallback {
		out, ok = e.readStale(a)
	}
	return out, ok
}
