package engine

import (
	"context"
	"reflect"
	"slices"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/tags"
)

// fence takes the fences of an attempt, before anything is read that a change could overtake, and keeps those who come after a
// change from joining its flight. What is in quarantine is looked up last:
//
//  1. The flight is there, and has no guard yet: whoever comes may join it, since what it reads is as new as he is.
//  2. An invalidation that Redis has not confirmed is entered. It breaks the fences that are taken already.
//  3. A caller comes, and joins.
//  4. The guard is up. It keeps out those who come from now on, but not him: the flight must not read what Redis still holds.
func (e *Engine) fence(a *attempt, m *tags.Snapshot, wake chan<- struct{}) {
	a.fence.End()
	a.began, a.read, a.unanswered = e.Clock.Now(), false, false
	a.fence, a.notice, a.captured.Tags = e.Near.Fence(a.Key, wake), e.tags.Notice(a.Key), nil
	m.Add(a.Tags...)
	m.Add(keyspace.Sequence)
	a.setJoinable(e, m)
	e.seeQuarantine(a, m)
}

// seeQuarantine looks up which of a's names Redis must not be asked for.
func (e *Engine) seeQuarantine(a *attempt, m *tags.Snapshot) {
	a.quarantined = e.journal.Contains(a.Key)
	m.Recheck(a.Tags)
}

// recheckNear takes the fences, and looks into memory again now that the flight is led: a load that ended between the first
// look and then would be repeated.
func (e *Engine) recheckNear(ctx context.Context, attempts []*attempt, m *tags.Snapshot, wake chan<- struct{}) (pending []*attempt) {
	for _, a := range attempts {
		a.tagEvents = e.tags.Events()
		if a.Replace {
			e.Near.Break(a.Key) // of the loads under way, none is stored any more
		}
		e.fence(a, m, wake)
		if f, ok := e.storing.Load(a.Key); ok && !a.Replace && !a.Strong {
			// Redis tells of this process's own change like of any other, so nobody joins the flight that stores the value
			// any more. But it is about to be here: reading and decoding it once more would take longer. Where Redis did not
			// answer, this has been the wait for Redis that a call may have: there is not to be a second one.
			select {
			case <-f.(*storing).over:
				a.skip = f.(*storing).err
			case <-ctx.Done():
			}
		}
		if out, ok := e.readNear(a); ok {
			shareHit(a, out)
			continue
		}
		if entry := e.Near.Get(a.Key); entry != nil && !a.ours(entry) && !a.Replace {
			e.otherPolicy(a, entry.Scope.Owner.(Holder).Resolved().Owner)
		}
		pending = append(pending, a)
	}
	return pending
}

// readNear looks into memory.
func (e *Engine) readNear(a *attempt) (Outcome, bool) {
	if a.Replace || a.Strong && e.Store != nil {
		return Outcome{}, false
	}
	entry := e.Near.Get(a.Key)
	if entry == nil || !a.ours(entry) {
		return Outcome{}, false
	}
	value, ok := entry.Value, fits(entry.Value, a.Type)
	if !ok && e.Store == nil { // else Redis is asked, and what it has is kept as this type
		if !a.hasAllFields(entry.Value) {
			a.reason = reasonNarrower
		} else if value, ok = e.as(entry.Value, a); !ok {
			a.reason = "the stored value cannot be used"
		}
	}
	if !ok {
		return Outcome{}, false
	}
	out := Outcome{Status: StatusHit, Tier: TierMemory, Reason: "fresh", LoadedAt: entry.LoadedAt, FreshUntil: entry.FreshUntil}
	out.found(value)
	return out, true
}

// readDegraded looks into memory for a value that nobody vouches for, while Redis is away. A Strong call is not answered with
// one: it asks for what Redis holds, or what the loader finds.
func (e *Engine) readDegraded(a *attempt) (Outcome, bool) {
	if e.Store == nil || !e.away(a) {
		return Outcome{}, false
	}
	before := a.reason
	a.reason = redisstore.ErrUnavailable.Error()
	out, ok := e.readStale(a)
	a.reason = before // it may be there by the time that a load begins
	return out, ok
}

// away reports whether a server is away that a cannot do without: that of its key, or of a tag.
func (e *Engine) away(a *attempt) bool {
	if e.Store.AllUp() {
		return false
	}
	return !e.Store.UpFor(a.Key) || slices.ContainsFunc(a.Tags, func(tag string) bool { return !e.Store.UpFor(tag) })
}

// readStale looks into memory for a value that nobody vouches for, where Redis could not be asked for a better one.
func (e *Engine) readStale(a *attempt) (Outcome, bool) {
	if a.Replace || a.Strong {
		return Outcome{}, false
	}
	entry := e.Near.Stale(a.Key)
	if entry == nil || !a.ours(entry) || !a.hasAllFields(entry.Value) {
		return Outcome{}, false
	}
	value, ok := e.as(entry.Value, a)
	if !ok {
		return Outcome{}, false
	}
	out := Outcome{Status: StatusStale, Tier: TierMemory, Reason: a.reason, LoadedAt: entry.LoadedAt, FreshUntil: entry.LoadedAt}
	out.found(value)
	return out, true
}

// shareStale gives those who wait what memory has, where Redis could not be asked for a better value, and passes the attempts
// that have to be loaded. Where Redis has said what it holds, and would only not take a new value, what memory has without a word
// from Redis is no better than that.
func (e *Engine) shareStale(attempts []*attempt) (others []*attempt) {
	for _, a := range attempts {
		if a.status == StatusFallback && (a.unanswered || e.away(a)) {
			if out, ok := e.readStale(a); ok {
				shareHit(a, out)
				continue
			}
		}
		others = append(others, a)
	}
	return others
}

// fits reports whether a value in memory is one of typ.
func fits(value any, typ reflect.Type) bool {
	if IsAbsent(value) {
		return true
	}
	if e, ok := value.(*encoded); ok {
		return e.typ == typ
	}
	return reflect.TypeOf(value).Elem() == typ
}

// ours reports whether an entry in memory is for a's policy.
func (a *attempt) ours(entry *near.Entry) bool { return entry.Scope.Owner == any(a.Policy.Holder) }
