package redisstore

import (
	"sync/atomic"
	"time"
)

// A grace is the time in which one operation may take longer than the limit, since the process has just started. It is short of processor time
// then, and so are the others of its fleet, which have all been started at once. Without it each of them finds Redis too slow, and loads
// for itself what one of them could have loaded for all.
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

// answered notes that an operation took so long, with which the grace may be over.
func (g *grace) answered(took time.Duration) {
	if took <= g.limit && !g.over.Load() && g.since.Load() != nil {
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
