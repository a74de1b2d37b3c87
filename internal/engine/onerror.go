package engine

import (
	"context"
	"errors"
	"time"

	"github.com/gatewayz/aside/internal/freshness"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
)

// A policy may let a value be served for a while after its TTL where it cannot be loaded anew, or not soon enough. What then stands in for the
// result of a load is looked up at that moment, and never remembered:
//
//  1. A value is past its TTL. A caller has it loaded anew.
//  2. The key is invalidated.
//  3. The load fails. The caller must not get the value from before the invalidation.

// The Reasons of such hits.
const (
	reasonFailed     = "past its TTL, the load failed"
	reasonSlow       = "past its TTL, the load takes longer than SoftTimeout"
	reasonBackedOff  = "past its TTL, the last loads failed"
	reasonOverloaded = "past its TTL, too many loads"
)

// insteadOf returns the older value in place of the error of a load.
func (e *Engine) insteadOf(ctx context.Context, a *attempt, err error) (Outcome, bool) {
	reason := reasonFailed
	if own := (*Error)(nil); errors.As(err, &own) && own.Key == a.Key {
		switch own.Code {
		case CodeBackoff:
			reason = reasonBackedOff
		case CodeOverloaded:
			reason = reasonOverloaded
		case CodeReentrant:
			return Outcome{}, false // a mistake in the program
		}
	}
	if errors.Is(err, e.opts.ErrClosed) {
		return Outcome{}, false
	}
	return e.readOld(ctx, a, reason)
}

// waitSoftly waits for a's flight until the load has taken the policy's SoftTimeout, and then looks for an older value. It reports whether there
// is one; the load goes on.
func (e *Engine) waitSoftly(ctx context.Context, a *attempt) (Outcome, bool) {
	if !a.mayBeOld() || a.Policy.SoftTimeout <= 0 {
		return Outcome{}, false
	}
	t := time.NewTimer(max(0, a.Policy.SoftTimeout-a.call.Age()))
	defer t.Stop()
	select {
	case <-a.call.Settled():
		return Outcome{}, false
	case <-ctx.Done():
		return Outcome{}, false
	case <-t.C:
	}
	select {
	case <-a.call.Settled(): // at the same moment
		return Outcome{}, false
	default:
	}
	out, ok := e.readOld(ctx, a, reasonSlow)
	if ok {
		if out.Status == StatusStale {
			a.Policy.Counters.SoftTimeouts.Add(1)
		}
		a.call.LeaveBehind()
	}
	return out, ok
}

// mayBeOld reports whether a may be answered by a value past its TTL that cannot be loaded anew.
func (a *attempt) mayBeOld() bool { return a.Policy.Windows.Rest() > 0 && !a.Strong && !a.Replace }

// readOld looks for a value that is not dead yet: in memory, then in Redis.
func (e *Engine) readOld(ctx context.Context, a *attempt, reason string) (Outcome, bool) {
	if !a.mayBeOld() {
		return Outcome{}, false
	}
	out, ok := e.oldInMemory(a, reason, e.Store == nil || e.unavailable(a))
	if !ok && e.Store != nil {
		answered := false
		if out, ok, answered = e.fetchOld(ctx, a, reason); !answered {
			out, ok = e.oldInMemory(a, reason, true)
		}
	}
	if ok && out.Status == StatusStale { // and not a fresh one of another load, which has ended in the meantime
		a.Policy.Counters.StaleOnError.Add(1)
	}
	return out, ok
}

// oldInMemory looks for such a value in memory. A value with a lapsed validity may have been invalidated by another process. It is an answer only
// where Redis cannot say: unvouched.
func (e *Engine) oldInMemory(a *attempt, reason string, unvouched bool) (Outcome, bool) {
	entry, phase := e.Near.Old(a.Key)
	if entry == nil || !unvouched && !entry.Scope.Valid() || phase > a.latestPhase(entry, e.Clock.Now()) || !a.sameOwner(entry) {
		return Outcome{}, false
	}
	value, ok := e.inMemoryAs(a, entry)
	if !ok {
		return Outcome{}, false
	}
	out := Outcome{Status: StatusStale, Tier: TierMemory, Reason: reason, LoadedAt: entry.LoadedAt, FreshUntil: entry.Times().FreshUntil}
	if phase < freshness.Stale && entry.Scope.Valid() { // another load has succeeded in the meantime
		out.Status, out.Reason = StatusHit, "fresh"
	}
	out.setCached(value)
	return out, true
}

// The errors of a flight of fetchOld that finds nothing.
var (
	errNoOld      = errors.New("no older value")
	errUnanswered = errors.New("redis has not answered")
)

// fetchOld reads a value in Redis that is not dead yet. All callers of the key share the read, as they have shared the load. answered reports
// whether Redis has said what it holds.
func (e *Engine) fetchOld(ctx context.Context, a *attempt, reason string) (out Outcome, ok, answered bool) {
	call, leads := e.flights.Join(flightKey{oldKey(a.Key), a.Type, a.Policy})
	if leads {
		e.flights.Run(ctx, a.Policy.LoadTimeout, func(ctx context.Context) {
			b := newAttempt(a.Request)
			b.call, b.tolerant, b.storable, b.tagEvents = call, true, false, e.tags.Events()
			out, ok := e.peekStore(ctx, b)
			call.Forget()
			switch {
			case ok:
				call.Resolve(out, nil)
			case b.unanswered:
				call.Resolve(Outcome{}, errUnanswered)
			default:
				call.Resolve(Outcome{}, errNoOld)
			}
		}, call)
	}
	out, err := call.Wait(ctx)
	if err != nil || a.tooOld(out, e.Clock.Now()) {
		return Outcome{}, false, err != errUnanswered
	}
	out.Status, out.Reason, out.old = StatusStale, reason, nil
	return out, true, true
}

// oldKey is the flight key of such a read. No key of a policy looks like it, so no other caller joins.
func oldKey(key string) string { return "%o:" + key }

// tooOld reports whether an outcome is older than a's caller allows.
func (a *attempt) tooOld(out Outcome, now int64) bool {
	return a.Limits != nil && out.Status == StatusStale && now >= out.FreshUntil+int64(a.Limits.MaxStale)
}

// supersede removes the older value of a key whose loader has just found nothing that is to be cached. That load has succeeded. Otherwise, where
// the next one fails, its callers would get the value from before. A value that was set or loaded since a's load began stays.
func (e *Engine) supersede(ctx context.Context, a *attempt) {
	if e.Store == nil {
		e.Near.Discard(a.Key, a.out.LoadedAt)
		return
	}
	if a.Policy.Windows.Rest() == 0 && a.old == nil {
		return
	}
	entry, _ := e.Near.Old(a.Key)
	if entry == nil && a.old == nil && a.rejected == (redisstore.Rejected{}) {
		return // there is none
	}
	if !a.leased() || e.discard(a) != nil {
		e.removeOld(ctx, a)
	}
}

// latestPhase is the last phase in which a may have an entry.
func (a *attempt) latestPhase(entry *near.Entry, now int64) freshness.Phase {
	if a.Strong || a.Limits != nil && now >= entry.Times().FreshUntil+int64(a.Limits.MaxStale) {
		return freshness.Ageing
	}
	return freshness.OnError
}
