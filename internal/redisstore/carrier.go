package redisstore

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// A carrier is a trackedConn that knows whether tracked reads were made on it. rueidis gives each connection of a client a
// CacheStore, those to Sentinels included, and makes several while it connects, of which it closes those that do not serve. The
// end of a connection that has never carried a tracked read does not matter to the session: no read has a validity of it.
type carrier struct {
	*trackedConn
	carries atomic.Bool
}

// Flight is called before a tracked read is sent by itself.
func (c *carrier) Flight(key, cmd string, ttl time.Duration, now time.Time) (rueidis.RedisMessage, rueidis.CacheEntry) {
	c.carries.Store(true)
	return c.trackedConn.Flight(key, cmd, ttl, now)
}

// Update is called with the reply to any tracked read, also to one in a pipeline of plain commands, of which Flight is not told. Such a read may be
// the first one of its connection: where a session is about to end, rueidis may have connected again.
func (c *carrier) Update(key, cmd string, reply rueidis.RedisMessage) int64 {
	c.carries.Store(true)
	return c.trackedConn.Update(key, cmd, reply)
}

// Close is called when the connection has broken. A session lasts as long as its server: Sentinels may end their connections any number of times.
func (c *carrier) Close(cause error) {
	if c.carries.Load() {
		c.trackedConn.Close(cause)
		return
	}
	s := c.session
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = slices.DeleteFunc(slices.Clone(s.conns), func(w *trackedConn) bool { return w == c.trackedConn })
}
