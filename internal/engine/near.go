package engine

import (
	"context"
	"reflect"
	"slices"

	"github.com/gatewayz/aside/internal/freshness"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/tags"
)

// takeFences takes the fences of an attempt before anything is read, and makes its flight joinable only until a change breaks them. It
// checks the quarantine last, because of this sequence:
//
//  1. The flight exists, and setJoinable has not run yet. Any caller may join: what the flight is going to read is new enough for it.
//  2. This process invalidates the key, and Redis does not confirm that. The journal enters it, and the fences that exist are broken.
//  3. A second caller joins the flight.
//  4. setJoinable runs. It stops callers that come from now on, but the second one has joined already.
//
// The second caller must not get the old value, which Redis still holds. checkQuarantine runs after step 4, so it finds the entry of step 2,
// and the flight does not trust what Redis holds.
func (e *Engine) takeFences(a *attempt, m *tags.Snapshot, wake chan<- struct{}) {
	a.fence.End()
	a.began, a.read, a.unanswered = e.Clock.Now(), false, false
	a.fence, a.notice, a.captured.Tags = e.Near.Fence(a.Key, wake), e.tags.Notice(a.Key), nil
	m.Add(a.Tags...)
	m.Add(keyspace.Sequence)
	if e.elsewhere(a) {
		m.Add(a.erasure())
	}
	a.setJoinable(e, m)
	e.checkQuarantine(a, m)
}

// checkQuarantine looks up which of a's names are in quarantine: Redis has not confirmed that they were invalidated.
func (e *Engine) checkQuarantine(a *attempt, m *tags.Snapshot) {
	a.quarantined = e.journal.Contains(a.Key)
	m.Recheck(a.Tags)
}

// endFences ends all fences of a flight.
func endFences(m *tags.Snapshot, attempts []*attempt) {
	for _, a := range attempts {
		a.fence.End()
	}
	m.End()
}

// recheckNear takes the fences, and looks into memory a second time. Without that, a load would be repeated:
//
//  1. A caller looks into memory, and misses: another flight is loading the key.
//  2. That flight stores the value in memory, and ends.
//  3. The caller finds no flight to join, and leads a new one.
//  4. The new flight looks into memory again, and finds the value.
func (e *Engine) recheckNear(ctx context.Context, attempts []*attempt, m *tags.Snapshot, wake chan<- struct{}) (pending []*attempt) {
	pending = listOf(attempts)
	for _, a := range attempts {
		a.tagEvents = e.tags.Events()
		if a.Replace {
			e.Near.Break(a.Key) // no load that is in flight may be stored over the new value
		}
		e.takeFences(a, m, wake)
		if f, over := e.storing.of(a.Key); f != nil && !a.Replace && !a.Strong {
			// Another flight is storing the value. Redis pushes that write like any other, so its flight is no longer
			// joinable. The value is about to be in memory: to wait for it is faster than to read and decode it again. If
			// Redis does not answer, this wait has used up the call's budget, and Redis is not asked again.
			select {
			case <-over:
				a.skip = f.err
			case <-ctx.Done():
			}
		}
		if out, ok := e.readNear(a); ok {
			shareHit(a, out)
			continue
		}
		if entry := e.Near.Get(a.Key); entry != nil && !a.sameOwner(entry) && !a.Replace {
			e.otherPolicy(a, entry.Scope.Owner.(Holder).Resolved().Owner)
		}
		pending = append(pending, a)
	}
	return pending
}

// shareHit answers an attempt with a value that is cached. The flight may go on for other keys while that value grows old, so callers that
// come later do not share it.
func shareHit(a *attempt, out Outcome) {
	a.call.Forget()
	a.call.Resolve(out, nil)
}

// captureLocal captures the generations of attempts' tags in memory mode.
func (e *Engine) captureLocal(m *tags.Snapshot, attempts []*attempt) {
	m.Renew(true)
	m.Local()
	for _, a := range attempts {
		m.Capture(&a.captured, a.Tags)
		a.setJoinable(e, m)
		e.notePriorHere(a)
	}
}

// readNear looks into memory for a fresh value.
func (e *Engine) readNear(a *attempt) (Outcome, bool) {
	if a.Replace || a.Strong && e.Store != nil {
		return Outcome{}, false
	}
	entry := e.Near.Get(a.Key)
	if entry == nil || !a.sameOwner(entry) {
		return Outcome{}, false
	}
	value, ok := e.inMemoryAs(a, entry)
	if !ok {
		return Outcome{}, false
	}
	out := Outcome{
		Status: StatusHit, Tier: TierMemory, Reason: ReasonFresh, ETag: entry.ETag(), LoadedAt: entry.LoadedAt, FreshUntil: entry.Times().FreshUntil,
		LoadTime: entry.LoadTime,
	}
	out.setCached(value)
	return out, true
}

// inMemoryAs returns the value of an entry as the type that a asks for, or notes why there is none.
func (e *Engine) inMemoryAs(a *attempt, entry *near.Entry) (value any, ok bool) {
	value, ok = entry.Value, fits(entry.Value, a.Type)
	if !ok && e.Store == nil { // otherwise Redis is read, and its value is kept as this type
		if !a.hasAllFields(entry.Value) {
			a.reason = ReasonFewerFields
		} else if value, ok = e.convert(entry.Value, a); !ok {
			a.reason = ReasonUnusable
		}
	}
	return value, ok
}

// readDegraded looks into memory for a stale value while Redis is unavailable. A Strong call does not take one: it wants the value in Redis,
// or a load.
func (e *Engine) readDegraded(a *attempt) (Outcome, bool) {
	if e.Store == nil || !e.unavailable(a) {
		return Outcome{}, false
	}
	before := a.reason
	a.reason = redisstore.ErrUnavailable.Error()
	out, ok := e.readStale(a)
	a.reason = before // Redis may be available again when the load begins
	if !ok {
		return Outcome{}, false
	}
	if entry := e.Near.Stale(a.Key); entry != nil && e.Near.DueWithoutPushes(entry) && e.claim(a.Key, entry) {
		out.old = entry
	}
	return out, true
}

// unavailable reports whether the server of a name that a's value rests on is unavailable: of its key, of one of its tags, or of the erasure tag.
func (e *Engine) unavailable(a *attempt) bool {
	if e.Store.AllUp() {
		return false
	}
	return !e.Store.UpFor(a.Key) || slices.ContainsFunc(a.Tags, func(tag string) bool { return !e.Store.UpFor(tag) }) ||
		e.elsewhere(a) && !e.Store.UpFor(a.erasure())
}

// readStale looks into memory for a stale value: one that is in its TTL, and whose validity Redis no longer confirms.
func (e *Engine) readStale(a *attempt) (Outcome, bool) {
	if a.Replace || a.Strong {
		return Outcome{}, false
	}
	entry := e.Near.Stale(a.Key)
	if a.tolerant {
		entry, _ = e.Near.Old(a.Key)
	}
	if entry == nil || !a.sameOwner(entry) || !a.hasAllFields(entry.Value) || a.latestPhase(entry, e.Clock.Now()) < freshness.OnError {
		return Outcome{}, false
	}
	value, ok := e.convert(entry.Value, a)
	if !ok {
		return Outcome{}, false
	}
	out := Outcome{
		Status: StatusStale, Tier: TierMemory, Reason: a.reason, ETag: entry.ETag(), LoadedAt: entry.LoadedAt, FreshUntil: entry.LoadedAt,
		LoadTime: entry.LoadTime, pastFresh: pastFresh{ttlUntil: entry.Times().FreshUntil, deadUntil: entry.Times().DeadUntil},
	}
	out.setCached(value)
	return out, true
}

// shareStale answers attempts with stale values where Redis could not be read, and returns the attempts that have to be loaded. Where Redis
// was read, and only a lease could not be had, a stale value is no better than what Redis holds.
func (e *Engine) shareStale(attempts []*attempt) (others []*attempt) {
	others = listOf(attempts)
	for _, a := range attempts {
		if a.status == StatusFallback && (a.unanswered || e.unavailable(a)) {
			if out, ok := e.readStale(a); ok {
				shareHit(a, out)
				continue
			}
		}
		others = append(others, a)
	}
	return others
}

// fits reports whether a value in memory is of type typ, or "not found".
func fits(value any, typ reflect.Type) bool {
	if IsAbsent(value) {
		return true
	}
	if e, ok := value.(*encoded); ok {
		return e.typ == typ
	}
	return reflect.TypeOf(value).Elem() == typ
}

// sameOwner reports whether an entry in memory belongs to r's policy.
func (r *Request) sameOwner(entry *near.Entry) bool { return entry.Scope.Owner == any(r.Policy.Holder) }
