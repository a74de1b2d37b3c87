package redisstore

import (
	"sync/atomic"
	"time"
)

// limits are how long operations may take.
type limits struct {
	opTimeout time.Duration // one operation on small values
	grace     grace
}

// A grace is the time after the start of the process in which an operation may take longer than the limit. The process is short of
// processor time then, and so is the rest of its fleet, which has started at once. Without the grace each process would find Redis
// too slow and load for itself.
type grace struct {
	limit time.Duration // of one operation, after the grace
	over  atomic.Bool
	since atomic.Pointer[time.Time] // since when there has been a connection
}

// begin notes that there is a connection.
func (g *grace) begin() {
	if g.since.Load() == nil {
		now := time.Now()
		g.since.CompareAndSwap(nil, &now)
	}
}

// answered notes how long an operation took; a fast one may end the grace. An operation that took the whole limit may have taken
// longer: the heartbeat of a cluster reports no more than the limit.
func (g *grace) answered(took time.Duration) {
	if took < g.limit && !g.over.Load() && g.since.Load() != nil {
		g.over.Store(true)
	}
}

// now is how long an operation on small values may take.
func (g *grace) now() time.Duration {
	if g.over.Load() {
		return g.limit
	}
	if since := g.since.Load(); since != nil && time.Since(*since) > firstSteps*firstWait {
		g.over.Store(true)
		return g.limit
	}
	return max(g.limit, firstWait)
}
