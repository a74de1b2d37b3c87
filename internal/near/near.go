// Package near is the cache in process memory: decoded values, bounded by number and by bytes, each with its own
// expiry. It is a thin layer over otter (W-TinyLFU) that adds what a cache in front of loaders needs: fences, by which a
// value whose load began before an invalidation is never stored after it.
package near

import (
	"hash/maphash"
	"math"
	"time"

	"github.com/maypok86/otter/v2"
)

// An Entry is one value in memory. It is not changed once stored, and its value is shared between all who read it.
type Entry struct {
	Value      any   // a pointer to the typed value; nil for a cached "not found"
	Owner      any   // whatever the user of the package wants to find again on a hit
	LoadedAt   int64 // when the load began, on the cache's Clock
	FreshUntil int64 // until when it may be served, on the cache's Clock
	Size       int64 // bytes that it is counted with, without the cache's own overhead
}

// Options bounds a Cache. Both bounds must be positive.
type Options struct {
	MaxEntries int   // how many entries at most
	MaxBytes   int64 // how many bytes of values at most
}

// Cache is safe for concurrent use.
type Cache struct {
	store  *otter.Cache[string, *Entry]
	clock  *Clock
	seed   maphash.Seed
	shards [shards]shard
}

// New makes an empty cache on clock.
func New(o Options, clock *Clock) *Cache {
	// otter bounds either the number or the weight. A floor on the weight bounds both: no more than MaxEntries floors fit.
	floor := max(1, o.MaxBytes/int64(o.MaxEntries))
	c := &Cache{clock: clock, seed: maphash.MakeSeed()}
	c.store = otter.Must(&otter.Options[string, *Entry]{
		MaximumWeight: uint64(max(floor, o.MaxBytes)),
		Weigher: func(key string, e *Entry) uint32 {
			return uint32(min(max(floor, e.Size+int64(len(key))), math.MaxUint32))
		},
		// Expiry is checked here, to the nanosecond; otter's only gives back the memory of what nobody asks for again.
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, *Entry]) time.Duration {
			// Positive, even if the time ran out on the way here: otter takes the rest for "never".
			return max(1, time.Duration(e.Value.FreshUntil-clock.Now())+doubt)
		}),
		Clock: clock.coarse,
	})
	return c
}

// Get returns the entry of key while it is fresh, else nil. It makes no allocation and takes no lock.
func (c *Cache) Get(key string) *Entry {
	e, ok := c.store.GetIfPresent(key)
	if !ok || !c.clock.Before(e.FreshUntil) {
		return nil
	}
	return e
}

// Insert stores a loaded entry, unless its fence is broken; f must not be nil. It reports false if it was refused, by the
// fence or for a fresh value whose load began later. An entry whose time is over already is not refused, only not stored.
func (c *Cache) Insert(key string, e *Entry, f *Fence) bool {
	refused := false
	// The check runs under the lock of the key's bucket, and so do Delete and Put, which break the fence before they remove
	// or replace: either the check sees the broken fence, or they come second and undo what was inserted.
	c.store.Compute(key, func(there *Entry, found bool) (*Entry, otter.ComputeOp) {
		refused = f.broken() || found && c.newer(there, e)
		if refused || !c.clock.Before(e.FreshUntil) {
			return nil, otter.CancelOp
		}
		return e, otter.WriteOp
	})
	return !refused
}

// newer reports whether there is a fresh entry whose load began after that of e: a load that outlived its flight must not
// take its place.
func (c *Cache) newer(there, e *Entry) bool {
	return there.LoadedAt > e.LoadedAt && c.clock.Before(there.FreshUntil)
}

// Put stores an entry that supersedes whatever is there and every load under way: it breaks all fences of the key. Without
// a fence of its own (f is nil) it is never refused. With one, that of a load which was to supersede the entry, it stores
// nothing and reports false if that fence is broken, or if what is there is fresh and its load began later. For an entry whose time is over already it removes what is there and
// stores nothing.
func (c *Cache) Put(key string, e *Entry, f *Fence) bool {
	refused := false
	c.store.Compute(key, func(there *Entry, found bool) (*Entry, otter.ComputeOp) {
		var by *Entry
		if f != nil {
			if refused = f.broken(); refused {
				// Whoever broke the fence has removed what was there or replaced it. But another Put under a fence may have
				// replaced it by what it read before this load began: then nobody knows which of the two is newer, and
				// neither stays. Only one such Put can break a fence; the loads whose entries come later began after it.
				if found && there == f.rival() {
					return nil, otter.InvalidateOp
				}
				return nil, otter.CancelOp
			}
			if refused = found && c.newer(there, e); refused {
				return nil, otter.CancelOp
			}
			by = e
		}
		c.breakFences(key, by)
		if !c.clock.Before(e.FreshUntil) {
			return nil, otter.InvalidateOp
		}
		return e, otter.WriteOp
	})
	return !refused
}

// Delete removes the key, breaks its fences, and reports whether a fresh entry was there. Once it has returned, no value
// whose load began before is ever found.
func (c *Cache) Delete(key string) bool {
	fresh := false
	c.store.Compute(key, func(there *Entry, found bool) (*Entry, otter.ComputeOp) {
		// Both under the bucket's lock: a Put that is refused may rely on the removal.
		c.breakFences(key, nil)
		fresh = found && c.clock.Before(there.FreshUntil)
		return nil, otter.InvalidateOp
	})
	return fresh
}

// Len is about how many entries there are, expired ones included until they are swept.
func (c *Cache) Len() int { return c.store.EstimatedSize() }

// Close drops everything and ends the cache's goroutine.
func (c *Cache) Close() {
	c.store.InvalidateAll()
	c.store.StopAllGoroutines()
}
