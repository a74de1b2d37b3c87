package aside

import (
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
