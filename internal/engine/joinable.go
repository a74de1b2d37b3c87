package engine

import (
	"sync/atomic"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/tags"
)

// setJoinable says until when later callers may join a's flight: until a change of its key or of one of its tags since the flight began to
// read, by this process or by another one. Redis notifies this process only of changes of what it has read. So there are two further limits:
//
//   - A load that began without reading Redis is joinable while Redis has been unavailable all the time, and for no longer than a stale entry
//     is served. Once Redis is back, other processes may have invalidated what it loads.
//   - Where a server does not notify of changes at all, or not of changes of a key or a tag, a load is joinable for redisstore.UntrackedLife. The
//     load of a value for memory alone has no lease. If nobody joined it, all callers would load while a slot of a cluster changes hands.
//
// A load whose value is being stored is joinable while that value is fresh.
func (a *attempt) setJoinable(e *Engine, m *tags.Snapshot) {
	if a.call == nil { // a Peek or a Set: there is no flight
		return
	}
	if a.joinables == nil { // the read of an older value, which callers join like a load
		a.joinables = new(joinables)
	}
	g := &a.joinables.turns[a.joinables.made%2] // no caller looks at that any more: it looks at the other one
	a.joinables.made++
	*g = joinable{cache: e, key: a.Key, fence: a.fence, notice: a.notice, bypass: a.Bypass, read: a.read && e.Store != nil, until: a.untrackedUntil()}
	g.freshUntil = &a.joinables.freshUntil
	g.late, g.tagEvents = a.out.late, a.tagEvents.All
	g.tags = g.few[:0]
	for _, tag := range a.Tags {
		g.tags = append(g.tags, *m.State(tag))
	}
	unstored, elsewhere := a.read && !a.storable, e.elsewhere(a)
	if a.out.late || unstored && !elsewhere {
		g.tags = append(g.tags, *m.State(keyspace.Sequence))
	}
	if unstored && elsewhere {
		g.tags = append(g.tags, *m.State(a.erasure()))
	}
	untrackable := g.notice.Untrackable
	for i := range g.tags {
		n := &g.tags[i].Notice
		n.Untrackable = n.Untrackable || a.read && elsewhere && n.Unnotified()
		untrackable = untrackable || n.Untrackable
	}
	if e.Store != nil && (a.Bypass || untrackable || !e.Store.Tracks(g.key)) {
		g.until = a.began + int64(redisstore.UntrackedLife)
	}
	a.call.JoinWhile(g)
}

// joinables are those of one attempt.
type joinables struct {
	turns      [2]joinable
	made       int          // how often one was made
	freshUntil atomic.Int64 // of the value that was loaded, on the cache's clock; 0 while there is none
}

// loadedUntil stops callers from joining a's load once its value is not fresh any more:
//
//  1. A load ends. Its callers get its value, and Redis is slow to store it.
//  2. The TTL of the value ends.
//  3. A caller comes. It must not get that value from the flight.
func (a *attempt) loadedUntil(freshUntil int64) {
	if a.joinables != nil {
		a.joinables.freshUntil.Store(freshUntil)
	}
}

// A joinable holds what must stay unchanged for callers to join a load. It does not change from JoinWhile until the next JoinWhile has returned:
// callers look at it in between, at any time.
type joinable struct {
	cache     *Engine
	key       string
	fence     *near.Fence
	notice    tags.Notice
	bypass    bool   // Redis is not read, and does not notify of changes
	read      bool   // Redis was read; before that, what the flight is going to read is new enough for any caller
	until     int64  // until when the load is joinable if Redis does not notify of a change
	late      bool   // its loader names tags
	tagEvents uint64 // when the flight began
	tags      []tags.State
	few       [3]tags.State // room for tags

	freshUntil *atomic.Int64 // see loadedUntil
}

// untracked reports whether a load must not be joined any more because a change of name could go unnoticed.
func (g *joinable) untracked(name string, n *tags.Notice) bool {
	if !g.cache.Clock.Before(g.until) {
		return true
	}
	return !g.bypass && !n.Untrackable && g.cache.Store.Tracks(name) && !g.cache.tags.CutOff(name, n)
}

// Joinable reports whether the load may be joined.
func (g *joinable) Joinable() bool {
	own := &g.notice
	if until := g.freshUntil.Load(); until != 0 && !g.cache.Clock.Before(until) {
		return false
	}
	if g.fence.Broken() || own.Validity != nil && !own.Validity.Valid() || g.late && g.cache.tags.Events().All != g.tagEvents {
		return false
	}
	if g.read && own.Validity == nil && g.untracked(g.key, own) {
		return false
	}
	for i := range g.tags {
		t := &g.tags[i]
		switch {
		case t.InvalidatedHere(), t.Generation == nil && t.Changed():
			return false
		case t.Generation != nil: // checked even if another tag's generation is unknown, and the load has captured none
			// Also before the reply is processed. A known generation is not read, so no reply arms its fence:
			//
			//  1. The reply with the value arrives. The flight's goroutine does not run yet.
			//  2. The push arrives that the tag was invalidated. It breaks no fence, and revokes the generation.
			//  3. A caller comes. It must not join.
			if !t.Generation.Valid() {
				return false
			}
		case !g.read:
		case t.Notice.Validity == nil:
			if g.untracked(t.Tag, &t.Notice) {
				return false
			}
		case !t.Notice.Validity.Valid():
			return false
		}
	}
	return true
}

// tracked reports whether Redis notifies this process of changes of a's key and of all its tags; if not, whether Redis is unavailable for
// each name that it does not notify of.
func (e *Engine) tracked(m *tags.Snapshot, a *attempt) (all, unavailable bool) {
	tracked := a.notice.Tracked()
	all, unavailable = m.Tracked(a.unstoredTags())
	return all && tracked, unavailable && (tracked || e.tags.CutOff(a.Key, &a.notice))
}

// unstoredTags are the tags of a value that is not stored in Redis, and a name that an invalidation by pattern changes. Beside that name, such an
// invalidation changes only values that Redis holds. It is the sequence, which the flight needs anyway. Each invalidation of any tag changes that too,
// so a value that is always for memory alone has the erasure tag of its category.
func (a *attempt) unstoredTags() []string {
	by := keyspace.Sequence
	if a.Place == PlaceMemory {
		by = a.erasure()
	}
	return append(a.Tags[:len(a.Tags):len(a.Tags)], by)
}

func (a *attempt) erasure() string { return keyspace.ErasureTag(keyspace.CategoryOf(a.Key)) }

// lateTagsUntracked reports whether Redis has not notified this process of changes of tags that a loader has named, for too long to share
// the value with callers that came in the meantime.
func (e *Engine) lateTagsUntracked(m *tags.Snapshot, a *attempt) bool {
	if e.Store == nil {
		return false
	}
	k := m.State(keyspace.Sequence)
	if k.Tracked() {
		return false
	}
	return !e.Clock.Before(a.untrackedUntil()) || e.Store.Tracks(keyspace.Sequence) && !e.tags.CutOff(keyspace.Sequence, &k.Notice)
}

// untrackedUntil is until when a load is joinable that Redis notifies nobody of changes of.
func (a *attempt) untrackedUntil() int64 {
	return a.began + int64(max(a.Policy.DegradedTTL, longestUntrackedJoin))
}

// lateTagsCutOff reports whether Redis is unavailable for a's key and for all tags that its loader has named.
func (e *Engine) lateTagsCutOff(m *tags.Snapshot, a *attempt) bool {
	if !e.tags.CutOff(a.Key, &a.notice) || !e.tags.CutOff(keyspace.Sequence, &m.State(keyspace.Sequence).Notice) {
		return false
	}
	names, err := tagNames(a.lateNames)
	for _, tag := range names {
		if _, up := e.Store.Contact(tag); up {
			return false
		}
	}
	return err == nil
}

// longestUntrackedJoin is for how long a load is joinable without notifications where DegradedTTL is less. It is how long it may take this
// process to find out that Redis does not notify it.
const longestUntrackedJoin = redisstore.Takeover
