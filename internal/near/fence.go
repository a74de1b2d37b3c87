package near

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// shards is how many locks the keys with a fence share. They are held for a map access at a time.
const shards = 64

// A shard is what is known of some keys' fences. Its lock may be taken under the lock of a bucket of otter's, never the
// other way round.
type shard struct {
	mu      sync.Mutex
	watches map[string]*watch // the keys that have a fence which is neither broken nor ended
}

// A watch is what the fences of a key have in common that were taken between the same two breaks. It leaves the map when it
// is broken, so that later fences of the key begin another one; once broken, it stays so.
type watch struct {
	broken atomic.Bool // read without the shard's lock
	by     *Entry      // whose Put under a fence broke it, if that did; set before broken
	fences int         // that have not ended; under the shard's lock
}

// A Fence remembers a point in its key's history. It is broken by the first Delete or Put of the key after that point.
type Fence struct {
	key   string
	shard *shard
	watch *watch
	ended atomic.Bool
}

// Fence notes the present. Take it before a load begins, and End it when the load is over: until then, it takes memory.
func (c *Cache) Fence(key string) *Fence {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.watches[key]
	if w == nil {
		if s.watches == nil {
			s.watches = make(map[string]*watch)
		}
		w = &watch{}
		s.watches[key] = w
	}
	w.fences++
	return &Fence{key: key, shard: s, watch: w}
}

// End gives up the fence; nothing can be stored under it any more. Further calls, and one on nil, do nothing.
func (f *Fence) End() {
	if f == nil || f.ended.Swap(true) {
		return
	}
	f.shard.mu.Lock()
	defer f.shard.mu.Unlock()
	f.watch.fences--
	// A broken watch has left the map, and what is there now is its successor.
	if f.watch.fences == 0 && f.shard.watches[f.key] == f.watch {
		delete(f.shard.watches, f.key)
	}
}

// broken reports whether nothing may be stored under the fence. An ended one counts as broken, because nobody keeps track
// of its key any more. It takes no lock.
func (f *Fence) broken() bool { return f.ended.Load() || f.watch.broken.Load() }

// rival is the entry of the other load whose Put broke the fence, if that is what broke it.
func (f *Fence) rival() *Entry {
	if !f.watch.broken.Load() {
		return nil
	}
	return f.watch.by
}

// breakFences breaks every fence of key that there is, for a Put of the entry by under a fence or else for nil. A fence
// that is taken afterwards is whole. The caller holds the lock of the key's bucket.
func (c *Cache) breakFences(key string, by *Entry) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.watches[key]; w != nil {
		w.by = by
		w.broken.Store(true)
		delete(s.watches, key)
	}
}

func (c *Cache) shard(key string) *shard { return &c.shards[maphash.String(c.seed, key)%shards] }
