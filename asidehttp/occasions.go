package asidehttp

import (
	"sync"
	"time"
)

// occasions counts what has a line in the log at most once in refusedPause. The zero value is ready.
type occasions struct {
	mu       sync.Mutex
	since    int       // the last line; guarded by mu
	reported time.Time // when that was; guarded by mu
}

// count reports whether a line is due, and how many occasions it stands for.
func (o *occasions) count() (n int, due bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.since++
	n = o.since
	if due = time.Since(o.reported) >= refusedPause; due {
		o.since, o.reported = 0, time.Now()
	}
	return n, due
}
