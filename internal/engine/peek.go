package engine

import (
	"context"
	"time"

	"github.com/gatewayz/aside/internal/guard"
	"github.com/gatewayz/aside/internal/observe"
)

// Peek returns the cached value, without a load. If there is none, the outcome's status says whether Redis could be read. here reports whether Redis was not asked:
// then the Observer has not been told of the call.
func (e *Engine) Peek(ctx context.Context, r Request) (out Outcome, here, ok bool) {
	out, took, ok := e.peek(ctx, newAttempt(r), e.opts.Observer)
	if took >= 0 {
		r.Policy.Counters.CallTimes.Observe(took)
	}
	return out, took < 0, ok
}

// PeekAlone is Peek for no caller, and for no load that would store anything. So it does not matter to it, and is no failure, that Redis does
// not say what the generations of a missing value's tags are.
func (e *Engine) PeekAlone(ctx context.Context, r Request) (Outcome, bool) {
	a := newAttempt(r)
	a.storable = false
	out, _, ok := e.peek(ctx, a, nil)
	return out, ok
}

// peek also returns how long Redis took, -1 if it was not asked.
func (e *Engine) peek(ctx context.Context, a *attempt, observer *observe.Observer) (out Outcome, took time.Duration, ok bool) {
	took = -1
	if a.Bypass {
		a.reason = ReasonBypassed
		return a.missed(), took, false
	}
	if out, ok = e.readNear(a); !ok {
		out, ok = e.readAgeing(a, false)
	}
	if !ok {
		// A value that was just loaded may not be stored yet.
		out, ok = e.flights.Peek(a.flightKey())
		ok = ok && e.Clock.Before(out.FreshUntil) // the load may have taken longer than its TTL
		out.Status, out.Tier = StatusHit, TierMemory
	}
	if !ok && e.Store != nil && a.Place != PlaceMemory && e.Calls.Enter() {
		defer e.Calls.Leave()
		began := e.Clock.Now()
		if observer != nil {
			var op observe.Operation
			ctx, op = observer.Begin(ctx, e.opOf(observe.Call, a, 1))
			defer func() { op.End(e.endOfPeek(a, out, ok)) }()
		}
		out, ok = e.peekStore(ctx, a)
		took = time.Duration(e.Clock.Now() - began)
	}
	if !ok {
		return a.missed(), took, false
	}
	return out, took, true
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
	if !ok && a.status == StatusFallback && (a.unanswered || e.unavailable(a)) { // see shareStale
		out, ok = e.readStale(a)
	}
	return out, ok
}
