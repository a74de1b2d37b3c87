package near

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/gatewayz/aside/internal/weakmap"
)

// shards is how many locks the keys with a fence share. Each lock is held for one map access at a time.
const shards = 64

// A shard holds the fences of some keys and the generations of some tags. Its lock may be taken under the lock of one of otter's buckets,
// never the other way round.
type shard struct {
	mu          sync.Mutex
	watches     map[string]*watch       // the keys with a fence that is neither broken nor ended
	generations weakmap.Map[Generation] // no entry rests on a generation that was collected
}

// A watch is shared by the fences of a key that were taken between the same two breaks. It leaves the map when it is broken, so that later
// fences of the key begin another watch. A broken watch stays broken.
type watch struct {
	broken atomic.Bool   // read without the shard's lock
	pushes atomic.Uint64 // how often another process has changed the key; read without the shard's lock
	fences []*Fence      // the fences that have not ended; under the shard's lock
	turns  int           // how many fences there were; under the shard's lock
	few    [2]*Fence     // room for fences: of a load, and of its fill
	first  Fence         // the fence with which it began
}

// A Fence marks a point in a key's history. The first change of the key in this process after that point breaks it. A fence that is armed is
// also broken by the first change that is pushed from another process.
//
// The two kinds of change are separate because they arrive in different ways. This process knows of its own change at once. A push has a
// place among the replies of its connection:
//
//  1. A request is sent. Its fence was taken before.
//  2. A push arrives before the reply. It is about a value older than the reply's, so it must not break the fence.
//  3. The reply arrives. The fence is armed in the reply's place.
//  4. A push arrives after the reply. It is about a change of the value that was read, and breaks the fence.
type Fence struct {
	key   string
	shard *shard
	watch *watch
	wake  chan<- struct{}
	armed atomic.Uint64 // the watch's pushes at the time of Arm, plus one; 0 before that
	ended atomic.Bool
	place int // its index among the watch's fences; under the shard's lock
	turn  int // its number among the fences that the watch has had
}

// Fence takes a fence of key. Take it before a load or a read begins, and End it afterwards. It takes memory until then. The wake channel
// may be nil. It gets a message at every change of the key, if it has room.
func (c *Cache) Fence(key string, wake chan<- struct{}) *Fence {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	w, f := s.watches[key], (*Fence)(nil)
	if w == nil {
		if s.watches == nil {
			s.watches = make(map[string]*watch)
		}
		w = &watch{}
		w.fences, f = w.few[:0], &w.first
		s.watches[key] = w
	} else {
		f = new(Fence)
	}
	w.turns++
	f.key, f.shard, f.wake, f.watch, f.place, f.turn = key, s, wake, w, len(w.fences), w.turns
	w.fences = append(w.fences, f)
	return f
}

// Arm makes later pushes break the fence. The connection's message handler must call it, in the order of the messages.
func (f *Fence) Arm() { f.armed.Store(f.watch.pushes.Load() + 1) }

// Await is Arm for a fence that is not armed yet. It is for a load without a reply that arms its fence.
func (f *Fence) Await() { f.armed.CompareAndSwap(0, f.watch.pushes.Load()+1) }

// End releases the fence. Nothing can be stored under it any more. Further calls do nothing, nor does a call on nil.
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
	// A broken watch has left the map. The map may hold its successor.
	if len(w.fences) == 0 && f.shard.watches[f.key] == w {
		delete(f.shard.watches, f.key)
	}
}

// Overtake ends the fences of the key that were taken before f: a load that began later has succeeded. Its value may not be stored, or be evicted
// or dead before an older load ends. Without Overtake the older value would then be served after the newer one.
func (f *Fence) Overtake() {
	var older []*Fence
	f.shard.mu.Lock()
	for _, other := range f.watch.fences {
		if other.turn < f.turn {
			older = append(older, other)
		}
	}
	f.shard.mu.Unlock()
	for _, other := range older {
		other.End()
	}
}

// Broken reports whether the fence forbids storing a value. An ended fence counts as broken, because changes of its key are not recorded any
// more. Broken takes no lock.
func (f *Fence) Broken() bool { return f.BrokenHere() || f.pushed() }

// BrokenHere reports whether this process has changed the key, or the fence has ended.
func (f *Fence) BrokenHere() bool { return f.ended.Load() || f.watch.broken.Load() }

// pushed reports whether a push has broken the armed fence.
func (f *Fence) pushed() bool {
	armed := f.armed.Load()
	return armed != 0 && f.watch.pushes.Load() >= armed
}

// breakFences breaks all present fences of key. A fence that is taken later is whole. breakFences requires mu.
func (s *shard) breakFences(key string) {
	if w := s.watches[key]; w != nil {
		w.broken.Store(true)
		delete(s.watches, key)
		w.notify()
	}
}

// push breaks the armed fences of key. It requires mu.
func (s *shard) push(key string) {
	if w := s.watches[key]; w != nil {
		w.pushes.Add(1)
		w.notify()
	}
}

// notify sends to the wake channels.
func (w *watch) notify() {
	for _, f := range w.fences {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

func (c *Cache) shard(key string) *shard { return &c.shards[maphash.String(c.seed, key)%shards] }
