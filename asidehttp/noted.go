package asidehttp

import (
	"crypto/sha256"
	"sync"

	"github.com/gatewayz/aside/internal/loglimit"
)

// countersByKey has a counter of log lines for each valid key, so that no key hides the lines about another one. The zero value is ready.
type countersByKey struct {
	mu    sync.Mutex
	byKey map[[sha256.Size]byte]*loglimit.Counter // as many as there are configured keys; guarded by mu
}

// count counts one event of a key. See loglimit.Counter for the results.
func (c *countersByKey) count(key [sha256.Size]byte) (n int, due bool) {
	c.mu.Lock()
	own := c.byKey[key]
	if own == nil {
		if own = (&loglimit.Counter{}); c.byKey == nil {
			c.byKey = make(map[[sha256.Size]byte]*loglimit.Counter)
		}
		c.byKey[key] = own
	}
	c.mu.Unlock()
	return own.Count()
}

// noted limits the log lines about refused requests and shown values, so that many requests do not fill the log. All handlers of a cache share one. The zero
// value is ready.
type noted struct {
	refused    loglimit.Counter // requests without a valid key
	denied     countersByKey    // requests whose key lacks a scope
	turnedAway countersByKey    // orders that were refused because too many invalidations are pending
	seen       countersByKey    // values that were shown
}
