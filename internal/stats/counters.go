package stats

import "sync/atomic"

// Counters are those of one label. Hits in memory, and those of them that are drawn for a check, are so frequent that cores would
// fight over the cache line of one number.
type Counters struct {
	MemoryHits    Striped
	Unchecked     Striped
	Checked       atomic.Uint64
	Inconsistent  atomic.Uint64
	RedisHits     atomic.Uint64
	NegativeHits  atomic.Uint64
	StaleHits     atomic.Uint64
	Overloads     atomic.Uint64
	Misses        atomic.Uint64
	Fallbacks     atomic.Uint64
	Loads         atomic.Uint64
	LoadTime      atomic.Int64 // nanoseconds
	FillsRejected atomic.Uint64
	LoadErrors    atomic.Uint64
	RedisErrors   atomic.Uint64
	DecodeErrors  atomic.Uint64
	EncodeErrors  atomic.Uint64

	Refreshes        atomic.Uint64 // loads in the background that were begun
	RefreshErrors    atomic.Uint64 // of these, those that failed
	Unreturned       atomic.Int64  // loaders that run after their time limit
	RefreshesSkipped atomic.Uint64 // that were due, and not begun or not finished
	NotModified      atomic.Uint64 // values of which the source said that they are still right
	SoftTimeouts     atomic.Uint64 // callers that got an older value, since the load took too long
	StaleOnError     atomic.Uint64 // callers that got an older value in place of an error; SoftTimeouts included
}

// A Hit says how the cache answered a call.
type Hit struct {
	InMemory bool // from this process's memory, not from Redis
	Stale    bool // while Redis could not confirm the value
	NotFound bool // a cached "not found"
}

// CountHit counts a call that was answered from the cache. A stale hit and a "not found" are hits in memory or in Redis too.
func (c *Counters) CountHit(h Hit) {
	if h.InMemory {
		c.MemoryHits.Add()
	} else {
		c.RedisHits.Add(1)
	}
	if h.Stale {
		c.StaleHits.Add(1)
	}
	if h.NotFound {
		c.NegativeHits.Add(1)
	}
}

// CountMiss counts a call that was not answered from the cache.
func (c *Counters) CountMiss() { c.Misses.Add(1) }

// CountFallback counts a miss that loaded because Redis was unavailable or failed.
func (c *Counters) CountFallback() {
	c.Misses.Add(1)
	c.Fallbacks.Add(1)
}

// Calls is the number of calls: each is a hit in memory, a hit in Redis or a miss.
func (c *Counters) Calls() uint64 {
	return c.MemoryHits.Load() + c.RedisHits.Load() + c.Misses.Load()
}
