package redisstore

import (
	"context"
	"slices"
	"time"
)

// restAfter is how long nothing must be asked for until connections are tried no more. Some services bill by command.
const idleAfter = time.Minute

// An idling says when this process counts as idle.
type idling struct {
	calls func() uint64 // grows with each call of the users; nil: never idle
	after time.Duration // without a call
}

// An activity tells how long nothing has been asked for, and nothing was written down at a server.
type activity struct {
	calls func() uint64 // grows with each call; nil: there is always something to do
	reads func() uint64 // grows with each read that is to be vouched for: a Set reads what it has stored
	l     *link
	seen  uint64
	since time.Time
}

// quiet reports whether nothing has happened for so long.
func (a *activity) idle(life time.Duration) bool {
	if a.calls == nil {
		return false
	}
	now, seen := time.Now(), a.calls()+a.reads()+a.l.watermark.last.Load()
	if a.since.IsZero() || seen != a.seen {
		a.seen, a.since = seen, now
	}
	return now.Sub(a.since) >= life
}

// vouches reports whether there is something that one of the connections vouches for.
func (s *session) inUse() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.conns, (*trackedConn).inUse)
}

// rest has the session's connections vouch for nothing any more, and waits until one of them does again, or this process writes a mark
// down at the server: until then there is nothing that an unnoticed change could make old. It reports false when ctx ended first.
//
//  1. A call is counted after the last look at the counter, and its reply is given a voucher.
//  2. The vouchers end here. What the call has put into memory is read again by the next one.
//  3. That one's reply is given a new voucher, which wakes this.
func (s *session) suspendProbes(ctx context.Context) bool {
	select {
	case <-s.wake:
	default:
	}
	s.mu.Lock()
	wires := s.conns
	s.mu.Unlock()
	for _, w := range wires {
		if w.inUse() {
			w.lapse()
		}
	}
	select {
	case <-ctx.Done():
		return false
	case <-s.wake:
		return true
	}
}
