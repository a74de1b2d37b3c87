package engine

import (
	"github.com/gatewayz/aside/internal/freshness"
	"github.com/gatewayz/aside/internal/wire"
)

// lastPhase is the last phase in which a value in Redis is an answer. To a load in the background that is to replace a value which only memory
// has, an older one in Redis is none.
func (a *attempt) lastPhase() freshness.Phase {
	switch {
	case a.tolerant:
		return freshness.OnError
	case a.old != nil:
		return freshness.Ageing
	}
	return freshness.Stale
}

// phaseOf is the phase of a value in Redis. Redis expires a key at the end of its value's life, unless the key's expiry was changed, or the policy
// had longer times. Times after the TTL, and the end of all, err on the early side of what is known of the server's clock.
func (e *Engine) phaseOf(a *attempt, h *wire.Header) freshness.Phase {
	return e.phaseAt(a, h, !a.Strong && !a.Replace)
}

// servable reports whether a value in Redis is not dead, whatever a's caller may have.
func (e *Engine) servable(a *attempt, h *wire.Header) bool {
	return e.phaseAt(a, h, true) < freshness.Dead
}

// phaseAt is phaseOf for a caller that may have a value past its TTL, or not.
func (e *Engine) phaseAt(a *attempt, h *wire.Header, past bool) freshness.Phase {
	now, within, ok := e.Store.Now(a.Key)
	fresh, w := a.Policy.until(h), a.Policy.windowsOf(h)
	last := min(fresh+w.Rest().Microseconds(), h.DeadUntil)
	switch {
	case !ok, last > fresh && now+within >= last:
		return freshness.Dead
	case now-within < fresh:
		return freshness.Fresh
	case h.Negative || !past:
		return freshness.Dead
	case now+within < min(fresh+w.Stale.Microseconds(), h.DeadUntil):
		return freshness.Stale
	case now+within < last:
		return freshness.OnError
	}
	return freshness.Dead
}
