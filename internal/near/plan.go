package near

import (
	"github.com/maypok86/otter/v2"

	"github.com/gatewayz/aside/internal/freshness"
)

// A Plan says when an entry is loaded anew, and for how long it is of use after its TTL. It is not changed after an entry has it.
type Plan struct {
	freshness.Times
	RetryAt int64    // no load in the background begins before, on the cache's Clock
	Nonce   [12]byte // identifies the value in Redis; zero if that is not known
	ETag    string   // what the source calls the value
	Payload [12]byte // of a value in chunks: identifies them in Redis

	pushedUntil int64 // of a value that is kept for Pushed alone: until when
}

// ETag is what the source calls the entry's value, empty if that is not known.
func (e *Entry) ETag() string {
	if e.Plan == nil {
		return ""
	}
	return e.Plan.ETag
}

// Until is until when Get returns an entry with the plan: until a load in the background may begin, and no longer than its TTL.
func (p *Plan) Until() int64 { return min(p.FreshUntil, max(p.RefreshAt, p.RetryAt)) }

// Times returns the phases of the entry's life.
func (e *Entry) Times() freshness.Times {
	if e.Plan == nil {
		return freshness.Plain(e.Until)
	}
	return e.Plan.Times
}

// Ageing returns the valid entry of key if it may be served at once, and has a plan. In most cases Get does not return it: a new load of it is
// due, or its TTL is over. due reports whether a load in the background may begin now: see Postpone. Ageing makes no allocation and takes no lock.
func (c *Cache) Ageing(key string) (e *Entry, phase freshness.Phase, due bool) {
	e, ok := c.store.GetIfPresent(key)
	if !ok || e.Plan == nil || !e.Scope.Valid() {
		return nil, freshness.Dead, false
	}
	now := c.clock.Now()
	if now < e.Until { // Get would return it
		return e, freshness.Fresh, false
	}
	if phase = e.Plan.At(now); phase > freshness.Stale {
		return nil, phase, false
	}
	return e, phase, phase > freshness.Fresh && now >= e.Plan.RetryAt
}

// DueWithoutPushes is the due of Ageing for an entry that Stale has returned. A lapsed validity shortens the entry's life, so the load begins in
// the second half of what is left: otherwise all callers of all keys would wait for loads at the same time.
func (c *Cache) DueWithoutPushes(e *Entry) bool {
	if e.Plan == nil {
		return false
	}
	now := c.clock.Now()
	at := e.Plan.RefreshAt
	if since, _ := e.lapsed(); since != 0 {
		at = min(at, since+int64(e.Scope.StaleFor)/2)
	}
	return now >= at && now >= e.Plan.RetryAt
}

// Postpone lets no load in the background begin before next, if e is still the entry of key. It reports whether it is: of several callers to
// whom a load is due, one postpones the entry and begins the load. Fences stay whole. Until its next phase or until next, Get returns the entry.
func (c *Cache) Postpone(key string, e *Entry, next int64) (ok bool) {
	plan := *e.Plan
	plan.RetryAt = next
	later := *e
	later.Plan = &plan
	later.Until = plan.Until()
	c.store.Compute(key, func(there *Entry, found bool) (*Entry, otter.ComputeOp) {
		if ok = found && there == e; !ok {
			return nil, otter.CancelOp
		}
		return c.write(&later)
	})
	return ok
}
