package near

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/gatewayz/aside/internal/weakmap"
)

// shards is how many locks the keys with a fence share. They are held for a map access at a time.
const shards = 64

// A shard is what is known of some keys' fences and some tags' generations. Its lock may be taken under the lock of a bucket
// of otter's, never the other way round.
type shard struct {
	mu          sync.Mutex
	watches     map[string]*watch       // the keys that have a fence which is neither broken nor ended
	generations weakmap.Map[Generation] // that nobody holds any more, nothing rests on
}

// A watch is what the fences of a key have in common that were taken between the same two breaks. It leaves the map when it
// is broken, so that later fences of the key begin another one; once broken, it stays so.
type watch struct {
	broken atomic.Bool   // read without the shard's lock
	pushes atomic.Uint64 // how often somebody else has changed the key; likewise
	fences []*Fence      // that have not ended; under the shard's lock
}

// A Fence remembers a point in a key's history. It is broken by the first change of the key in this process after that
// point, and once it is armed also by the first change that is pushed from elsewhere.
//
// The two are told apart because they arrive by different ways. What this process changes, it knows at once. A push has its
// place among the replies of the connection that it comes by: one that precedes a reply is about a value older than the
// reply's, and says nothing of that. So a fence is taken before the request, and armed in the place of the reply.
type Fence struct {
	key   string
	shard *shard
	watch *watch
	wake  chan<- struct{}
	armed atomic.Uint64 // the watch's pushes at the time, plus one; 0 before
	ended atomic.Bool
	place int // among the watch's fences; under the shard's lock
}

// Fence notes the present. Take it before a load or a read begins, and End it when that is over: until then, it takes
// memory. A wake channel, where there is one, gets a message at every change of the key, if it has room.
func (c *Cache) Fence(key string, wake chan<- struct{}) *Fence {
	s := c.shard(key)
	f := &Fence{key: key, shard: s, wake: wake}
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
	f.watch, f.place = w, len(w.fences)
	w.fences = append(w.fences, f)
	return f
}

// Arm makes the fence notice what is pushed from now on. Call it where the connection's messages are handled in their order.
func (f *Fence) Arm() { f.armed.Store(f.watch.pushes.Load() + 1) }

// Await makes the fence notice what is pushed from now on, unless it has been armed. It is for a load without a reply to arm it.
func (f *Fence) Await() { f.armed.CompareAndSwap(0, f.watch.pushes.Load()+1) }

// End gives up the fence; nothing can be stored under it any more. Further calls, and one on nil, do nothing.
func (f *Fence) End() {
	if f == nil || f.ended.Swap(true) {
		return
	}
	f.shard.mu.Lock()
	defer f.shard.mu.Unlock()
	w := f.watch
	last := len(w.fences) - 1
	w.fences[f.place] = w.fences[last]
	w.fences[f.place].place = f.place
	w.fences[last] = nil
	w.fences = w.fences[:last]
	// A broken watch has left the map, and what is there now is its successor.
	if len(w.fences) == 0 && f.shard.watches[f.key] == w {
		delete(f.shard.watches, f.key)
	}
}

// Broken reports whether nothing may be stored under the fence. An ended one counts as broken, because nobody keeps track
// of its key any more. It takes no lock.
func (f *Fence) Broken() bool { return f.BrokenHere() || f.pushed() }

// BrokenHere reports whether this process has changed the key, or the fence has ended.
func (f *Fence) BrokenHere() bool { return f.ended.Load() || f.watch.broken.Load() }

func (f *Fence) pushed() bool {
	armed := f.armed.Load()
	return armed != 0 && f.watch.pushes.Load() >= armed
}

// breakFences breaks every fence of key that there is. One that is taken afterwards is whole. The caller holds mu.
func (s *shard) breakFences(key string) {
	if w := s.watches[key]; w != nil {
		w.broken.Store(true)
		delete(s.watches, key)
		w.tell()
	}
}

// push breaks those fences of key that are armed. The caller holds mu.
func (s *shard) push(key string) {
	if w := s.watches[key]; w != nil {
		w.pushes.Add(1)
		w.tell()
	}
}

func (w *watch) tell() {
	for _, f := range w.fences {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

func (c *Cache) shard(key string) *shard { return &c.shards[maphash.String(c.seed, key)%shards] }
