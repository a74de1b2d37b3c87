package aside

import (
	"time"

	"github.com/gatewayz/aside/internal/keyspace"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
)

// A notice is how this process hears of a change of one name, the key or a tag of a load: Redis tells of it by the connection that
// the name was read by, or, while Redis is away, nobody does. Where neither is so, Redis can confirm to another process an
// invalidation that nobody here is told of, so nothing may be kept or shared that rests on the name.
type notice struct {
	voucher   *near.Voucher // of that connection, also where the name was missing; nil where nobody tells
	ups       uint64        // how often the connection to the name's server had come up before it was asked
	untracked bool          // its server does not tell of it: its slot of a cluster changes hands, or the user may not read it
}

func (c *Cache) newNotice(name string) notice {
	if c.store == nil {
		return notice{}
	}
	ups, _ := c.store.Contact(name)
	return notice{ups: ups}
}

// told reports whether Redis tells of a change.
func (n *notice) told() bool { return n.voucher != nil && n.voucher.Valid() }

// cutOff reports whether the server of the name is away, and has been since it was asked: then it has answered nobody here.
func (c *Cache) cutOff(name string, n *notice) bool {
	ups, up := c.store.Contact(name)
	return !up && ups == n.ups
}

// tellsOf reports whether this process is told of changes of the tag: by its generation, or because it was read.
func (k *mark) tellsOf() bool { return k.gen != nil && k.gen.Valid() || k.told() }

// hears reports whether this process is told of changes of the key and of all tags of s; if not, whether Redis is away for all
// those that it is not told of.
func (c *Cache) hears(m *marks, s *slot) (all, away bool) {
	all, away = s.told(), s.told() || c.cutOff(s.key, &s.notice)
	for _, tag := range s.restsOn() {
		k := m.of(tag)
		told := k.tellsOf()
		all, away = all && told, away && (told || c.cutOff(tag, &k.notice))
	}
	return all, away
}

// restsOn are the tags that a value rests on which is not stored in Redis. A pattern changes only what Redis holds, and the sequence,
// so that is one of them.
func (s *slot) restsOn() []string { return append(s.tags[:len(s.tags):len(s.tags)], keyspace.Sequence) }

// untoldOfLateTags reports whether a loader has named tags of whose changes nobody has told this process for too long to share its
// value with those who have come since.
func (c *Cache) untoldOfLateTags(m *marks, s *slot) bool {
	if c.store == nil {
		return false
	}
	k := m.of(keyspace.Sequence)
	if k.tellsOf() {
		return false
	}
	return !c.clock.Before(s.untoldUntil()) || c.store.Tracks(keyspace.Sequence) && !c.cutOff(keyspace.Sequence, &k.notice)
}

// untoldUntil is until when a load may be joined that nobody is told of any change of.
func (s *slot) untoldUntil() int64 { return s.began + int64(max(s.plan.degradedTTL, untoldJoin)) }

// awayFromLateTags reports whether Redis is away for the key and for all tags that its loader has named.
func (c *Cache) awayFromLateTags(m *marks, s *slot) bool {
	if !c.cutOff(s.key, &s.notice) || !c.cutOff(keyspace.Sequence, &m.of(keyspace.Sequence).notice) {
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
func (s *slot) guard(c *Cache, m *marks) {
	if s.call == nil { // a Get, or a Set
		return
	}
	g := &guard{cache: c, key: s.key, fence: s.fence, notice: s.notice, read: s.read && c.store != nil, until: s.untoldUntil()}
	g.late, g.lateTags = s.out.late, s.lateTags
	names := s.tags
	if s.out.late || s.read && !s.keep { // the load of a value that is not stored
		names = s.restsOn()
	}
	g.tags = g.few[:0]
	for _, tag := range names {
		k := m.of(tag)
		g.tags = append(g.tags, watched{tag, k.fence, k.gen, k.notice})
	}
	if c.store != nil && (g.notice.untracked || !c.store.Tracks(g.key)) {
		g.until = s.began + int64(redisstore.UntrackedLife)
	}
	s.call.Guard(g.holds)
}

// A guard is what a load rests on. It does not change, since who would join the load looks at any time.
type guard struct {
	cache    *Cache
	key      string
	fence    *near.Fence
	notice   notice
	read     bool  // Redis was read; before that, what is read is as new as who joins
	until    int64 // until when the load is joined where nobody tells of a change
	late     bool  // its loader names tags
	lateTags uint64
	tags     []watched
	few      [3]watched // room for tags
}

type watched struct {
	tag    string
	fence  *near.Fence
	gen    *near.Generation // by which Redis tells of a change; nil: by the fence
	notice notice
}

func (g *guard) untold(name string, n *notice) bool {
	if !g.cache.clock.Before(g.until) {
		return true
	}
	return !n.untracked && g.cache.store.Tracks(name) && !g.cache.cutOff(name, n)
}

// holds reports whether the load may be joined.
func (g *guard) holds() bool {
	own := &g.notice
	if g.fence.Broken() || own.voucher != nil && !own.voucher.Valid() || g.late && g.cache.lateTags.Load() != g.lateTags {
		return false
	}
	if g.read && own.voucher == nil && g.untold(g.key, own) {
		return false
	}
	for i := range g.tags {
		t := &g.tags[i]
		switch {
		case t.fence.BrokenHere(), t.gen == nil && t.fence.Broken():
			return false
		case !g.read:
		case t.gen != nil: // also where the generation of another tag is not known, so that the load has no stamps
			if !t.gen.Valid() {
				return false
			}
		case t.notice.voucher == nil:
			if g.untold(t.tag, &t.notice) {
				return false
			}
		case !t.notice.voucher.Valid():
			return false
		}
	}
	return true
}

// keepWithoutLease keeps in memory what was loaded without a lease, or could not be stored under it. Where Redis tells of every change
// that the value could be out of date for, it is as good as one that is in Redis. Where Redis is away, it is kept as what
// nobody tells of: for DegradedTTL. Otherwise Redis was there and it is not known what it would tell, so it is not kept.
func (c *Cache) keepWithoutLease(m *marks, s *slot, start int64, ttl time.Duration) {
	switch all, away := c.hears(m, s); {
	case all && len(s.lateNames) == 0:
		c.keepHeard(m, s, start, ttl)
	case away && (len(s.lateNames) == 0 || c.awayFromLateTags(m, s)):
		c.keepUnvouched(m, s, start, ttl)
	}
}

func (c *Cache) keepHeard(m *marks, s *slot, start int64, ttl time.Duration) {
	list := []*near.Voucher{s.voucher}
	for _, tag := range s.restsOn() {
		k := m.of(tag)
		if k.gen != nil {
			list = k.gen.Vouchers(list)
			continue
		}
		v := c.near.Hold(k.fence)
		if v == nil {
			s.plan.counts.RefusedFills.Add(1)
			return
		}
		list = append(list, v, k.voucher)
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
