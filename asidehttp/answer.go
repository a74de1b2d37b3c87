package asidehttp

import (
	"time"

	"github.com/gatewayz/aside"
)

// An answer is the body of the response to a POST.
type answer struct {
	Success     bool       `json:"success"`
	DryRun      bool       `json:"dry_run,omitempty"`
	Invalidated *count     `json:"invalidated,omitempty"`
	Matched     *count     `json:"matched,omitempty"`
	Warm        *warmOrder `json:"warm,omitempty"`
	Bypassed    *[]string  `json:"bypassed,omitempty"` // after an order to bypass the cache: what is bypassed now
	Timestamp   int64      `json:"timestamp"`          // milliseconds
}

// A count is how many entries were removed, or would be.
type count struct {
	RedisEntries  int64   `json:"redis_entries"`
	MemoryEntries *int64  `json:"memory_entries,omitempty"` // in memory mode
	Complete      bool    `json:"complete"`
	Confirmed     *bool   `json:"confirmed,omitempty"`
	TookMS        float64 `json:"took_ms"`
}

// counted puts the number of entries in the field for Redis or for memory mode.
func (h *handler) counted(n int64, complete bool, confirmed *bool) *count {
	c := &count{RedisEntries: n, Complete: complete, Confirmed: confirmed}
	if h.cache.Health().State == aside.StateMemory {
		c.RedisEntries, c.MemoryEntries = 0, &n
	}
	return c
}

// removed is the number of entries, in either mode.
func (c *count) removed() int64 {
	if c.MemoryEntries != nil {
		return *c.MemoryEntries
	}
	return c.RedisEntries
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
