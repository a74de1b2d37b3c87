package redisstore

import (
	"sync/atomic"
	"time"
)

// serverClock is what this process knows of the server's clock. All times of values are the server's, so processes whose own
// clocks differ by an hour agree on how old a value is.
type serverClock struct {
	best atomic.Pointer[reading]
}

// A reading is one reading of the server's clock. The server read its clock at some moment between the request and the reply, so
// the reading is off by half the round trip at most.
type reading struct {
	server int64     // the server's time in µs
	within int64     // how far off server may be, µs
	at     time.Time // when; only its monotonic part is used, so a step of our clock does no harm
}

// trusted is how long a precise reading is preferred to a newer, less precise one. Clocks drift.
const trusted = time.Minute

// note learns from a reply that carries the server's time and came after a round trip that began at sent.
func (c *serverClock) note(sent time.Time, server int64) {
	trip := time.Since(sent)
	now := reading{server: server, within: trip.Microseconds()/2 + 1, at: sent.Add(trip / 2)}
	for {
		old := c.best.Load()
		if old != nil && !now.supersedes(old) {
			return // most readings take no memory
		}
		best := now
		if c.best.CompareAndSwap(old, &best) {
			return
		}
	}
}

// supersedes reports whether r replaces old. Where the two contradict each other, the server's clock was set, or another server
// has taken over: then the later reading is right, however precise the earlier one was.
func (r *reading) supersedes(old *reading) bool {
	later := r.at.Sub(old.at)
	off := r.server - old.server - later.Microseconds()
	if max(off, -off) > r.within+old.within {
		return later > 0
	}
	return r.within <= old.within || later > trusted
}

// Now estimates the server's time in µs, and how far off the estimate may be. Before the first reading ok is false.
func (c *serverClock) Now() (now, within int64, ok bool) {
	r := c.best.Load()
	if r == nil {
		return 0, 0, false
	}
	return r.server + time.Since(r.at).Microseconds(), r.within, true
}

// offset estimates how far the server's clock is before this process's, and how far off the estimate may be. Before the first reading both are 0.
func (c *serverClock) offset() (offset, within time.Duration) {
	r := c.best.Load()
	if r == nil {
		return 0, 0
	}
	now := time.Now() // once: a pause between two readings would pass for an offset
	return time.UnixMicro(r.server).Add(now.Sub(r.at)).Sub(now), time.Duration(r.within) * time.Microsecond
}

// Now estimates the time in µs of the server that has key, and how far off the estimate may be. ok is false before the first
// connection.
func (s *Store) Now(key string) (now, within int64, ok bool) {
	if l := s.table.Load().of(s.namespace.name(key)); l != nil {
		return l.clock.Now()
	}
	return 0, 0, false
}
