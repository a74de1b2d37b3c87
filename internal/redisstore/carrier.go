package redisstore

import (
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// A carrier is a trackedConn that knows whether tracked reads were sent on it. rueidis gives each connection of a client a
// CacheStore, those to Sentinels included, and makes several while it connects, of which it closes those that do not serve. The
// end of a connection that has never carried a tracked read does not matter to the session: no read has a validity of it. Every
// connection carries a tracked read before callers use it: see readTracked.
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
