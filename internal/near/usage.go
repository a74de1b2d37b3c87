package near

import (
	"sync/atomic"

	"github.com/maypok86/otter/v2"
)

// A usage counts what the cache holds, and what it has evicted. It is counted by writes and removals. Hits have no part in it: otter's own
// statistics would cost each hit a call.
type usage struct {
	bounds       Options
	bytes        atomic.Int64
	evictions    atomic.Uint64
	evictedBytes atomic.Uint64
}

// A Usage is how full a Cache is. Entries and Bytes include expired entries until they are swept.
type Usage struct {
	Options
	Entries      int
	Bytes        int64  // of the entries' values
	Evictions    uint64 // entries that made room for others
	EvictedBytes uint64
	Swept        uint64 // entries that were removed in the background because their tags were retired by RetireAll
}

// Usage returns how full the cache is.
func (c *Cache) Usage() Usage {
	u := c.usage
	return Usage{u.bounds, c.Len(), u.bytes.Load(), u.evictions.Load(), u.evictedBytes.Load(), c.sweeper.removed.Load()}
}

// write has Compute store an entry.
func (c *Cache) write(e *Entry) (*Entry, otter.ComputeOp) {
	c.usage.bytes.Add(e.Size)
	return e, otter.WriteOp
}

// deleted is called for each entry that is removed or replaced.
func (u *usage) deleted(d otter.DeletionEvent[string, *Entry]) {
	u.bytes.Add(-d.Value.Size)
	if d.Cause == otter.CauseOverflow {
		u.evictions.Add(1)
		u.evictedBytes.Add(uint64(d.Value.Size))
	}
}
