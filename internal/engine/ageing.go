package engine

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/gatewayz/aside/internal/freshness"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/wire"
)

// A policy may let its values be served for a while after their TTL, or have them loaded anew before it ends: see freshness.Windows. Callers
// then get the value that is there. One of them, in all processes, has it loaded anew behind their backs: see refresh.go.

// claimLife is for how long a caller who begins a load in the background keeps the others of this process from trying that too. The load itself
// keeps them from it for as long as it runs.
const claimLife = time.Second

// readAgeing looks into memory for a value whose refresh is due, or whose TTL is over. Where claims is true, the first one of the callers to whom
// that refresh is due gets it with the outcome: see refreshBehind.
func (e *Engine) readAgeing(a *attempt, claims bool) (Outcome, bool) {
	entry, phase, due := e.ageing(a.Key, &a.Request)
	if entry == nil {
		return Outcome{}, false
	}
	value, ok := e.inMemoryAs(a, entry)
	if !ok {
		return Outcome{}, false
	}
	out := ageingHit(entry, phase, value)
	if due && claims && e.claim(a.Key, entry) {
		out.old = entry
	}
	return out, true
}

// LookAgeing is Look for a value that is of the right type, and whose refresh is not due: in most cases it runs already. It makes no
// allocation, and takes the key apart from the request, since it keeps none: so the key may be a text that does not last.
func (e *Engine) LookAgeing(key string, r *Request) (Outcome, bool) {
	entry, phase, due := e.ageing(key, r)
	if entry == nil || due || !fits(entry.Value, r.Type) {
		return Outcome{}, false
	}
	return ageingHit(entry, phase, entry.Value), true
}

// ageing returns the entry that a request may have at once, or nil: see near.Cache.Ageing.
func (e *Engine) ageing(key string, r *Request) (entry *near.Entry, phase freshness.Phase, due bool) {
	if !r.Policy.strategic() || r.Bypass || r.Replace || r.Strong && e.Store != nil {
		return nil, freshness.Dead, false
	}
	entry, phase, due = e.Near.Ageing(key)
	if entry == nil || !r.sameOwner(entry) || phase > r.latestPhase(entry, e.Clock.Now()) {
		return nil, freshness.Dead, false
	}
	return entry, phase, due
}

func ageingHit(entry *near.Entry, phase freshness.Phase, value any) Outcome {
	out := Outcome{
		Status: StatusHit, Tier: TierMemory, Reason: ReasonRefreshing, ETag: entry.ETag(), LoadedAt: entry.LoadedAt, FreshUntil: entry.Plan.FreshUntil,
		LoadTime: entry.LoadTime,
	}
	switch phase {
	case freshness.Fresh: // since Get was called, the entry was replaced
		out.Reason = ReasonFresh
	case freshness.Stale:
		out.Status, out.Reason = StatusStale, ReasonStale
	}
	out.setCached(value)
	return out
}

// markAgeing marks the outcome of a value that was read in Redis, if it is to be loaded anew.
func (e *Engine) markAgeing(a *attempt, out *Outcome, entry *near.Entry) {
	if entry.Plan == nil || a.Strong {
		return
	}
	now := e.Clock.Now()
	phase := entry.Plan.At(now)
	switch phase {
	case freshness.Fresh:
		return
	case freshness.Ageing:
		out.Reason = ReasonRefreshing
	default:
		if entry.Plan.StaleUntil <= entry.Plan.FreshUntil && !a.tolerant {
			return // it was within its TTL when its header was judged, by what is known of the server's clock
		}
		out.Status, out.Reason = StatusStale, ReasonStale
	}
	if now >= entry.Plan.RetryAt {
		out.old = entry
	}
}

// readBeside reads the value in Redis for a caller that has joined a load which others have begun although there may be a value: memory may not
// hold it, because it is very large or was evicted. The caller does not wait for the load if that value may be served at once.
func (e *Engine) readBeside(ctx context.Context, a *attempt) (Outcome, bool) {
	if a.Policy.Windows.Stale == 0 && !a.Policy.ownWindows.Load() || e.Store == nil || a.leader || !a.mayBeOld() || !a.call.Optional() {
		return Outcome{}, false
	}
	out, err := e.fetchOld(ctx, a, ReasonStale)
	return out, err == nil && (out.Status == StatusHit || e.Clock.Before(out.staleUntil))
}

// claim reports whether the caller is the one to begin the load that is to replace an entry.
func (e *Engine) claim(key string, old *near.Entry) bool {
	now := e.Clock.Now()
	next := now + int64(jittered(claimLife))
	if e.Near.Postpone(key, old, next) {
		return true
	}
	if entry, _ := e.Near.Old(key); entry != nil {
		return false // another caller has claimed it, or it is a newer one
	}
	return e.unkept.claim(key, now, next)
}

// retryIn lets the next load in the background of a key begin after a pause at the earliest.
func (e *Engine) retryIn(key string, old *near.Entry, pause time.Duration) {
	now := e.Clock.Now()
	next := now + int64(jittered(pause))
	if there, phase := e.Near.Old(key); there == nil {
		e.unkept.set(key, now, next)
	} else if there.Plan != nil && there.LoadedAt == old.LoadedAt && phase < freshness.OnError {
		e.Near.Postpone(key, there, next)
	}
}

// unkept are the keys whose values memory does not keep, such as very large ones, with the times before which no load of them in the
// background begins. Without it, each call for such a key would ask Redis for the lease.
type unkept struct {
	mu   sync.Mutex
	next map[string]int64 // guarded by mu
}

const mostUnkept = 4096

func (u *unkept) claim(key string, now, next int64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.next[key] > now {
		return false
	}
	u.note(key, next)
	return true
}

func (u *unkept) set(key string, now, next int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.note(key, next)
}

// note requires mu.
func (u *unkept) note(key string, next int64) {
	if u.next == nil || len(u.next) >= mostUnkept {
		u.next = make(map[string]int64)
	}
	u.next[key] = next
}

// planOf makes the plan of a value for memory; nil where no strategy applies to it, and it has no ETag. nonce identifies the value in Redis.
func (a *attempt) planOf(out *Outcome, w freshness.Windows, took time.Duration, nonce wire.Nonce) *near.Plan {
	if w.None() && out.ETag == "" || out.Value == nil {
		return nil
	}
	if took == 0 {
		took = time.Duration(a.Policy.loadTime.Load()) // of a value that was set
	}
	return &near.Plan{
		Times:   w.Times(out.LoadedAt, out.FreshUntil, took, rand.Float64()),
		RetryAt: out.LoadedAt + 2*int64(took), // a load that is slower than its TTL allows runs half of the time, and not all of it
		Nonce:   nonce,
		ETag:    out.ETag,
	}
}

// withPlan gives an entry its plan.
func withPlan(entry *near.Entry, plan *near.Plan) *near.Entry {
	if plan != nil {
		entry.Plan, entry.Until = plan, plan.Until()
	}
	return entry
}
