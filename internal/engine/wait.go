package engine

import (
	"context"
	"time"

	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/tags"
)

// A flight whose key another process loads polls Redis, as well as waiting for a push: a push can be lost, and Redis pushes nothing when
// the lease of a process that has died ends. The interval grows. A short one costs little latency, a long one little load.
const (
	firstPoll   = 2 * time.Millisecond
	slowestPoll = 100 * time.Millisecond
)

// A leaseWait is how far a flight is in waiting for the leases of other processes.
type leaseWait struct {
	began   int64         // when the flight first asked Redis, on the cache's clock
	pause   time.Duration // until the next poll
	skipped bool          // the last pause was skipped
}

// awaitChange waits for a change of a key that another process loads, or for the next poll. It skips the pause where the value is in Redis
// already, but not twice in a row: a server that contradicts itself would be polled without a pause. It reports false if nobody waits for
// the flight any more.
func (e *Engine) awaitChange(ctx context.Context, w *leaseWait, call *flight.Call[flightKey, Outcome], changed <-chan struct{}, present bool) bool {
	skip := present && !w.skipped
	if !skip && !e.await(ctx, call, changed, w.pause) {
		return false
	}
	w.skipped, w.pause = skip, min(2*w.pause, slowestPoll)
	select {
	case <-changed: // what it announced is about to be read
	default:
	}
	return true
}

// await waits for a change or for the end of a pause. It reports false if nobody waits for the flight any more.
func (e *Engine) await(ctx context.Context, call *flight.Call[flightKey, Outcome], changed <-chan struct{}, pause time.Duration) bool {
	if e.Store.Tracked() {
		pause = max(pause, slowestPoll/2)
	}
	t := time.NewTimer(jittered(pause))
	defer t.Stop()
	call.Rest()
	defer call.Work()
	select {
	case <-ctx.Done():
		return false
	case <-changed:
	case <-t.C:
	}
	return true
}

// giveUpWaiting splits off the attempts that have waited for another process's lease for half of LoadTimeout. That process may be stuck,
// or no process may hold the lease. These attempts are loaded here without a lease, while there is still time for a load.
func (e *Engine) giveUpWaiting(m *tags.Snapshot, held []*attempt, began int64) (waiting, late []*attempt) {
	waited := time.Duration(e.Clock.Now() - began)
	for _, a := range held {
		if waited < a.Policy.LoadTimeout/2 {
			waiting = append(waiting, a)
			continue
		}
		a.storable, a.reason = false, ReasonLeaseHeld
		a.setJoinable(e, m)
		late = append(late, a)
	}
	return waiting, late
}

// renewFences takes new fences for the attempts whose fence this process has broken: a broken fence reports no further change.
func (e *Engine) renewFences(m *tags.Snapshot, held []*attempt, changed chan<- struct{}) {
	for _, a := range held {
		if a.fence.BrokenHere() {
			e.takeFences(a, m, changed)
		}
	}
}

// awaitFirst waits while the first connections to the servers of attempts are being made. It prevents this sequence:
//
//  1. A load begins while there is no connection, so it reads nothing in Redis and takes no lease.
//  2. The connection is made.
//  3. A second caller asks for the key. A load that began without Redis is not shared once Redis is connected, so this caller begins
//     another load. The value of the first one is stored nowhere.
func (e *Engine) awaitFirst(ctx context.Context, attempts ...*attempt) {
	if e.Store == nil || !e.Store.Connecting() {
		return
	}
	var names []string
	for _, a := range attempts {
		names = append(append(names, a.Key), a.Tags...)
	}
	e.Store.AwaitFirst(ctx, e.closes, names...)
}

// AwaitServers waits while the first connections to the servers of tags are being made; without tags, to all servers.
func (e *Engine) AwaitServers(ctx context.Context, tags ...string) {
	if e.Store != nil && e.Store.Connecting() {
		e.Store.AwaitFirst(ctx, e.closes, tags...)
	}
}
