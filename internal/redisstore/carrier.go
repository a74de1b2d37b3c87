package redisstore

import (
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// A carrier is a wire that tells whether tracked reads have gone out on it. rueidis gives each connection of a client a CacheStore,
// those to Sentinels included, and makes several while it connects, of which it drops those that do not serve. The end of one that
// has never carried a read is nothing to the session, and nobody has a voucher for it. Every connection that callers use carries
// one before they do: see readTracked.
type carrier struct {
	*trackedConn
	carries atomic.Bool
}

// Flight is called before a tracked read is sent.
func (c *carrier) Flight(key, cmd string, ttl time.Duration, now time.Time) (rueidis.RedisMessage, rueidis.CacheEntry) {
	c.carries.Store(true)
	return c.trackedConn.Flight(key, cmd, ttl, now)
}

// Close is called when the connection has broken.
func (c *carrier) Close(cause error) {
	if c.carries.Load() {
		c.trackedConn.Close(cause)
	}
}
