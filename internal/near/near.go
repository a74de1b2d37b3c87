// Package near is the cache in process memory: decoded values, bounded by number and by bytes, each with its own
// expiry. It is a thin layer over otter (W-TinyLFU) that adds what a cache in front of loaders needs: fences, by which a
// value whose load began before an invalidation is never stored after it; and vouchers, by which an entry is served only as
// long as somebody would tell if it were out of date.
package near

import (
	"hash/maphash"
	"math"
	"runtime"
	"sync/atomic"
	"time"
	"weak"

	"github.com/maypok86/otter/v2"

	"github.com/gatewayz/aside/internal/weakmap"
)

// An Entry is one value in memory. It is not changed once stored, and its value is shared between all who read it.
type Entry struct {
	Value      any    // a pointer to the typed value; nil for a cached "not found"
	Scope      *Scope // what the entry belongs to and rests on
	FreshUntil int64  // until when it may be served, on the cache's Clock
	LoadedAt   int64  // when the load began, on the cache's Clock
	Size       int64  // bytes that it is counted with, without the cache's own overhead
}

// A Scope is what entries have in common. It is not changed once an entry has it.
type Scope struct {
	Owner    any           // whatever the user of the package wants to find again on a hit
	Vouchers []*Voucher    // all of which must be good
	StaleFor time.Duration // how long an entry is kept for Stale that has lost one
	Tags     []string      // whatever the user of the package wants to be told of its entries
}

func (s *Scope) vouched() bool {
	for _, v := range s.Vouchers {
		if !v.Valid() {
			return false
		}
	}
	return true
}

// lost tells since when e has lacked a voucher, 0 for not at all, and whether it is known to be out of date.
func (e *Entry) lost() (since int64, outdated bool) {
	for _, v := range e.Scope.Vouchers {
		ended := v.ended.Load()
		switch ended {
		case 0:
			continue
		case withdrawn:
			return 0, true
		case never:
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
	MaxEntries int   // how many entries at most
	MaxBytes   int64 // how many bytes of values at most
}

// Cache is safe for concurrent use.
type Cache struct {
	store    *otter.Cache[string, *Entry]
	clock    *Clock
	seed     maphash.Seed
	scale    scale
	large    large
	shards   [shards]shard
	sweeper  *sweeper
	lookedAt atomic.Uint64 // the shard that SomeTags has begun with
}

// New makes an empty cache on clock.
func New(o Options, clock *Clock) *Cache {
	c := &Cache{clock: clock, seed: maphash.MakeSeed(), scale: newScale(o)}
	for i := range c.shards {
		c.shards[i].generations = weakmap.New[Generation](2*min(o.MaxEntries/shards, math.MaxInt/4) + 1024)
	}
	c.store = otter.Must(&otter.Options[string, *Entry]{
		MaximumWeight: c.scale.most,
		Weigher:       func(key string, e *Entry) uint32 { return c.scale.weight(key, e) },
	})
	c.sweeper = newSweeper()
	go c.sweeper.run(weak.Make(c))
	runtime.AddCleanup(c, (*sweeper).end, c.sweeper) // for who drops a cache without closing it, as otter does for its own
	return c
}

// Get returns the entry of key if it is fresh and vouched for, else nil. It makes no allocation and takes no lock.
func (c *Cache) Get(key string) *Entry {
	e, ok := c.store.GetIfPresent(key)
	if !ok || !c.clock.Before(e.FreshUntil) {
		return nil
	}
	for _, v := range e.Scope.Vouchers { // vouched, without the cost of a call
		if v.ended.Load() != 0 {
			return nil
		}
	}
	return e
}

// Stale returns the entry of key if it is within its time and not known to be out of date, though nobody may vouch for it
// any more: up to its scope's StaleFor from when it lost its voucher. That is the load where it never had one.
func (c *Cache) Stale(key string) *Entry {
	if e, ok := c.store.GetIfPresent(key); ok && c.presentable(e) {
		return e
	}
	return nil
}

func (c *Cache) presentable(e *Entry) bool {
	if !c.clock.Before(e.FreshUntil) {
		return false
	}
	since, outdated := e.lost()
	return !outdated && (since == 0 || c.clock.Before(since+int64(e.Scope.StaleFor)))
}

func (c *Cache) usable(e *Entry) bool { return c.clock.Before(e.FreshUntil) && e.Scope.vouched() }

// Insert stores an entry, unless its fence is broken; f must not be nil. It reports false if it was refused: by the fence,
// for want of a voucher, or for a usable value whose load began later. An entry whose time is over already is not refused,
// only not stored.
func (c *Cache) Insert(key string, e *Entry, f *Fence) bool {
	c.makeRoom(key, e)
	refused := false
	// The check runs under the lock of the key's bucket, and so does every change of the key, which breaks the fence before
	// it removes or replaces: either the check sees the broken fence, or they come second and undo what was inserted.
	c.store.Compute(key, func(there *Entry, found bool) (*Entry, otter.ComputeOp) {
		// A load that outlived its flight must not take a newer one's place.
		refused = f.Broken() || !e.Scope.vouched() || found && there.LoadedAt > e.LoadedAt && c.usable(there)
		if refused || !c.clock.Before(e.FreshUntil) {
			return nil, otter.CancelOp
		}
		return e, otter.WriteOp
	})
	return !refused
}

// Keep is Insert for an entry that nobody vouches for, which only Stale finds. It takes the place of a usable one whose load
// began earlier: that is no better for having a voucher.
func (c *Cache) Keep(key string, e *Entry, f *Fence) bool {
	c.makeRoom(key, e)
	kept := false
	c.store.Compute(key, func(there *Entry, found bool) (*Entry, otter.ComputeOp) {
		kept = !f.Broken() && c.presentable(e) && !(found && there.LoadedAt > e.LoadedAt && c.presentable(there))
		if !kept {
			return nil, otter.CancelOp
		}
		return e, otter.WriteOp
	})
	return kept
}

// Put stores an entry that supersedes whatever is there and every load under way: it breaks all fences of the key. An entry
// whose time is over already only removes what is there.
func (c *Cache) Put(key string, e *Entry) {
	c.makeRoom(key, e)
	c.store.Compute(key, func(*Entry, bool) (*Entry, otter.ComputeOp) {
		c.breakFences(key)
		if !c.clock.Before(e.FreshUntil) {
			return nil, otter.InvalidateOp
		}
		return e, otter.WriteOp
	})
}

// Delete removes the key, breaks its fences, and reports whether a usable entry was there. Once it has returned, no value
// whose load began before is ever found.
func (c *Cache) Delete(key string) bool {
	usable := false
	c.store.Compute(key, func(there *Entry, found bool) (*Entry, otter.ComputeOp) {
		c.breakFences(key)
		usable = found && c.usable(there)
		return nil, otter.InvalidateOp
	})
	return usable
}

// Break breaks the fences of key and leaves what is stored.
func (c *Cache) Break(key string) {
	c.store.Compute(key, func(*Entry, bool) (*Entry, otter.ComputeOp) {
		c.breakFences(key)
		return nil, otter.CancelOp
	})
}

// Discard removes what is stored under key, unless its load began at before or later.
func (c *Cache) Discard(key string, before int64) {
	c.store.Compute(key, func(there *Entry, found bool) (*Entry, otter.ComputeOp) {
		if !found || there.LoadedAt >= before {
			return nil, otter.CancelOp
		}
		return nil, otter.InvalidateOp
	})
}

// Push is told that somebody else has changed key, which may be a tag too: what is stored is removed, armed fences break,
// a generation is withdrawn. It does not block, so it can be called where a connection's messages are handled.
func (c *Cache) Push(key string) {
	c.store.Compute(key, func(*Entry, bool) (*Entry, otter.ComputeOp) {
		s := c.shard(key)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.push(key)
		s.retire(key)
		return nil, otter.InvalidateOp
	})
}

func (c *Cache) breakFences(key string) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.breakFences(key)
}

// Fits reports whether an entry of so many bytes is not too large to be kept.
func (c *Cache) Fits(key string, size int64) bool { return size <= c.scale.maxBytes-int64(len(key)) }

// Len is about how many entries there are, expired ones included until they are swept.
func (c *Cache) Len() int { return c.store.EstimatedSize() }

// Close drops everything and ends the cache's goroutines.
func (c *Cache) Close() {
	c.sweeper.end()
	<-c.sweeper.stopped
	c.store.InvalidateAll()
	c.store.StopAllGoroutines()
}
