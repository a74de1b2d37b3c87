// Package health logs each change of the state of the connection to Redis once, and says in words why Redis is not in use.
package health

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/gatewayz/aside/internal/loglimit"
	"github.com/gatewayz/aside/internal/redisstore"
)

// A Log logs each change of state once. Where the connection breaks and comes back again and again, it logs the first few changes and
// then one line in linePause: the latest state, with the number of changes that had no line. While Redis is unavailable, the Log asks
// for the state once in reasonPause, and logs the reason where it is another one than the last line gives: a connection breaks, for
// example, and then no other one can be made for another reason.
//
// Each node of a cluster has a Log of its own, which is quiet until the node is unavailable for the first time.
type Log struct {
	began  time.Time
	logger *slog.Logger
	node   string // the address of a node of a cluster; empty for Redis as a whole

	mu      sync.Mutex
	last    redisstore.State // guarded by mu
	pace                     // guarded by mu
	outage                   // guarded by mu
	ended   bool             // guarded by mu
	reason  string           // the reason in the last line, and its details; empty while Redis is in use; guarded by mu
	lookout                  // guarded by mu
	change  chan struct{}    // closed at the next change; nil while nobody waits for it; guarded by mu
	nodes   map[string]*Log  // by their addresses; guarded by mu
}

// A pace is how often lines are logged.
type pace struct {
	spent    time.Time   // when as many lines as may be logged at once can be logged again
	unlogged int         // changes since the last line, last among them
	later    *time.Timer // logs last; nil while all is logged
}

// An outage is the last time without Redis.
type outage struct {
	since time.Time     // zero while Redis is in use
	away  time.Duration // how long the last one was; 0 if there was none
	why   string        // the last known reason
	again int           // how many invalidations were to be sent again at its end
}

// A lookout looks whether the reason has become another one.
type lookout struct {
	now  func() redisstore.State // nil before Ask
	look *time.Timer             // nil where the last line has no reason
}

const (
	linePause   = 5 * time.Second
	lineBurst   = 4 // lines at once: two outages
	reasonPause = 10 * time.Second
)

// NewLog makes a Log.
func NewLog(logger *slog.Logger) *Log { return &Log{began: time.Now(), logger: logger} }

// Began returns when the Log was made.
func (l *Log) Began() time.Time { return l.began }

// Ask gives the function that returns the current state. The Log does not call it under its own lock.
func (l *Log) Ask(now func() redisstore.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = now
}

// Change returns a channel that is closed when the state changes next.
func (l *Log) Change() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.change == nil {
		l.change = make(chan struct{})
	}
	return l.change
}

// Changed logs a state that is another one than before, now or later. again is how many invalidations this process has to send again: those that Redis
// has not confirmed, or may have lost.
func (l *Log) Changed(s redisstore.State, again int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed(s, again)
}

// Node is Changed of a node of a cluster. gone says that the node is not used any more.
func (l *Log) Node(addr string, s redisstore.State, gone bool) {
	l.mu.Lock()
	n := l.nodes[addr]
	switch {
	case l.ended || n == nil && (gone || s.Up || s.Cause == nil):
		l.mu.Unlock()
		return
	case n == nil:
		n = &Log{began: time.Now(), logger: l.logger, node: addr}
		if l.nodes == nil {
			l.nodes = make(map[string]*Log)
		}
		l.nodes[addr] = n
	case gone:
		delete(l.nodes, addr)
	}
	l.mu.Unlock()
	if gone {
		n.Stop()
		return
	}
	n.Changed(s, 0)
}

// changed is Changed with the lock held.
func (l *Log) changed(s redisstore.State, again int) {
	l.last = s
	if l.change != nil {
		close(l.change)
		l.change = nil
	}
	l.unlogged++
	switch {
	case !s.Up:
		if l.since.IsZero() {
			l.since = time.Now()
		}
		l.why = Reason(s)
	case !l.since.IsZero():
		l.outage = outage{away: time.Since(l.since), why: l.why, again: again}
	}
	if l.later != nil || l.ended {
		return
	}
	if wait := l.wait(); wait > 0 {
		l.later = time.AfterFunc(wait, l.logLater)
		return
	}
	l.log()
}

func (l *Log) logLater() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.later = nil; !l.ended {
		l.log()
	}
}

// wait is how long to wait before a line may be logged. The lock is held.
func (l *Log) wait() time.Duration {
	return time.Until(l.spent.Add(-(lineBurst - 1) * linePause))
}

// log logs the last state. The lock is held.
func (l *Log) log() {
	if now := time.Now(); l.spent.Before(now) {
		l.spent = now
	}
	l.spent = l.spent.Add(linePause)
	ctx, attrs := context.Background(), l.attrs()
	l.unlogged = 0
	l.reason = ""
	if l.look != nil {
		l.look.Stop()
		l.look = nil
	}
	switch s := l.last; {
	case s.Up && l.node != "":
		l.logger.LogAttrs(ctx, slog.LevelInfo, "aside: connected to a node of the cluster", attrs...)
	case s.Up && s.Silent:
		l.logger.LogAttrs(ctx, slog.LevelWarn, "aside: connected to redis, which refuses PUBLISH: other processes may serve an old value", attrs...)
	case s.Up:
		l.logger.LogAttrs(ctx, slog.LevelInfo, "aside: connected to redis", attrs...)
	case l.node != "":
		l.logger.LogAttrs(ctx, slog.LevelWarn, "aside: a node of the cluster is unavailable", attrs...)
	default:
		l.reason = reasonOf(s)
		l.logger.LogAttrs(ctx, slog.LevelWarn, "aside: redis unavailable, serving from memory and loaders", attrs...)
		if !l.ended {
			l.look = time.AfterFunc(reasonPause, l.lookAgain)
		}
	}
}

// attrs are the attributes of a line about the last state. The line about the first connection has none. The lock is held.
func (l *Log) attrs() (list []slog.Attr) {
	s := l.last
	if l.node != "" {
		list = append(list, slog.String("node", l.node))
	}
	switch {
	case !s.Up:
		list = append(list, slog.String("cause", Reason(s)))
		if detail := redisstore.Detail(s.Cause); detail != "" {
			list = append(list, slog.String("error", detail))
		}
	case l.away > 0:
		list = append(list, slog.Duration("away", l.away), slog.String("cause", l.why))
		if l.node == "" {
			list = append(list, slog.Int("replayed", l.again))
		}
	}
	if s.Up && s.Silent {
		list = append(list, slog.Duration("max_age", redisstore.UntrackedLife))
	}
	return append(list, loglimit.Suppressed(int64(l.unlogged-1)))
}

// reasonOf is all that a line says about why Redis is unavailable: two answers of a server can differ in what Reason leaves out.
func reasonOf(s redisstore.State) string { return Reason(s) + redisstore.Detail(s.Cause) }

// lookAgain logs the reason why Redis is unavailable where it is another one than was logged, and looks again later.
func (l *Log) lookAgain() {
	l.mu.Lock()
	now := l.now
	l.mu.Unlock()
	var s redisstore.State
	if now != nil {
		s = now() // not under the lock: Changed is called under locks that now takes
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.ended || l.look == nil || l.last.Up: // the connection may be back, which is logged later
	case l.later == nil && !s.Up && s.Cause != nil && reasonOf(s) != l.reason:
		l.last, l.why = s, Reason(s)
		l.unlogged++
		l.log()
	default:
		l.look.Reset(reasonPause)
	}
}

// Stop drops the lines that wait, and logs nothing from now on.
func (l *Log) Stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended = true; l.later != nil {
		l.later.Stop()
	}
	if l.look != nil {
		l.look.Stop()
	}
	for _, n := range l.nodes {
		n.Stop()
	}
}
