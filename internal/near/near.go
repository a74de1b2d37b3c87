// Package near is the cache in process memory. It holds decoded values, bounded by number and by bytes, each with its own expiry.
//
// It is a thin layer over otter (W-TinyLFU) that adds two things that a cache in front of loaders needs. A fence keeps a value from being
// stored after an invalidation if its load began before the invalidation. A validity ends the life of an entry as soon as this process
// would not be notified of a change any more, or has been notified of one.
package near

import (
	"hash/maphash"
	"math"
	"runtime"
	"sync/atomic"
	"time"
	"weak"

	"github.com/maypok86/otter/v2"

	"github.com/gatewayz/aside/internal/freshness"
	"github.com/gatewayz/aside/internal/weakmap"
)

// An Entry is one value in memory. It is not changed after it is stored. All readers share its value.
type Entry struct {
	Value    any    // a pointer to the typed value; nil for a cached "not found"
	Scope    *Scope // the owner of the entry and the validities that it rests on
	Until    int64  // until when Get returns it, on the cache's Clock: the end of its TTL, or of its first phase
	LoadedAt int64  // the start of its load, on the cache's Clock
	Size     int64  // its size in bytes, without the cache's own overhead
	Plan     *Plan  // of a value that is loaded anew in the background; nil for others, whose life ends at Until

	LoadTime time.Duration // how long its load took; 0 if that is not known
}

// A Scope holds the properties that entries share. It is not changed after an entry has it.
type Scope struct {
	Owner      any           // for the user of the package, who finds it again on a hit
	Validities []*Validity   // the entry is valid while all of them are valid
	StaleFor   time.Duration // how long Stale finds an entry after one of its validities has lapsed
	Tags       []string      // for the user of the package
}

// Valid reports whether all validities are valid.
func (s *Scope) Valid() bool {
	for _, v := range s.Validities {
		if !v.Valid() {
			return false
		}
	}
	return true
}

// lapsed returns the time at which the first validity of e lapsed, or 0 if none has. It also reports whether e is known to be out of date.
func (e *Entry) lapsed() (since int64, outdated bool) {
	for _, v := range e.Scope.Validities {
		ended := v.ended.Load()
		switch ended {
		case 0:
			continue
		case revoked:
			return 0, true
		case untracked:
			ended = max(e.LoadedAt, 1)
		}
		if since == 0 || ended < since {
			since = ended
		}
	}
	return since, false
}

// Options bounds a Cache. Both bounds must be positive.
type Options struct {
	MaxEntries int   // the most entries
	MaxBytes   int64 // the most bytes of values
}

// Cache is safe for concurrent use.
type Cache struct {
	store    *otter.Cache[string, *Entry]
	clock    *Clock
	seed     maphash.Seed
	scale    scale
	large    large
	shards   [shards]shard
	retired  retired
	sweeper  *sweeper
	usage    *usage        // of its own: otter's callback must not keep the Cache alive
	firstTag atomic.Uint64 // the shard with which the last SomeTags began
}

// New makes an empty cache that uses clock.
func New(o Options, clock *Clock) *Cache {
	c := &Cache{clock: clock, seed: maphash.MakeSeed(), scale: newScale(o), usage: &usage{bounds: o}}
	for i := range c.shards {
		c.shards[i].generations = weakmap.New[Generation](2*min(o.MaxEntries/shards, math.MaxInt/4) + 1024)
	}
	c.store = otter.Must(&otter.Options[string, *Entry]{
		MaximumWeight:    c.scale.most,
		Weigher:          func(key string, e *Entry) uint32 { return c.scale.weight(key, e) },
		OnAtomicDeletion: c.usage.deleted,
	})
	c.sweeper = newSweeper()
	go c.sweeper.run(weak.Make(c))
	runtime.AddCleanup(c, (*sweeper).end, c.sweeper) // for a cache that is dropped without Close; otter does the same for its own goroutines
	return c
}

// Get returns the entry of key if it is fresh and valid, and nil otherwise. It makes no allocation and takes no lock.
func (c *Cache) Get(key string) *Entry {
	e, ok := c.store.GetIfPresent(key)
	if !ok || !c.clock.Before(e.Until) {
		return nil
	}
	for _, v := range e.Scope.Validities { // Scope.Valid, without the cost of a call
		if v.ended.Load() != 0 {
			return nil
		}
	}
	return e
}

// Old returns the entry of key and its phase, if it is not dead and not known to be out of date. The entry may have a lapsed validity. Old
// then returns it for up to its scope's StaleFor after that. For an entry that was never tracked, the time runs from the start of its load.
func (c *Cache) Old(key string) (*Entry, freshness.Phase) {
	if e, ok := c.store.GetIfPresent(key); ok && c.presentable(e) {
		return e, e.Times().At(c.clock.Now())
	}
	return nil, freshness.Dead
}

// Stale is Old of an entry that may be served at once.
func (c *Cache) Stale(key string) *Entry {
	if e, phase := c.Old(key); phase <= freshness.Stale {
		return e
	}
	return nil
}

// presentable reports whether Old may return the entry.
func (c *Cache) presentable(e *Entry) bool {
	if !c.clock.Before(e.Times().DeadUntil) {
		return false
	}
	since, outdated := e.lapsed()
	return !outdated && (since == 0 || c.lasts(since, e.Scope.StaleFor))
}

// usable reports whether the entry may still be served.
func (c *Cache) usable(e *Entry) bool { return c.clock.Before(e.Times().DeadUntil) && e.Scope.Valid() }

// Insert stores an entry unless its fence f is broken. f must not be nil. Insert reports false if it refuses the entry: because of
// the fence, because the entry is not valid, or because there is a usable entry whose load began later. It does not refuse an entry
// whose life is over already, but does not store it: it removes an entry whose load began earlier, so that this does not come back after the
// newer value was seen. Redis does the same.
func (c *Cache) Insert(key string, e *Entry, f *Fence) bool {
	c.makeRoom(key, e)
	refused := false
	// The check runs under the lock of the key's bucket. So does every change of the key, which breaks the fence before it removes or
	// replaces the entry. There are two orders:
	//
	//  1. The change comes first. The check sees the broken fence, and nothing is inserted.
	//  2. The check comes first. The change removes or replaces the inserted entry.
	c.store.Compute(key, func(there *Entry, found bool) (*Entry, otter.ComputeOp) {
		// A load may outlive its flight. It must not replace the entry of a load that began later.
		refused = f.Broken() || !e.Scope.Valid() || found && there.LoadedAt > e.LoadedAt && c.usable(there)
		switch dead := !c.clock.Before(e.Times().DeadUntil); {
		case !refused && dead && found && there.LoadedAt < e.LoadedAt:
			return nil, otter.InvalidateOp
		case refused || dead:
			return nil, otter.CancelOp
		}
		return c.write(e)
	})
	return !refused
}

// KeepUntracked is Insert for an entry without a valid validity. Only Stale finds such an entry. It replaces a usable entry whose load began
// earlier: that entry is older, though it is valid.
func (c *Cache) KeepUntracked(key string, e *Entry, f *Fence) bool {
	c.makeRoom(key, e)
	kept := false
	c.store.Compute(key, func(there *Entry, found bool) (*Entry, otter.ComputeOp) {
		kept = !f.Broken() && c.presentable(e) && !(found && there.LoadedAt > e.LoadedAt && c.presentable(there))
		if !kept {
			return nil, otter.CancelOp
		}
		return c.write(e)
	})
	return kept
}

// Put stores an entry that replaces the present entry and the result of every load in progress: it breaks all fences of the key. An entry
// whose life is over already only removes the present entry.
func (c *Cache) Put(key string, e *Entry) {
	c.makeRoom(key, e)
	c.store.Compute(key, func(*Entry, bool) (*Entry, otter.ComputeOp) {
		c.breakFences(key)
		if !c.clock.Before(e.Times().DeadUntil) {
			return nil, otter.InvalidateOp
		}
		return c.write(e)
	})
}

// Delete removes the key, breaks its fences, and reports whether a usable entry was there. After Delete has returned, no value is found
// whose load began before it.
func (c *Cache) Delete(key string) bool {
	usable := false
	c.store.Compute(key, func(there *Entry, found bool) (*Entry, otter.ComputeOp) {
		c.breakFences(key)
		usable = found && c.usable(there)
		return nil, otter.InvalidateOp
	})
	return usable
}

// Break breaks the fences of key. It leaves the stored entry.
func (c *Cache) Break(key string) {
	c.store.Compute(key, func(*Entry, bool) (*Entry, otter.ComputeOp) {
		c.breakFences(key)
		return nil, otter.CancelOp
	})
}

// Discard removes the entry of key if its load began before the given time.
func (c *Cache) Discard(key string, before int64) {
	c.store.Compute(key, func(there *Entry, found bool) (*Entry, otter.ComputeOp) {
		if !found || there.LoadedAt >= before {
			return nil, otter.CancelOp
		}
		return nil, otter.InvalidateOp
	})
}

// Push takes the notification that another process has changed key, which may be a tag. It removes the entry, breaks the armed fences,
// and revokes the generation. It does not block, so a connection's message handler may call it.
func (c *Cache) Push(key string) {
	c.store.Compute(key, func(there *Entry, _ bool) (*Entry, otter.ComputeOp) {
		s := c.shard(key)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.push(key)
		s.retire(key)
		return c.afterPush(there)
	})
}

func (c *Cache) breakFences(key string) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.breakFences(key)
}

// Fits reports whether an entry of size bytes is small enough to be kept.
func (c *Cache) Fits(key string, size int64) bool { return size <= c.scale.maxBytes-int64(len(key)) }

// Len returns the approximate number of entries. It includes expired entries until they are swept.
func (c *Cache) Len() int { return c.store.EstimatedSize() }

// Close removes all entries and ends the cache's goroutines.
func (c *Cache) Close() {
	c.sweeper.end()
	<-c.sweeper.stopped
	c.store.InvalidateAll()
	c.store.StopAllGoroutines()
}
