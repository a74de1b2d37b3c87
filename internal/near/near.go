// Package near is the cache in process memory: decoded values, bounded by number and by bytes, each with its own
// expiry. It is a thin layer over otter (W-TinyLFU) that adds what a cache in front of loaders needs: fences, by which a
// value whose load began before an invalidation is never stored after it.
package near

import (
	"hash/maphash"
	"math"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

// stripes is how many fences the keys share. Two keys on one stripe cost at most a refused store, when one is
// invalidated while the other is loading; they never make a value live longer.
const stripes = 4096

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
	store   *otter.Cache[string, *Entry]
	clock   *Clock
	seed    maphash.Seed
	stripes [stripes]atomic.Uint64
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
			return time.Duration(e.Value.FreshUntil-clock.Now()) + doubt
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

// A Fence remembers a point in a key's history. It is broken by the first Delete or Put of the key after that point.
type Fence struct {
	stripe *atomic.Uint64
	seen   uint64
}

// Fence notes the present. Take it before a load begins.
func (c *Cache) Fence(key string) Fence {
	s := c.stripe(key)
	return Fence{stripe: s, seen: s.Load()}
}

func (c *Cache) stripe(key string) *atomic.Uint64 {
	return &c.stripes[maphash.String(c.seed, key)%stripes]
}

func (f Fence) broken() bool { return f.stripe.Load() != f.seen }

// Insert stores a loaded entry, unless its fence is broken. It reports whether it stored.
func (c *Cache) Insert(key string, e *Entry, f Fence) bool {
	stored := false
	// The check runs under the lock of the key's bucket. A Delete raises the stripe before it takes that lock: either
	// the check sees the raised stripe, or the Delete comes second and removes what was inserted.
	c.store.Compute(key, func(*Entry, bool) (*Entry, otter.ComputeOp) {
		if f.broken() {
			return nil, otter.CancelOp
		}
		stored = true
		return e, otter.WriteOp
	})
	return stored
}

// Put stores an entry that supersedes every load under way, unless its fence is broken; then the key is left without an
// entry, since the newer write is not known to be this one, and the loads under way are superseded all the same. It
// reports whether it stored.
func (c *Cache) Put(key string, e *Entry, f Fence) bool {
	stored := false
	c.store.Compute(key, func(*Entry, bool) (*Entry, otter.ComputeOp) {
		// Raised inside the bucket's lock: a load that looks at the stripe before this loses its value to the write
		// below, and one that looks after it is refused.
		stored = f.stripe.CompareAndSwap(f.seen, f.seen+1)
		if !stored {
			// A load may have begun after what broke the fence, and still have missed the write that this Put stands for.
			f.stripe.Add(1)
			return nil, otter.InvalidateOp
		}
		return e, otter.WriteOp
	})
	return stored
}

// Delete removes the key, breaks its fences, and reports whether a fresh entry was there. Once it has returned, no value
// whose load began before is ever found.
func (c *Cache) Delete(key string) bool {
	c.stripe(key).Add(1)
	e, ok := c.store.Invalidate(key)
	return ok && c.clock.Before(e.FreshUntil)
}

// Len is about how many entries there are, expired ones included until they are swept.
func (c *Cache) Len() int { return c.store.EstimatedSize() }

// Close drops everything and ends the cache's goroutine.
func (c *Cache) Close() {
	c.store.InvalidateAll()
	c.store.StopAllGoroutines()
}
