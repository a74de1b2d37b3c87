// Package loglimit keeps an event that can happen at every call from writing a log line at every call. Metrics count every event.
package loglimit

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Pause is how long a log line of one kind waits after the last one.
const Pause = 10 * time.Second

// A Limiter lets the first line of one kind through, and then one in Pause. It takes no lock. The zero value is ready.
type Limiter struct {
	next       atomic.Int64
	suppressed atomic.Int64
}

// Allow reports whether the line may be logged now, and how many lines were suppressed since the last one. The time is in nanoseconds, of a clock that
// never jumps.
func (l *Limiter) Allow(now int64) (suppressed int64, ok bool) {
	next := l.next.Load()
	if now < next || !l.next.CompareAndSwap(next, now+int64(Pause)) {
		l.suppressed.Add(1)
		return 0, false
	}
	return l.suppressed.Swap(0), true
}

// Suppressed is the attribute of a line that stands for others too. For none it is an empty group, which a slog.Record leaves out.
func Suppressed(lines int64) slog.Attr {
	if lines == 0 {
		return slog.Group("suppressed")
	}
	return slog.Int64("suppressed", lines)
}

// A Counter is a Limiter that also counts the events that had no line of their own. The zero value is ready.
type Counter struct {
	mu     sync.Mutex
	since  int       // events since the last line; guarded by mu
	logged time.Time // when the last line was logged; guarded by mu
}

// Count counts one event. It reports whether a line may be logged now, and how many events that line stands for.
func (c *Counter) Count() (events int, allowed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.since++
	events = c.since
	if allowed = time.Since(c.logged) >= Pause; allowed {
		c.since, c.logged = 0, time.Now()
	}
	return events, allowed
}
