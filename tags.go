package aside

import (
	"context"
	"strings"
	"time"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/wire"
)

// Everything that can be invalidated as a whole has a tag, and every tag has a generation in Redis, a number that never
// repeats. An entry carries the generations that its tags had before it was loaded; with any other one it is out of date.
// Tags are named by the keys of their generations. Those begin with a percent sign that is no escape, so no key of a
// policy is ever one of them.
const (
	tagAll      = "%all"  // of every entry
	tagCategory = "%c:"   // and a category: of each of its entries
	tagNamed    = "%t:"   // and a name given by WithTags or Load.Tag
	tagSequence = "%tags" // is on no entry: it changes before any tag of the third kind does
)

// tagLife is how long the generation of a tag lives that nobody changes: longer than what carries it, as a rule. A lost
// one costs misses, never a hit on what is out of date.
const tagLife = 30 * 24 * time.Hour

func tagOf(name string) redisstore.Tag {
	if strings.HasPrefix(name, tagNamed) {
		return redisstore.Tag{Key: name, Life: tagLife}
	}
	return redisstore.Tag{Key: name} // these are few
}

// tagNames makes tags of what users call them.
func tagNames(names []string) ([]string, error) {
	tags := make([]string, 0, len(names))
	for _, name := range names {
		if name == "" {
			return nil, invalidArgument("a tag is empty: give each a name")
		}
		tag := string(appendEscaped([]byte(tagNamed), name))
		if len(tag) > wire.MaxTagName {
			return nil, invalidArgument("the tag " + name[:20] + "… is too long: with its special characters escaped, a tag has at most 509 bytes")
		}
		tags = append(tags, tag)
	}
	return tags, nil
}

// maxTags is how many tags an entry can have beside those that all have.
const maxTags = wire.MaxTags - 2

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
	byTag map[string]*mark
}

func (c *Cache) newMarks() *marks { return &marks{cache: c, byTag: make(map[string]*mark, 4)} }

func (m *marks) end() {
	for _, k := range m.byTag {
		k.fence.End()
	}
}

// of returns the mark of a tag, and takes its fence if it is new.
func (m *marks) of(tag string) *mark {
	k := m.byTag[tag]
	if k == nil {
		k = &mark{tag: tag, fence: m.cache.near.Fence(tag, nil), notice: m.cache.newNotice(tag)}
		k.quarantined = m.cache.journal.holds(tag) // after the fence: what is entered later breaks it
		m.byTag[tag] = k
	}
	return k
}

// renew looks up in memory what is known now of each tag. Without trust, nothing is taken from memory.
func (m *marks) renew(trust bool) {
	for _, k := range m.byTag {
		if k.fence.BrokenHere() {
			k.fence.End()
			k.fence = m.cache.near.Fence(k.tag, nil)
		}
		k.quarantined = m.cache.journal.holds(k.tag)
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
	for _, k := range m.byTag {
		if !k.known {
			list = append(list, k)
		}
	}
	return list
}

// unknown are those that have to be asked for.
func (m *marks) unknown() (list []*mark) {
	for _, k := range m.byTag {
		if !k.known && !k.quarantined {
			list = append(list, k)
		}
	}
	return list
}

// learn notes what Redis says of a tag's generation. A tag that has none stays unknown.
func (c *Cache) learn(k *mark, r redisstore.Read) {
	k.unanswered, k.voucher = r.Err, r.Voucher
	value, err := redisstore.ParseGeneration(r.Value)
	if r.Err != nil || r.Value == nil || err != nil || c.journal.holds(k.tag) {
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
		looks[i] = redisstore.Look{Key: k.tag, Fence: k.fence}
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
	if k := m.byTag[tagSequence]; k != nil && k.known {
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
	var late []*mark
	for _, tag := range tags {
		if !s.has(tag) {
			late = append(late, m.of(tag))
			s.tags = append(s.tags[:len(s.tags):len(s.tags)], tag)
		}
	}
	if c.store == nil {
		m.localGenerations()
		m.capture(s)
		return c.ownTags.Load() == s.ownTags, nil // the fences above were taken before this look
	}
	asked := make([]redisstore.Tag, 0, len(late)+1)
	for _, k := range late {
		asked = append(asked, tagOf(k.tag))
	}
	sequence := tagOf(tagSequence)
	gens := c.store.Ensure(ctx, append(asked, sequence)...)
	for i, k := range late {
		if err := gens[i].Err; err != nil {
			return false, err
		}
		if c.journal.holds(k.tag) {
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

func (s *slot) has(tag string) bool {
	for _, own := range s.tags {
		if own == tag {
			return true
		}
	}
	return false
}
