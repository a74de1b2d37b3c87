// Package health logs each change of the state of the connection to Redis once, and says in words why Redis is not in use.
package health

import (
	"log/slog"
	"sync"
	"time"

	"github.com/gatewayz/aside/internal/redisstore"
)

// A Log logs each change of state once. Where the connection breaks and comes back again and again, it logs the first few changes and
// then one line in linePause: the latest state, with the number of changes that had no line. While Redis is unavailable, the Log asks
// for the state once in reasonPause, and logs the reason where it is another one than the last line gives: a connection breaks, for
// example, and then no other one can be made for another reason.
type Log struct {
	began  time.Time
	logger *slog.Logger

	mu       sync.Mutex
	now      func() redisstore.State // nil before Ask; guarded by mu
	spent    time.Time               // when as many lines as may be logged at once can be logged again; guarded by mu
	last     redisstore.State        // guarded by mu
	unlogged int                     // changes since the last line, last among them; guarded by mu
	later    *time.Timer             // logs last; nil while all is logged; guarded by mu
	ended    bool                    // guarded by mu
	reason   string                  // the reason in the last line, and its details; empty while Redis is in use; guarded by mu
	look     *time.Timer             // looks for another reason; nil where the last line has none; guarded by mu
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

// Changed logs a state that is another one than before, now or later.
func (l *Log) Changed(s redisstore.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = s
	l.unlogged++
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
	var more []any
	if l.unlogged > 1 {
		more = []any{"changes_not_logged", l.unlogged - 1}
	}
	l.unlogged = 0
	l.reason = ""
	if l.look != nil {
		l.look.Stop()
		l.look = nil
	}
	switch s := l.last; {
	case s.Up && s.Silent:
		l.logger.Warn("aside: connected to redis, which refuses PUBLISH: other processes may serve an old value for up to "+
			redisstore.UntrackedLife.String(), more...)
	case s.Up:
		l.logger.Info("aside: connected to redis", more...)
	default:
		l.reason = reasonOf(s)
		why := []any{"reason", Reason(s)}
		if detail := redisstore.Detail(s.Cause); detail != "" {
			why = append(why, "error", detail)
		}
		l.logger.Warn("aside: redis unavailable, serving from memory and loaders", append(why, more...)...)
		if !l.ended {
			l.look = time.AfterFunc(reasonPause, l.lookAgain)
		}
	}
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
		l.last = s
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
}
