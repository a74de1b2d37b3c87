package near

import "sync"

// otter makes room for a new entry among the entries that are not read often. The entries that were read often take up to four fifths of the
// memory. If only those are left, a new entry that does not fit beside them competes only with itself. otter evicts it at once, however
// often it is asked for, and whether or not the others are still read. Only an entry larger than the remaining fifth can have that fate.
// So the cache counts how often such an entry was missing when it was inserted. It makes room for one that is inserted often enough.

const (
	largeShare = 8    // an entry is large if it takes more than MaxBytes/largeShare
	firstRoom  = 4    // how often an entry is missed before room is made for it; the number doubles each time, up to latestRoom,
	latestRoom = 1024 // because the entries that made room may be asked for too
	mostLarge  = 64   // how many keys are counted
)

// large counts the insertions of large entries.
type large struct {
	mu     sync.Mutex
	visits map[string]visit // guarded by mu
}

// A visit is how often an entry was missing since room was made for it, and how often it must be to get room.
type visit struct{ missed, need int }

// missed counts the insertion of an entry that was missing, and reports whether to make room for it.
func (l *large) missed(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, known := l.visits[key]
	if !known {
		if l.visits == nil || len(l.visits) >= mostLarge {
			l.visits = make(map[string]visit)
		}
		v.need = firstRoom
	}
	makeRoom := v.missed >= v.need
	if v.missed++; makeRoom {
		v = visit{need: min(2*v.need, latestRoom)}
	}
	l.visits[key] = v
	return makeRoom
}

// makeRoom removes the entries that are least likely to be asked for, if e is large and would be evicted at once otherwise. It must be called
// before e is stored.
func (c *Cache) makeRoom(key string, e *Entry) {
	size := bytesOf(key, e)
	if size <= c.scale.maxBytes/largeShare || size > c.scale.maxBytes {
		return
	}
	if _, found := c.store.GetEntryQuietly(key); found || !c.large.missed(key) {
		return
	}
	over := int64(c.store.WeightedSize()) + int64(c.scale.weight(key, e)) - int64(c.scale.most)
	var coldest []string
	if over > 0 {
		for there := range c.store.Coldest() {
			coldest = append(coldest, there.Key)
			if over -= int64(there.Weight); over <= 0 {
				break
			}
		}
	}
	for _, key := range coldest {
		c.store.Invalidate(key)
	}
}
