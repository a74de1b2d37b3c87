package redisstore

import (
	"bytes"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/redis/rueidis"
)

// A session is one client, and what is known about it.
type session struct {
	client  rueidis.Client
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
	named                // guarded by mu
}

// named is which server Sentinels have named.
type named struct {
	primary string // empty without Sentinels: all connections go to the server
	dialed  string // last
	stays   bool   // the session ends when another one is named
	left    bool   // another one is
}

// probing is what the rounds of watch have found. The goroutine that makes the session uses it, then watch.
type probing struct {
	probedPairs map[[2]string]*probedPair
	sure        uint64 // the watermark before the last round that has found the data the same
}

// errReplaced means that Sentinels name another primary than that of the session.
var errReplaced = errors.New("the Sentinels name another primary")

// mayUse reports whether the session may use a primary. rueidis dials the one that Sentinels have named since, and sends all calls there at once:
//
//  1. The old primary confirms an invalidation that the other one does not know of.
//  2. The other one is named.
//  3. The same process reads there what it has invalidated.
//
// So a session has one primary, and ends with it. The next session sends the other one what it lacks before it reads there. Nor does a session go on with
// a primary whose connection has broken: it may have started again, without its last writes.
func (s *session) mayUse(addr string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stays && (addr != s.primary || s.broken.Load()) {
		return false
	}
	s.dialed = addr
	return true
}

// A purpose is what a client is for.
type purpose struct {
	first  bool     // calls go to it
	beside *session // which it must have the primary of; nil where that does not matter
}

// settle is called when the client of Sentinels has been made. A session that stays with its primary fails where another one was named meanwhile: calls
// may go there from now on. So does one beside a session that has another primary: what one confirms, the other does not know of.
func (s *session) settle(of purpose) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.primary = range s.client.Nodes() { // the server that the Sentinels have named
		break
	}
	s.stays = of.first || of.beside != nil
	if s.stays && s.dialed != s.primary || of.beside != nil && s.primary != of.beside.primary {
		return errReplaced
	}
	return nil
}

// A successor is a connection to a server that a Sentinel has named and that the session may not use. rueidis asks the server for its role (ROLE). If the
// server is a primary, found is called and the connection fails: rueidis would use it. If it is a replica, the Sentinel is behind the others, and rueidis
// asks another one.
type successor struct {
	net.Conn
	found func()
	asked atomic.Bool
	said  []byte // the end of what it has answered since; one goroutine reads
}

func (c *successor) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("ROLE\r\n")) {
		c.asked.Store(true)
	}
	return c.Conn.Write(b)
}

func (c *successor) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if !c.asked.Load() {
		return n, err
	}
	const primary = "\r\nmaster\r\n"
	c.said = append(c.said, b[:n]...)
	if bytes.Contains(c.said, []byte(primary)) {
		c.found()
		_ = c.Conn.Close()
		return 0, errReplaced
	}
	c.said = c.said[max(0, len(c.said)-len(primary)):]
	return n, err
}

// leave ends the session because another primary is named. The connections to the old one may take long to end.
func (s *session) leave(l *link) {
	s.mu.Lock()
	conns, left := slices.Clone(s.conns), s.left
	s.left = true
	s.mu.Unlock()
	if left {
		return // rueidis tries until it is closed
	}
	for _, w := range conns {
		w.endAll(w.lapseValidity, true)
	}
	s.lost(l, errReplaced)
}

// lost is called when a connection has broken.
func (s *session) lost(l *link, cause error) {
	s.broken.Store(true)
	signal(s.bulk.gone) // where this is a second client
	l.trip(s, errors.Join(errBroken, cause))
}
