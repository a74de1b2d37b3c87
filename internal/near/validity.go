package near

import "sync/atomic"

// A Validity states that this process will be notified of changes of the data behind it. The validity of a connection covers everything
// that was read on that connection. The validity of a generation covers everything that carries its tag. A validity is valid until it ends,
// and never again after that. It ends in one of two ways: see Revoke and Lapse. The zero Validity is valid.
type Validity struct {
	ended atomic.Int64 // 0: valid; revoked; untracked; otherwise the time at which it lapsed, on the caller's clock
	of    *Generation  // keeps the generation of a tag alive while its validity is referenced; nothing reads it
}

const (
	revoked   = -1
	untracked = -2
)

// Untracked is the validity of values that were loaded while Redis could not notify this process. It is never valid.
var Untracked = newUntracked()

func newUntracked() *Validity {
	v := new(Validity)
	v.ended.Store(untracked)
	return v
}

// Valid reports whether the validity has not ended.
func (v *Validity) Valid() bool { return v.ended.Load() == 0 }

// Revoke ends the validity because the data changed. Everything that rests on it is out of date, and is never served any more.
func (v *Validity) Revoke() { v.ended.Store(revoked) }

// Lapse ends a valid validity at a time on the cache's Clock, because this process would not be notified of changes any more. What rests on
// it may still be up to date.
func (v *Validity) Lapse(now int64) { v.ended.CompareAndSwap(0, max(now, 1)) }

// A Generation is the value of a tag's generation as this process knows it, while its validity is valid. It is revoked when the tag is
// invalidated. Generations of equal value that were read on different connections share a validity: revoking it ends everything that
// carries that value of the tag.
type Generation struct {
	*Validity
	Value uint64

	by *Validity // of the connection on which the value was read; nil if there is none
}

// Valid reports whether the tag still has this generation, as far as this process was notified.
func (g *Generation) Valid() bool { return g.Validity.Valid() && (g.by == nil || g.by.Valid()) }

// Validities appends to list, without repetition, the validities on which an entry rests that carries the generation's tag.
func (g *Generation) Validities(list []*Validity) []*Validity {
	list = append(list, g.Validity)
	if g.by == nil {
		return list
	}
	for _, v := range list {
		if v == g.by {
			return list
		}
	}
	return append(list, g.by)
}

// Generation returns the known generation of a tag, or nil if it must be read first.
func (c *Cache) Generation(tag string) *Generation {
	s := c.shard(tag)
	s.mu.Lock()
	g := s.generations.Find(tag)
	s.mu.Unlock()
	if g == nil || !g.Valid() {
		return nil
	}
	return g
}

// Learn notes the generation of a tag. The value was read under the fence f, on a connection with the validity by. Learn returns nil and
// notes nothing if the tag was invalidated after the fence was taken.
func (c *Cache) Learn(f *Fence, value uint64, by *Validity) *Generation {
	s := f.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Broken() {
		return nil
	}
	var own *Validity
	if old := s.generations.Find(f.key); old != nil {
		switch {
		case old.Value != value:
			old.Revoke()
		case old.Valid() && old.by == by:
			return old
		case old.Validity.Valid():
			own = old.Validity
		}
	}
	if own == nil {
		own = new(Validity)
	}
	return s.note(f.key, &Generation{Validity: own, Value: value, by: by})
}

// LearnFirst is Learn for tags whose generations this process makes itself. If a generation is known already, LearnFirst returns that one and
// ignores value. Otherwise an entry could be lost:
//
//  1. Two loads find no generation of the tag.
//  2. The first load makes a generation and stores its entry.
//  3. The second load makes another generation. The entry of the first load would be out of date.
func (c *Cache) LearnFirst(f *Fence, value uint64) *Generation {
	s := f.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Broken() {
		return nil
	}
	if g := s.generations.Find(f.key); g != nil && g.Valid() {
		return g
	}
	return s.note(f.key, &Generation{Validity: new(Validity), Value: value})
}

// Hold returns a validity that ends when the tag is invalidated, whether or not its generation is known. It is for an entry that carries the
// tag and has no other validity for it. Hold returns nil if the tag was invalidated after the fence was taken.
func (c *Cache) Hold(f *Fence) *Validity {
	s := f.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Broken() {
		return nil
	}
	if g := s.generations.Find(f.key); g != nil && g.Validity.Valid() {
		return g.Validity
	}
	// No generation in Redis is 0. So Learn finds that the real generation is another one, and revokes this one.
	return s.note(f.key, &Generation{Validity: new(Validity), by: Untracked}).Validity
}

// note makes g the generation of a tag. It requires the shard's lock.
func (s *shard) note(tag string, g *Generation) *Generation {
	g.Validity.of = g // an entry references its validity, and so g
	s.generations.Note(tag, g)
	return g
}

// Retire invalidates a tag. It revokes the tag's generation, and breaks the fences under which a generation is being read. After Retire has
// returned, no entry is found that rested on the generation.
func (c *Cache) Retire(tag string) {
	s := c.shard(tag)
	s.mu.Lock()
	defer s.mu.Unlock()
	c.retired.note(tag)
	s.retire(tag)
	s.breakFences(tag)
}

// retire revokes the generation of a tag. It requires mu.
func (s *shard) retire(tag string) {
	if g := s.generations.Take(tag); g != nil {
		g.Revoke()
	}
}
