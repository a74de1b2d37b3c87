package near

import "sync/atomic"

// A Voucher is somebody's word that what was read will not change without notice: a connection's, for everything that was
// read through it, or a generation's, for everything that carries its tag. It is good until it is withdrawn, and never
// again after that. The zero value is good.
type Voucher struct{ withdrawn atomic.Bool }

// Valid reports whether the voucher is good.
func (v *Voucher) Valid() bool { return !v.withdrawn.Load() }

// Withdraw ends the voucher. Nothing that rests on it is served any more.
func (v *Voucher) Withdraw() { v.withdrawn.Store(true) }

// A Generation is what this process knows of one tag: its value, for as long as the voucher is good. It is withdrawn when
// the tag is invalidated.
type Generation struct {
	Voucher
	Value uint64

	by *Voucher // of the connection that the value was read through; nil where there is none
}

// Valid reports whether the tag still has this generation, as far as this process has been told.
func (g *Generation) Valid() bool { return g.Voucher.Valid() && (g.by == nil || g.by.Valid()) }

// Vouchers appends to list, without repetition, what an entry rests on that carries the generation's tag.
func (g *Generation) Vouchers(list []*Voucher) []*Voucher {
	list = append(list, &g.Voucher)
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
	g := s.generations[tag]
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
	if old := s.generations[f.key]; old != nil {
		if old.Value == value && old.Valid() && old.by == by {
			return old
		}
		old.Withdraw()
	}
	if s.generations == nil {
		s.generations = make(map[string]*Generation)
	} else if len(s.generations) >= c.maxGenerations {
		// Forgetting one costs misses only. Which one it is is left to the map's order.
		for tag, g := range s.generations {
			g.Withdraw()
			delete(s.generations, tag)
			break
		}
	}
	g := &Generation{Value: value, by: by}
	s.generations[f.key] = g
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
	if g := s.generations[tag]; g != nil {
		g.Withdraw()
		delete(s.generations, tag)
	}
}
