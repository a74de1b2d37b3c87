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
	case ended < 0 || !c.clock.Before(ended+int64(within)):
		return nil
	}
	return g
}
