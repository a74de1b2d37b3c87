package redisstore

import (
	"sync/atomic"
	"time"
)

// A grace is the time in which one operation may take longer than the limit, because the process has just started. It is short of processor
// time then, and so is the rest of its fleet, which has started with it. Without the grace each process would find Redis too slow and
// load for itself.
type grace struct {
	limit time.Duration // of one operation, when it is over
	over  atomic.Bool
	since atomic.Pointer[time.Time] // there was a connection
}

// begin notes that there is a connection.
func (g *grace) begin() {
	if g.since.Load() == nil {
		now := time.Now()
		g.since.CompareAndSwap(nil, &now)
	}
}

// answered notes that an operation took so long, with which the grace may be over. One that took the whole limit may have taken longer: that
// is all that the heartbeat of a cluster says.
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
