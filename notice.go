package aside

import (
	"time"

	"github.com/gatewayz/aside/internal/keyspace"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/tags"
)

// hears reports whether this process is told of changes of the key and of all tags of s; if not, whether Redis is away for all
// those that it is not told of.
func (c *Cache) hears(m *tags.Snapshot, s *slot) (all, away bool) {
	tracked := s.notice.Tracked()
	all, away = m.Tracked(s.restsOn())
	return all && tracked, away && (tracked || c.tags.CutOff(s.key, &s.notice))
}

// restsOn are the tags that a value rests on which is not stored in Redis. A pattern changes only what Redis holds, and the sequence,
// so that is one of them.
func (s *slot) restsOn() []string { return append(s.tags[:len(s.tags):len(s.tags)], keyspace.Sequence) }

// untoldOfLateTags reports whether a loader has named tags of whose changes nobody has told this process for too long to share its
// value with those who have come since.
func (c *Cache) untoldOfLateTags(m *tags.Snapshot, s *slot) bool {
	if c.store == nil {
		return false
	}
	k := m.State(keyspace.Sequence)
	if k.Tracked() {
		return false
	}
	return !c.clock.Before(s.untoldUntil()) || c.store.Tracks(keyspace.Sequence) && !c.tags.CutOff(keyspace.Sequence, &k.Notice)
}

// untoldUntil is until when a load may be joined that nobody is told of any change of.
func (s *slot) untoldUntil() int64 { return s.began + int64(max(s.plan.degradedTTL, untoldJoin)) }

// awayFromLateTags reports whether Redis is away for the key and for all tags that its loader has named.
func (c *Cache) awayFromLateTags(m *tags.Snapshot, s *slot) bool {
	if !c.tags.CutOff(s.key, &s.notice) || !c.tags.CutOff(keyspace.Sequence, &m.State(keyspace.Sequence).Notice) {
		return false
	}
	names, err := tagNames(s.lateNames)
	for _, tag := range names {
		if _, up := c.store.Contact(tag); up {
			return false
		}
	}
	return err == nil
}

// untoldJoin is for how long a load is joined that nobody is told of any change of, where DegradedTTL is less: as long as it may take
// until this process finds out that Redis does not tell it of changes.
const untoldJoin = redisstore.Takeover

// guard keeps later callers from joining s's flight once something has changed since it began to read: its key, or one of
// its tags, here or elsewhere; or once something could have changed without a word to this process. Redis tells only of what was
// read. So a load that has come about without that is joined while Redis has been away ever since, and not for longer than an entry is
// served then; once Redis is back, other processes may have invalidated what it loads. Where a server does not tell of
// changes, or not of those of a key, a load is joined for a second.
func (s *slot) guard(c *Cache, m *tags.Snapshot) {
	if s.call == nil { // a Get, or a Set
		return
	}
	g := &joinable{cache: c, key: s.key, fence: s.fence, notice: s.notice, read: s.read && c.store != nil, until: s.untoldUntil()}
	g.late, g.tagEvents = s.out.late, s.tagEvents.All
	names := s.tags
	if s.out.late || s.read && !s.keep { // the load of a value that is not stored
		names = s.restsOn()
	}
	g.tags = g.few[:0]
	for _, tag := range names {
		k := m.State(tag)
		g.tags = append(g.tags, watched{tag, k.Fence, k.Generation, k.Notice})
	}
	if c.store != nil && (g.notice.Untrackable || !c.store.Tracks(g.key)) {
		g.until = s.began + int64(redisstore.UntrackedLife)
	}
	s.call.Guard(g.holds)
}

// A joinable is what a load rests on while others may join it. It does not change, since who would join the load looks at any time.
type joinable struct {
	cache     *Cache
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

func (g *joinable) untold(name string, n *tags.Notice) bool {
	if !g.cache.clock.Before(g.until) {
		return true
	}
	return !n.Untrackable && g.cache.store.Tracks(name) && !g.cache.tags.CutOff(name, n)
}

// holds reports whether the load may be joined.
func (g *joinable) holds() bool {
	own := &g.notice
	if g.fence.Broken() || own.Voucher != nil && !own.Voucher.Valid() || g.late && g.cache.tags.Events().All != g.tagEvents {
		return false
	}
	if g.read && own.Voucher == nil && g.untold(g.key, own) {
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
		case t.notice.Voucher == nil:
			if g.untold(t.tag, &t.notice) {
				return false
			}
		case !t.notice.Voucher.Valid():
			return false
		}
	}
	return true
}

// keepWithoutLease keeps in memory what was loaded without a lease, or could not be stored under it. Where Redis tells of every change
// that the value could be out of date for, it is as good as one that is in Redis. Where Redis is away, it is kept as what
// nobody tells of: for DegradedTTL. Otherwise Redis was there and it is not known what it would tell, so it is not kept.
func (c *Cache) keepWithoutLease(m *tags.Snapshot, s *slot, start int64, ttl time.Duration) {
	switch all, away := c.hears(m, s); {
	case all && len(s.lateNames) == 0:
		c.keepHeard(m, s, start, ttl)
	case away && (len(s.lateNames) == 0 || c.awayFromLateTags(m, s)):
		c.keepUnvouched(m, s, start, ttl)
	}
}

func (c *Cache) keepHeard(m *tags.Snapshot, s *slot, start int64, ttl time.Duration) {
	list, ok := m.Vouchers([]*near.Voucher{s.notice.Voucher}, s.restsOn())
	if !ok {
		s.plan.counts.RefusedFills.Add(1)
		return
	}
	fresh := s.out.freshUntil
	s.out.freshUntil = start + int64(ttl)
	e := s.asEntry(list)
	s.out.freshUntil = fresh
	if c.fits(s, e) && !c.near.Insert(s.key, e, s.fence) {
		s.plan.counts.RefusedFills.Add(1)
	}
	c.closedMeanwhile(s)
}
