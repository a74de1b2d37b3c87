package near

import "iter"

// DeleteMatching is Delete for every key that match says yes to, whether something is stored under it, or only a fence has been
// taken. It reports how many usable entries were there. A fence that is taken while it runs may stay whole.
func (c *Cache) DeleteMatching(match func(key string) bool) (removed int64) {
	// Fences first: what is inserted before its fence breaks is found behind.
	for i := range c.shards {
		for _, key := range c.shards[i].watched(match) {
			if c.Delete(key) {
				removed++
			}
		}
	}
	for key := range c.store.All() {
		if match(key) && c.Delete(key) {
			removed++
		}
	}
	return removed
}

// watched are the keys with a fence that match.
func (s *shard) watched(match func(key string) bool) (keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.watches {
		if match(key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// All are the entries that Get would return, in no order.
func (c *Cache) All() iter.Seq2[string, *Entry] {
	return func(yield func(string, *Entry) bool) {
		for key, e := range c.store.All() {
			if c.usable(e) && !yield(key, e) {
				return
			}
		}
	}
}
