package stats

import (
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/histogram"
)

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

	Misses     [Causes]atomic.Uint64  // calls that were not answered from the cache, by cause
	Endings    [Endings]atomic.Uint64 // loader calls that have ended, by how
	LoadTimes  histogram.Times        // of the calls in Endings
	CallTimes  histogram.Times        // of calls that memory did not answer
	ValueBytes histogram.Sizes        // of stored values
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
func (c *Counters) CountMiss(why Cause) { c.Misses[why].Add(1) }

// CountFallback counts a miss that loaded because Redis was unavailable or failed.
func (c *Counters) CountFallback(why Cause) {
	c.CountMiss(why)
	c.Fallbacks.Add(1)
}

// CountEnd counts a loader call that has ended.
func (c *Counters) CountEnd(how Ending, took time.Duration) {
	c.Endings[how].Add(1)
	c.LoadTimes.Observe(took)
}

// AllMisses is the number of misses of all causes.
func (c *Counters) AllMisses() (sum uint64) {
	for why := range c.Misses {
		sum += c.Misses[why].Load()
	}
	return sum
}

// Calls is the number of calls: each is a hit in memory, a hit in Redis or a miss.
func (c *Counters) Calls() uint64 {
	return c.MemoryHits.Load() + c.RedisHits.Load() + c.AllMisses()
}
