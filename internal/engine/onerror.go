package engine

import (
	"context"
	"errors"

	"github.com/gatewayz/aside/internal/flight"
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

// insteadOf returns the older value in place of the error of a load.
func (e *Engine) insteadOf(ctx context.Context, a *attempt, err error) (Outcome, bool) {
	reason := ReasonLoadFailed
	if own := (*Error)(nil); errors.As(err, &own) && own.Key == a.Key {
		switch own.Code {
		case CodeBackoff:
			reason = ReasonBackoff
		case CodeOverloaded:
			reason = ReasonOverloaded
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
	if a.Strong || a.Replace || a.Policy.SoftTimeout <= 0 {
		return Outcome{}, false
	}
	if e.Store == nil && !a.mayBeOld() { // otherwise it is not known before Redis was read
		return Outcome{}, false
	}
	t := e.timers.start(max(0, min(a.Policy.SoftTimeout-a.call.Age(), a.Policy.LoadTimeout)))
	defer e.timers.stop(t)
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
	out, ok := e.readOld(ctx, a, ReasonSlowLoad)
	if ok {
		if out.Status == StatusStale {
			a.Policy.Counters.SoftTimeouts.Add(1)
		}
		a.call.LeaveBehind()
	}
	return out, ok
}

// mayBeOld reports whether a may be answered by a value past its TTL that cannot be loaded anew.
func (a *attempt) mayBeOld() bool { return a.Policy.outlives() && !a.Strong && !a.Replace && !a.Bypass }

// readOld looks for a value that is not dead yet: in memory, then in Redis.
func (e *Engine) readOld(ctx context.Context, a *attempt, reason string) (Outcome, bool) {
	if !a.mayBeOld() {
		return Outcome{}, false
	}
	own := a.again() // the load may still run
	out, ok := e.oldInMemory(own, reason, e.Store == nil || e.unavailable(own))
	if !ok && e.Store != nil {
		var err error
		if out, err = e.fetchOld(ctx, own, reason); errors.Is(err, errUnanswered) {
			out, ok = e.oldInMemory(own, reason, true)
		} else {
			ok = err == nil
		}
	}
	if ok && out.Status == StatusStale { // otherwise there is a new value by now
		a.Policy.Counters.StaleOnError.Add(1)
	}
	return out, ok
}

// oldInMemory looks into memory. A value whose changes Redis has stopped to push is no answer while Redis is available:
//
//  1. The connection breaks. Another process invalidates the key, and Redis confirms that.
//  2. The connection is there again. A caller finds no value in Redis, and loads.
//  3. The load fails. Memory still holds the value from before the invalidation.
//
// Redis is then asked: see fetchOld. Where it does not answer, unvouched is true.
func (e *Engine) oldInMemory(a *attempt, reason string, unvouched bool) (Outcome, bool) {
	entry, phase := e.Near.Old(a.Key)
	if entry == nil || !unvouched && !entry.Scope.Valid() || phase > a.latestPhase(entry, e.Clock.Now()) || !a.sameOwner(entry) {
		return Outcome{}, false
	}
	value, ok := e.inMemoryAs(a, entry)
	if !ok {
		return Outcome{}, false
	}
	out := Outcome{
		Status: StatusStale, Tier: TierMemory, Reason: reason, ETag: entry.ETag(), LoadedAt: entry.LoadedAt, FreshUntil: entry.Times().FreshUntil,
		LoadTime: entry.LoadTime,
	}
	if phase < freshness.Stale && entry.Scope.Valid() { // another load has succeeded in the meantime
		out.Status, out.Reason = StatusHit, ReasonFresh
	}
	out.setCached(value)
	return out, true
}

// endOld ends the older value of a key whose loader has succeeded, and lets nothing be stored. Otherwise it would come back: at once in its phase
// Stale, or in place of the next error. What is newer than the load stays.
func (e *Engine) endOld(ctx context.Context, a *attempt) {
	if a.Bypass || !a.Policy.outlives() && a.old == nil {
		return
	}
	if a.old == nil && a.rejected == (redisstore.Rejected{}) {
		if there, _ := e.Near.Old(a.Key); there == nil {
			return
		}
	}
	switch {
	case e.Store != nil && a.leased():
		if e.discard(a) != nil {
			e.removeOld(ctx, a)
		}
	case e.Store != nil && a.status == StatusFallback:
		e.removeOld(ctx, a)
	default: // in Redis there may be a value of a newer build
		e.Near.Discard(a.Key, a.out.LoadedAt)
	}
}

// The errors of fetchOld where it finds nothing.
var (
	errNoOld      = errors.New("no older value")
	errUnanswered = errors.New("redis has not answered")
)

// fetchOld reads a value in Redis that is not dead yet. All callers of the key share the read, as they have shared the load. One that has joined a
// read whose value may have been invalidated before reads once more: see joinedOutdated.
func (e *Engine) fetchOld(ctx context.Context, a *attempt, reason string) (Outcome, error) {
	key, began := flightKey{key: oldKey(a.Key), typ: a.Type, policy: a.Policy}, e.tags.Events().All
	call, leads := e.flights.Join(key)
	out, err := e.waitForOld(ctx, a, call, leads)
	if err == nil && !leads && out.late && out.tagEvents != began {
		call, leads = e.flights.JoinNew(key)
		out, err = e.waitForOld(ctx, a, call, leads)
	}
	if err == nil && a.tooOld(out, e.Clock.Now()) {
		err = errNoOld
	}
	if out.old = nil; out.Status == StatusStale {
		out.Reason = reason
	}
	return out, err
}

// waitForOld waits for the read of fetchOld, which begins it where it leads it.
func (e *Engine) waitForOld(ctx context.Context, a *attempt, call *flight.Call[flightKey, Outcome], leads bool) (Outcome, error) {
	if leads {
		e.flights.Run(ctx, a.Policy.LoadTimeout, func(ctx context.Context) {
			b := newAttempt(a.Request)
			b.call, b.tolerant, b.storable, b.tagEvents, b.Limits = call, true, false, e.tags.Events(), nil
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
	return call.Wait(ctx)
}

// oldKey is the flight key of such a read. No key of a policy looks like it, so no other caller joins.
func oldKey(key string) string { return "%o:" + key }

// tooOld reports whether an outcome is older than a's caller allows, or may not be served any more: the caller may have joined a read that had
// looked at the time before the value's life ended.
func (a *attempt) tooOld(out Outcome, now int64) bool {
	switch {
	case out.Status != StatusStale:
		return false
	case out.deadUntil != 0 && now >= out.deadUntil:
		return true
	}
	return a.Limits != nil && now >= out.FreshUntil+int64(a.Limits.MaxStale)
}

// latestPhase is the last phase in which r may have an entry.
func (r *Request) latestPhase(entry *near.Entry, now int64) freshness.Phase {
	if r.Strong || r.Limits != nil && now >= entry.Times().FreshUntil+int64(r.Limits.MaxStale) {
		return freshness.Ageing
	}
	return freshness.OnError
}
