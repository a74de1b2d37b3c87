package aside

import (
	"time"

	"github.com/gatewayz/aside/internal/health"
)

// A State is how a cache stands.
type State string

// The states of a cache.
const (
	StateMemory    State = "memory"    // no Redis is configured
	StateConnected State = "connected" // Redis is in use
	StateDegraded  State = "degraded"  // Redis is configured but away: what memory has is served for DegradedTTL, the rest is loaded, one load a key at a time
)

// Health tells how a cache stands, since when, and why.
type Health struct {
	State  State     `json:"state"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"`
	// Tracking is whether Redis tells this process of changes. Where it does not, memory keeps what was read for a second at
	// most, less if the process that changes it says so, and waits for other processes' loads are polls.
	Tracking bool `json:"tracking"`
}

// Health returns how the cache stands now. Of a nil or closed cache it says so in Reason, with StateDegraded.
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
