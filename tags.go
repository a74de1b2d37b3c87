package aside

import (
	"context"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/wire"
)

// tagMargin is how much longer than what carries it the generation of a named tag lives at least. A lost one costs misses, never
// a hit on what is out of date.
const tagMargin = 10 * time.Second

// tagOf is a tag whose generation lives for so long at least from now on, if it does not live for ever.
func tagOf(name string, life time.Duration) redisstore.Tag {
	if keyspace.IsNamed(name) {
		return redisstore.Tag{Key: name, Life: life}
	}
	return redisstore.Tag{Key: name} // these are few
}

// bumped is a tag to be given its next generation.
func bumped(name string) redisstore.Tag { return tagOf(name, tagMargin) }

// tagLife is how long the generations of s's tags have to live from now on: as long as what is stored with them, and until the
// load is over.
func (s *slot) tagLife() time.Duration {
	longest := max(s.ttl, s.plan.negativeTTL, s.plan.loadTimeout)
	return min(longest, math.MaxInt64-tagMargin) + tagMargin
}

// tagNames makes tags of what users call them.
func tagNames(names []string) ([]string, error) {
	tags, err := keyspace.NamedTags(names)
	if err != nil {
		return nil, invalidArgument(err.Error())
	}
	return tags, nil
}

// A mark is what one flight, or one read, knows of a tag.
type mark struct {
	tag   string
	fence *near.Fence      // taken before anything was read
	known bool             // value is the tag's generation, read after the fence was taken
	value uint64           //
	gen   *near.Generation // the same with a voucher; nil where nobody vouches

	quarantined bool  // what Redis says of it is not trusted
	unanswered  error // why Redis did not say what it holds

	notice
}

// marks are those of a flight. All its keys share them.
type marks struct {
	cache *Cache
	list  []*mark
	byTag map[string]*mark // of all in the list; nil while they are few
	few   [3]mark          // the first ones
}

// manyMarks is from how many on they are looked up in a map.
const manyMarks = 8

func (c *Cache) newMarks() *marks { return &marks{cache: c} }

func (m *marks) end() {
	for _, k := range m.list {
		k.fence.End()
	}
}

// find returns the mark of a tag, nil if it has none.
func (m *marks) find(tag string) *mark {
	if m.byTag != nil {
		return m.byTag[tag]
	}
	for _, k := range m.list {
		if k.tag == tag {
			return k
		}
	}
	return nil
}

// of returns the mark of a tag, and takes its fence if it is new.
func (m *marks) of(tag string) *mark {
	k := m.find(tag)
	if k == nil {
		if n := len(m.list); n < len(m.few) {
			k = &m.few[n]
		} else {
			k = new(mark)
		}
		*k = mark{tag: tag, fence: m.cache.near.Fence(tag, nil), notice: m.cache.newNotice(tag)}
		k.quarantined = m.cache.journal.Contains(tag) // after the fence: what is entered later breaks it
		m.add(k)
	}
	return k
}

func (m *marks) add(k *mark) {
	m.list = append(m.list, k)
	switch {
	case m.byTag != nil:
		m.byTag[k.tag] = k
	case len(m.list) > manyMarks:
		m.byTag = make(map[string]*mark, 2*manyMarks)
		for _, k := range m.list {
			m.byTag[k.tag] = k
		}
	}
}

// renew looks up in memory what is known now of each tag. Without trust, nothing is taken from memory.
func (m *marks) renew(trust bool) {
	for _, k := range m.list {
		if k.fence.BrokenHere() {
			k.fence.End()
			k.fence = m.cache.near.Fence(k.tag, nil)
		}
		k.quarantined = m.cache.journal.Contains(k.tag)
		k.known, k.gen, k.unanswered, k.notice = false, nil, nil, m.cache.newNotice(k.tag)
		if trust {
			k.recall(m.cache)
		}
	}
}

// recall notes what memory knows of the tag. Of one in quarantine that may be no better than what Redis says: a journal that
// overflows, or doubts what was confirmed, retires nothing here.
func (k *mark) recall(c *Cache) {
	if k.quarantined {
		return
	}
	if g := c.near.Generation(k.tag); g != nil {
		k.known, k.value, k.gen = true, g.Value, g
	}
}

// unread are those of which memory does not know the generation. One in quarantine is read too, not for what Redis says, but so that
// Redis tells of its changes.
func (m *marks) unread() (list []*mark) {
	for _, k := range m.list {
		if !k.known {
			list = append(list, k)
		}
	}
	return list
}

// unknown are those that have to be asked for.
func (m *marks) unknown() (list []*mark) {
	for _, k := range m.list {
		if !k.known && !k.quarantined {
			list = append(list, k)
		}
	}
	return list
}

// toEnsure are the marks of the slots' own tags whose generations are to be asked for together with the leases: those that are
// unknown, those whose keys have to live as long as what is about to be stored, and those that were not used in Redis of late. Tags that only a stored entry has named are not
// among them: they may be read, but nothing is written for them.
func (m *marks) toEnsure(slots []*slot) (list []*mark, tags []redisstore.Tag) {
	lives := make(map[string]time.Duration)
	if m.find(keyspace.Sequence) != nil {
		lives[keyspace.Sequence] = 0
	}
	for _, s := range slots {
		for _, tag := range s.tags {
			lives[tag] = max(lives[tag], s.tagLife())
		}
	}
	for name, life := range lives {
		if k := m.of(name); m.asksFor(k) {
			list, tags = append(list, k), append(tags, tagOf(name, life))
		}
	}
	return list, tags
}

// asksFor reports whether a load asks for the generation of one of its own tags.
func (m *marks) asksFor(k *mark) bool {
	switch {
	case k.quarantined:
		return false
	case !k.known:
		return true
	case keyspace.IsNamed(k.tag):
		return true // its key may have to live longer
	}
	return m.cache.touches.due(k.tag, m.cache.clock.Now())
}

// ensured notes what has come of toEnsure. One whose key was changed, be it to live longer, is read again: nobody vouches any more
// for what was known before.
func (c *Cache) ensured(ctx context.Context, list []*mark, gens []redisstore.Generation) {
	var changed []*mark
	for i, k := range list {
		if gens[i].Err != nil || c.journal.Contains(k.tag) {
			continue
		}
		if k.known && k.value == gens[i].Value && k.gen != nil && k.gen.Valid() {
			continue
		}
		k.known, k.value, k.gen = true, gens[i].Value, nil
		changed = append(changed, k)
	}
	if len(changed) > 0 {
		c.track(ctx, changed)
	}
}

// learn notes what Redis says of a tag's generation. A tag that has none stays unknown, and so does one that was in quarantine when Redis
// was asked: the invalidation may have been confirmed between that and the reply.
func (c *Cache) learn(k *mark, r redisstore.Read) {
	k.unanswered, k.voucher, k.untracked = r.Err, r.Voucher, r.Err != nil && redisstore.IsForbidden(r.Err)
	value, err := redisstore.ParseGeneration(r.Value)
	if r.Err != nil || r.Value == nil || err != nil || k.quarantined || c.journal.Contains(k.tag) {
		return
	}
	k.known, k.value, k.gen = true, value, nil
	if r.Voucher != nil {
		k.gen = c.near.Learn(k.fence, value, r.Voucher)
	}
}

// track has Redis tell of changes of the tags that a script has read or made: it tells only of what a client has read itself.
// Without that, nobody here would hear that a load under such a tag was overtaken, and go on joining it.
func (c *Cache) track(ctx context.Context, made []*mark) {
	looks := make([]redisstore.Look, len(made))
	for i, k := range made {
		looks[i] = redisstore.Look{Key: k.tag, Fence: k.fence, Head: redisstore.GenerationLen}
	}
	for i, r := range c.store.Look(ctx, looks...) {
		now := mark{tag: made[i].tag, fence: made[i].fence}
		c.learn(&now, r)
		made[i].voucher = now.voucher
		if now.known && now.value == made[i].value {
			made[i].gen = now.gen
		}
	}
}

// localGenerations gives each tag a generation in memory mode, where it has none.
func (m *marks) localGenerations() {
	c := m.cache
	for _, k := range m.unknown() {
		k.gen = c.near.LearnFirst(k.fence, c.generations.Add(1))
		if k.known = k.gen != nil; k.known {
			k.value = k.gen.Value
		}
	}
}

// A stamp is one tag with the generation that an entry carries.
type stamp struct {
	tag   string
	value uint64
	gen   *near.Generation // nil where nobody vouches for it
}

// capture notes the generations of s's tags. It comes before the load: what is invalidated later makes the loaded value
// out of date, whether or not the load has seen the change.
func (m *marks) capture(s *slot) (complete bool) {
	s.stamps = s.stamps[:0]
	for _, tag := range s.tags {
		k := m.of(tag)
		if !k.known {
			return false
		}
		s.stamps = append(s.stamps, stamp{tag, k.value, k.gen})
	}
	if k := m.find(keyspace.Sequence); k != nil && k.known {
		s.sequence = k.value
	}
	return true
}

// vouchers are what an entry with these stamps rests on, beside own.
func vouchers(own *near.Voucher, stamps []stamp) (list []*near.Voucher, ok bool) {
	list = make([]*near.Voucher, 0, len(stamps)+1)
	if own != nil {
		list = append(list, own)
	}
	for _, st := range stamps {
		if st.gen == nil {
			return nil, false
		}
		list = st.gen.Vouchers(list)
	}
	return list, true
}

// stampLate adds the tags that the loader of s has named, with their generations. Those are read after the load, so they
// would hide an invalidation that came during it. Whoever invalidates a tag changes the sequence first: if that has not
// moved since before the load, no such invalidation has begun. It reports false if one may have.
func (c *Cache) stampLate(ctx context.Context, m *marks, s *slot, names []string) (bool, error) {
	tags, err := tagNames(names)
	if err != nil {
		return false, err
	}
	all := s.tags[:len(s.tags):len(s.tags)]
	for _, tag := range tags {
		if !slices.Contains(all, tag) {
			all = append(all, tag)
		}
	}
	if len(all) > wire.MaxTags { // before anything is written for one of them
		return false, invalidArgument(strconv.Itoa(len(all)-2) + " tags, at most " + strconv.Itoa(keyspace.MaxTags) + " allowed")
	}
	var late []*mark
	for _, tag := range all[len(s.tags):] {
		late = append(late, m.of(tag))
	}
	s.tags = all
	if c.store == nil {
		m.localGenerations()
		m.capture(s)
		return c.ownTags.Load() == s.ownTags, nil // the fences above were taken before this look
	}
	asked := make([]redisstore.Tag, 0, len(late)+1)
	for _, k := range late {
		asked = append(asked, tagOf(k.tag, max(s.tagLife(), time.Duration(s.out.freshUntil-s.out.loadedAt)+tagMargin)))
	}
	sequence := tagOf(keyspace.Sequence, 0)
	gens := c.store.Ensure(ctx, append(asked, sequence)...)
	for i, k := range late {
		if err := gens[i].Err; err != nil {
			return false, err
		}
		if c.journal.Contains(k.tag) {
			return false, nil
		}
		k.known, k.value, k.gen = true, gens[i].Value, nil
	}
	c.track(ctx, late)
	for _, k := range late {
		s.stamps = append(s.stamps, stamp{k.tag, k.value, k.gen})
	}
	last := gens[len(late)]
	// Redis may not have been told of one that was made here.
	return last.Value == s.sequence && c.ownTags.Load() == s.ownTags, last.Err
}

// outlive has the tags of s live as long as its value, where the loader has given that a longer TTL than it was asked for with. It
// reports false if one of them has another generation by now.
func (c *Cache) outlive(s *slot) (unmoved bool, err error) {
	life := time.Duration(s.out.freshUntil-s.out.loadedAt) + tagMargin
	if life <= s.tagLife() {
		return true, nil
	}
	var asked []redisstore.Tag
	var carried []uint64
	for _, st := range s.stamps {
		if keyspace.IsNamed(st.tag) {
			asked, carried = append(asked, tagOf(st.tag, life)), append(carried, st.value)
		}
	}
	if len(asked) == 0 {
		return true, nil
	}
	ctx, cancel := c.store.Budget(context.Background(), 0, len(asked))
	defer cancel()
	for i, g := range c.store.Ensure(ctx, asked...) {
		if g.Err != nil || g.Value != carried[i] {
			return false, g.Err
		}
	}
	return true, nil
}

func (s *slot) has(tag string) bool {
	for _, own := range s.tags {
		if own == tag {
			return true
		}
	}
	return false
}
