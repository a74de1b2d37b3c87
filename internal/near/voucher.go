package near

import "sync/atomic"

// A Voucher is somebody's word that what was read will not change without notice: a connection's, for everything that was
// read through it, or a generation's, for everything that carries its tag. It is good until it ends, and never again after
// that. It can end in two ways. The zero value is good.
type Voucher struct {
	ended atomic.Int64 // 0: good; withdrawn; never; else when it was lost, on the clock of whoever lost it
	of    *Generation  // so that who holds the voucher of a tag holds its generation; nobody reads it
}

const (
	withdrawn = -1
	never     = -2
)

// Unvouched is the voucher of what was loaded while nobody could vouch for it.
var Unvouched = unvouched()

func unvouched() *Voucher {
	v := new(Voucher)
	v.ended.Store(never)
	return v
}

// Valid reports whether the voucher is good.
func (v *Voucher) Valid() bool { return v.ended.Load() == 0 }

// Withdraw ends the voucher: what rests on it is out of date, and is never served any more.
func (v *Voucher) Withdraw() { v.ended.Store(withdrawn) }

// Lose ends a good voucher at a time on the cache's Clock: nobody would tell any more if what rests on it were out of date.
func (v *Voucher) Lose(now int64) { v.ended.CompareAndSwap(0, max(now, 1)) }

// A Generation is what this process knows of one tag: its value, for as long as the voucher is good. It is withdrawn when
// the tag is invalidated. Generations that differ in nothing but the connection that they were read through share a voucher:
// with it, everything that carries the tag's value goes.
type Generation struct {
	*Voucher
	Value uint64

	by *Voucher // of the connection that the value was read through; nil where there is none
}

// Valid reports whether the tag still has this generation, as far as this process has been told.
func (g *Generation) Valid() bool { return g.Voucher.Valid() && (g.by == nil || g.by.Valid()) }

// Vouchers appends to list, without repetition, what an entry rests on that carries the generation's tag.
func (g *Generation) Vouchers(list []*Voucher) []*Voucher {
	list = append(list, g.Voucher)
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

// Generation returns the known generation of a tag, or nil where it must be read first.
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

// Learn notes the generation of a tag that was read under the fence f, and for which by vouches. It returns nil, and notes
// nothing, if the tag was invalidated since the fence was taken.
func (c *Cache) Learn(f *Fence, value uint64, by *Voucher) *Generation {
	s := f.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Broken() {
		return nil
	}
	own := new(Voucher)
	if old := s.generations.Find(f.key); old != nil {
		switch {
		case old.Value != value:
			old.Withdraw()
		case old.Valid() && old.by == by:
			return old
		case old.Voucher.Valid():
			own = old.Voucher
		}
	}
	return s.note(f.key, &Generation{Voucher: own, Value: value, by: by})
}

// LearnFirst is Learn for tags whose generations this process makes by itself: where one is known already, that counts, and value
// is not used. Of two loads that both find none, the second must not put what the first has stored out of date.
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
	return s.note(f.key, &Generation{Voucher: new(Voucher), Value: value})
}

// Hold returns what ends when the tag is invalidated, whether or not its generation is known: the voucher for something
// that carries the tag and that nobody else vouches for. It is nil if the tag was invalidated since the fence was taken.
func (c *Cache) Hold(f *Fence) *Voucher {
	s := f.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Broken() {
		return nil
	}
	if g := s.generations.Find(f.key); g != nil && g.Voucher.Valid() {
		return g.Voucher
	}
	// No generation in Redis is 0: as soon as the real one is learned, this one is found to be another.
	return s.note(f.key, &Generation{Voucher: new(Voucher), by: Unvouched}).Voucher
}

// note is called with the shard's lock held.
func (s *shard) note(tag string, g *Generation) *Generation {
	g.Voucher.of = g // an entry holds its voucher, and so g
	s.generations.Note(tag, g)
	return g
}

// Retire invalidates a tag: its generation is withdrawn, and so is one that is being read under a fence. Once it has
// returned, no entry is found that rested on it.
func (c *Cache) Retire(tag string) {
	s := c.shard(tag)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retire(tag)
	s.breakFences(tag)
}

// retire is called with the lock held.
func (s *shard) retire(tag string) {
	if g := s.generations.Take(tag); g != nil {
		g.Withdraw()
	}
}
