package engine

import (
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/tags"
)

// guard keeps later callers from joining a's flight once something has changed since it began to read: its key, or one of
// its tags, here or elsewhere; or once something could have changed without a word to this process. Redis tells only of what was
// read. So a load that has come about without that is joined while Redis has been away ever since, and not for longer than an entry is
// served then; once Redis is back, other processes may have invalidated what it loads. Where a server does not tell of
// changes, or not of those of a key, a load is joined for a second.
func (a *attempt) setJoinable(e *Engine, m *tags.Snapshot) {
	if a.call == nil { // a Get, or a Set
		return
	}
	g := &joinable{cache: e, key: a.Key, fence: a.fence, notice: a.notice, read: a.read && e.Store != nil, until: a.untrackedUntil()}
	g.late, g.tagEvents = a.out.late, a.tagEvents.All
	names := a.Tags
	if a.out.late || a.read && !a.storable { // the load of a value that is not stored
		names = a.unstoredTags()
	}
	g.tags = g.few[:0]
	for _, tag := range names {
		k := m.State(tag)
		g.tags = append(g.tags, watched{tag, k.Fence, k.Generation, k.Notice})
	}
	if e.Store != nil && (g.notice.Untrackable || !e.Store.Tracks(g.key)) {
		g.until = a.began + int64(redisstore.UntrackedLife)
	}
	a.call.JoinWhile(g.joinable)
}

// A joinable is what a load rests on while others may join it. It does not change, since who would join the load looks at any time.
type joinable struct {
	cache     *Engine
	key       string
	fence     *near.Fence
	notice    tags.Notice
	read      bool   // Redis was read; before that, what is read is as new as who joins
	until     int64  // until when the load is joined where nobody tells of a change
	late      bool   // its loader names tags
	tagEvents uint64 // that were known of when the flight began
	tags      []watched
	few       [3]watched // room for tags
}

type watched struct {
	tag    string
	fence  *near.Fence
	gen    *near.Generation // by which Redis tells of a change; nil: by the fence
	notice tags.Notice
}

func (g *joinable) untracked(name string, n *tags.Notice) bool {
	if !g.cache.Clock.Before(g.until) {
		return true
	}
	return !n.Untrackable && g.cache.Store.Tracks(name) && !g.cache.tags.CutOff(name, n)
}

// joinable reports whether the load may be joined.
func (g *joinable) joinable() bool {
	own := &g.notice
	if g.fence.Broken() || own.Validity != nil && !own.Validity.Valid() || g.late && g.cache.tags.Events().All != g.tagEvents {
		return false
	}
	if g.read && own.Validity == nil && g.untracked(g.key, own) {
		return false
	}
	for i := range g.tags {
		t := &g.tags[i]
		switch {
		case t.fence.BrokenHere(), t.gen == nil && t.fence.Broken():
			return false
		case !g.read:
		case t.gen != nil: // also where the generation of another tag is not known, so that the load has captured nothing
			if !t.gen.Valid() {
				return false
			}
		case t.notice.Validity == nil:
			if g.untracked(t.tag, &t.notice) {
				return false
			}
		case !t.notice.Validity.Valid():
			return false
		}
	}
	return true
}

// tracked reports whether this process is told of changes of the key and of all tags of a; if not, whether Redis is away for all
// those that it is not told of.
func (e *Engine) tracked(m *tags.Snapshot, a *attempt) (all, away bool) {
	tracked := a.notice.Tracked()
	all, away = m.Tracked(a.unstoredTags())
	return all && tracked, away && (tracked || e.tags.CutOff(a.Key, &a.notice))
}

// restsOn are the tags that a value rests on which is not stored in Redis. A pattern changes only what Redis holds, and the sequence,
// so that is one of them.
func (a *attempt) unstoredTags() []string {
	return append(a.Tags[:len(a.Tags):len(a.Tags)], keyspace.Sequence)
}

// lateTagsUntracked reports whether a loader has named tags of whose changes nobody has told this process for too long to share its
// value with those who have come since.
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

// joinUntil is until when a load may be joined that nobody is told of any change of.
func (a *attempt) untrackedUntil() int64 {
	return a.began + int64(max(a.Policy.DegradedTTL, longestUntrackedJoin))
}

// awayFromLateTags reports whether Redis is away for the key and for all tags that its loader has named.
func (e *Engine) awayFromLateTags(m *tags.Snapshot, a *attempt) bool {
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

// longestUntrackedJoin is for how long a load is joined that nobody is told of any change of, where DegradedTTL is less: as long as it may take
// until this process finds out that Redis does not tell it of changes.
const longestUntrackedJoin = redisstore.Takeover
