package near

import "iter"

// DeleteMatching is Delete for every key that matches, whether it has an entry or only a fence. It reports how many usable entries it removed.
// A fence that is taken while DeleteMatching runs may stay whole.
func (c *Cache) DeleteMatching(match func(key string) bool) (removed int64) {
	// Fences come first: the second loop finds an entry that was inserted before its fence broke.
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

// watched returns the matching keys that have a fence.
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

// All iterates over the entries that Get would return, in no order.
func (c *Cache) All() iter.Seq2[string, *Entry] {
	return func(yield func(string, *Entry) bool) {
		for key, e := range c.store.All() {
			if c.usable(e) && !yield(key, e) {
				return
			}
		}
	}
}
