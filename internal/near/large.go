package near

import "sync"

// otter asks for room for a new entry among those that are not read again and again; the others take up to four fifths of all there is.
// Where nothing but those is left, a new entry that does not fit beside them is its own and only rival: it goes at once, however often
// it is asked for, and whether or not anybody still reads the others. That can only happen to an entry that is larger than the fifth
// that is left. So of those it is noted how often they had to come again, and one that comes again and again has room made for it.

const (
	largeShare = 8    // an entry is large that takes more than this part of MaxBytes
	firstRoom  = 4    // how often one comes before room is made for it; twice as often the next time, since
	latestRoom = 1024 // what was in its place may be asked for too
	mostLarge  = 64   // keys that are noted
)

// large knows the large entries that have come.
type large struct {
	mu     sync.Mutex
	visits map[string]comings // guarded by mu
}

type comings struct{ missed, need int }

// due notes that an entry comes that was not there, and reports whether room is to be made for it.
func (l *large) due(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, known := l.visits[key]
	if !known {
		if l.visits == nil || len(l.visits) >= mostLarge {
			l.visits = make(map[string]comings)
		}
		v.need = firstRoom
	}
	due := v.missed >= v.need
	if v.missed++; due {
		v = comings{need: min(2*v.need, latestRoom)}
	}
	l.visits[key] = v
	return due
}

// makeRoom removes the entries that are likely to be asked for least, where e is large and does not stay otherwise. It comes before e
// is stored.
func (c *Cache) makeRoom(key string, e *Entry) {
	size := bytesOf(key, e)
	if size <= c.scale.maxBytes/largeShare || size > c.scale.maxBytes {
		return
	}
	if _, found := c.store.GetEntryQuietly(key); found || !c.large.due(key) {
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
