package redisstore

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/redis/rueidis"
)

// A session is one client, and what is known about it.
type session struct {
	client  rueidis.Client
	primary string      // the server's address where Sentinels have named it; empty: all connections go to the server
	broken  atomic.Bool // a connection to the server has broken
	tracked bool        // the server pushes changes to it
	places  places
	suspect chan struct{} // wakes examine; with room for one
	silence chan struct{} // signalled when traits.silent may have changed; with room for one
	bulk    bulk
	probing
	wake chan struct{} // wakes watch from suspendProbes; with room for one

	mu    sync.Mutex
	conns []*trackedConn // guarded by mu
}

// probing is what the rounds of watch have found. The goroutine that makes the session uses it, then watch.
type probing struct {
	probedPairs map[[2]string]*probedPair
	sure        uint64 // the watermark before the last round that has found the data the same
}

// lost is called when a connection has broken.
func (s *session) lost(l *link, cause error) {
	s.broken.Store(true)
	signal(s.bulk.gone) // where this is a second client
	l.trip(s, errors.Join(errBroken, cause))
}
