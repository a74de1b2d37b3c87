package near

import "time"

// Lapsed returns the last known generation of a tag, also if the validity of the connection on which it was read has lapsed. This process
// would then not be notified if the tag were invalidated. Lapsed returns nil if that is longer ago than within, or if the tag is known
// to be invalidated.
func (c *Cache) Lapsed(tag string, within time.Duration) *Generation {
	s := c.shard(tag)
	s.mu.Lock()
	g := s.generations.Find(tag)
	s.mu.Unlock()
	if g == nil || g.by == nil || !g.Validity.Valid() {
		return nil
	}
	switch ended := g.by.ended.Load(); {
	case ended == 0:
		return g
	case ended < 0 || !c.lasts(ended, within):
		return nil
	}
	return g
}

// lasts reports whether what has lapsed is still to be had, for so long after that. No time at all is not left to the clock:
//
//  1. The machine is busy, and the clock's goroutine is late by more than its margin.
//  2. A connection breaks, and what it vouched for lapses now.
//  3. The coarse time is still before that. It would take a deadline of now for a future one.
func (c *Cache) lasts(since int64, within time.Duration) bool {
	return within > 0 && c.clock.Before(since+int64(within))
}
