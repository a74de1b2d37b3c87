package aside

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/gatewayz/aside/internal/closing"
	"github.com/gatewayz/aside/internal/health"
)

func init() { closing.Of = func(c any) <-chan struct{} { return c.(*Cache).closes() } }

// closes returns a channel that is closed by Close, at once for a zero cache.
func (c *Cache) closes() <-chan struct{} {
	if c.engine != nil {
		return c.engine.Closing()
	}
	closed := make(chan struct{})
	close(closed)
	return closed
}

// A State is the state of a cache's use of Redis.
type State string

// The states of a cache.
const (
	StateMemory    State = "memory"    // no Redis is configured
	StateConnected State = "connected" // Redis is in use
	StateDegraded  State = "degraded"  // Redis is configured and unavailable: L1 entries are served for DegradedTTL, the rest is loaded, one load of a key at a time
)

// Health is the state of a cache, since when, and why.
type Health struct {
	State  State     `json:"state"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"`
	// Tracking says whether Redis pushes changes to this process. Without tracking, L1 keeps an entry for a second at most, or until the
	// process that changes it announces the change, and a process that waits for another one's load polls Redis.
	Tracking bool `json:"tracking"`
}

// Health returns the current state. A nil or closed cache is in StateDegraded, and Reason says so.
func (c *Cache) Health() Health {
	switch {
	case c == nil || c.engine == nil:
		return Health{State: StateDegraded, Reason: "the cache is nil or zero"}
	case c.closed.Load():
		return Health{State: StateDegraded, Reason: ErrClosed.Error()}
	case c.engine.Store == nil:
		return Health{State: StateMemory, Since: c.health.Began()}
	}
	s := c.engine.Store.State()
	if !s.Up {
		return Health{State: StateDegraded, Since: s.Since, Reason: health.Reason(s)}
	}
	h := Health{State: StateConnected, Since: s.Since, Tracking: c.engine.Store.Tracked()}
	if !h.Tracking {
		h.Reason = health.Untracked(s)
	}
	return h
}

// MemoryMetrics says how full the memory of a cache is. Entries and Bytes include expired values for some seconds.
type MemoryMetrics struct {
	Entries      int    `json:"entries"`
	Bytes        int64  `json:"bytes"` // of the values, as MaxBytes counts them
	MaxEntries   int    `json:"maxEntries"`
	MaxBytes     int64  `json:"maxBytes"`
	Evictions    uint64 `json:"evictions"` // values that made room for others, since New
	EvictedBytes uint64 `json:"evictedBytes"`
}

// LoadingMetrics says what loads a process makes at present.
type LoadingMetrics struct {
	Running          int `json:"running"`          // places of MaxLoads that are taken
	Queued           int `json:"queued"`           // loads that wait for a place
	Limit            int `json:"limit"`            // MaxLoads
	QueueLimit       int `json:"queueLimit"`       // MaxQueuedLoads
	LeasesHeld       int `json:"leasesHeld"`       // leases in Redis, from before the load until its value is stored
	LeasesUnreturned int `json:"leasesUnreturned"` // leases that Redis did not confirm to be released; they are released when it answers, or expire
}

// JournalMetrics says which invalidations of this process Redis has not confirmed. They are retried, and their keys are not read from Redis.
type JournalMetrics struct {
	Unconfirmed int           `json:"unconfirmed"` // keys, tags and patterns
	Patterns    int           `json:"patterns"`    // of these
	Oldest      time.Duration `json:"-"`           // how long the oldest one has waited; in the JSON oldestSeconds
}

// MarshalJSON adds Oldest in seconds.
func (m JournalMetrics) MarshalJSON() ([]byte, error) {
	type counts JournalMetrics
	return json.Marshal(struct {
		counts
		OldestSeconds float64 `json:"oldestSeconds"`
	}{counts(m), m.Oldest.Seconds()})
}

func (c *Cache) usage() (MemoryMetrics, LoadingMetrics, JournalMetrics) {
	u := c.engine.Usage()
	return MemoryMetrics{u.Memory.Entries, u.Memory.Bytes, u.Memory.MaxEntries, u.Memory.MaxBytes, u.Memory.Evictions, u.Memory.EvictedBytes},
		LoadingMetrics{u.Running, u.Queued, c.opts.MaxLoads, max(0, c.opts.MaxQueuedLoads), u.Held, u.Unreturned},
		JournalMetrics(u.Journal)
}

// process names this process for as long as it runs, and no other one.
var process = sync.OnceValue(func() string {
	host, _ := os.Hostname()
	return fmt.Sprintf("%s/%d/%d", host, os.Getpid(), time.Now().UnixNano())
})
