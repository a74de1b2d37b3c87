package redisstore

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/redis/rueidis"
)

// A session is one client, and what was noticed about it.
type session struct {
	client     rueidis.Client
	primary    string      // where its connections to the server go, which a Sentinel may have named; empty: they all do
	broken     atomic.Bool // one of them has gone
	tracked    bool        // the server tells it of changes
	places     places
	suspect    chan struct{} // wakes who examines whether the server still carries out what is needed, with room for one
	silence    chan struct{} // likewise: whether it lets this process announce changes has changed
	bulk       bulk
	probedKeys map[string]*probedKey // of whoever tries it: when it is made, then watch
	wake       chan struct{}         // wakes that one from its rest, with room for one

	mu    sync.Mutex
	conns []*trackedConn // guarded by mu
}

// lost is told that a connection has broken.
func (s *session) lost(l *link, cause error) {
	s.broken.Store(true)
	signal(s.bulk.gone) // where it is a second client
	l.trip(s, errors.Join(errBroken, cause))
}
