package near

import "time"

// Lapsed returns the last known generation of a tag where the connection that it was read through has gone: nobody would tell any
// more if the tag were invalidated. It returns nil where that is longer ago than within, or where the tag is known to be invalidated.
func (c *Cache) Lapsed(tag string, within time.Duration) *Generation {
	s := c.shard(tag)
	s.mu.Lock()
	g := s.generations.Find(tag)
	s.mu.Unlock()
	if g == nil || g.by == nil || !g.Voucher.Valid() {
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
