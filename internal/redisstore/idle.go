package redisstore

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// idleAfter is how long a process makes no call until its connections are no longer probed. Some services bill by command.
const idleAfter = time.Minute

// An Idling says when this process counts as idle: connections are not probed then.
type Idling struct {
	Calls func() uint64 // grows with each call of the users; nil: never idle
	After time.Duration // without a call; a minute unless set
	Began func()        // called when validities have ended because this process is idle, after Gap; may be nil
}

func (i Idling) withDefaults() Idling {
	i.After = cmp.Or(i.After, idleAfter)
	if i.Began == nil {
		i.Began = func() {}
	}
	return i
}

// An activity measures how long there was no call, and no watermark was written.
type activity struct {
	calls func() uint64 // grows with each call; nil: never idle
	reads func() uint64 // grows with each tracked read: a Set reads the value that it has stored
	l     *link
	seen  uint64
	since time.Time
}

// idle reports whether nothing has happened for so long.
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

// inUse reports whether a validity of one of the connections is in use.
func (s *session) inUse() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.conns, (*trackedConn).inUse)
}

// suspendProbes ends all validities of the session's connections, and waits until one is handed out again, or this process writes a
// watermark at the server. Until then no value depends on an unnoticed change. It calls idle for each connection whose validities it
// ends. It reports false when ctx ended first.
//
//  1. A call is counted after the last look at the counter, and its reply gets a validity.
//  2. The validities end here. The value that the call has put into memory is read again by the next call.
//  3. The reply of that call gets a new validity, which wakes this function.
func (s *session) suspendProbes(ctx context.Context, idle func()) bool {
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
			idle()
		}
	}
	select {
	case <-ctx.Done():
		return false
	case <-s.wake:
		return true
	}
}
