package engine

import (
	"context"
	"time"

	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/tags"
)

// lead takes the keys of one flight along the load path: near, read, lease, load, share, fill. Each step hands on only what
// it could not answer.
func (e *Engine) lead(ctx context.Context, attempts []*attempt, load LoadFunc) {
	m := e.tags.Snapshot()
	wake := make(chan struct{}, 1)
	defer func() {
		for _, a := range attempts {
			a.fence.End()
		}
		m.End()
	}()
	e.awaitFirst(ctx, attempts...)
	pending := e.recheckNear(ctx, attempts, m, wake)
	if e.Store == nil {
		m.Renew(true)
		m.Local()
		for _, a := range pending {
			m.Capture(&a.captured, a.Tags)
			a.setJoinable(e, m)
		}
		e.loadAndShare(ctx, m, e.holdBack(pending), load)
		return
	}

	began := e.Clock.Now()
	lookedAgain := false // at once, the last time: not twice, or a server that contradicts itself would be asked without a pause
	for pause := firstPoll; ; pause = min(2*pause, slowestPoll) {
		// Redis is asked whether or not somebody still waits: a lease whose request was cut off would be held by nobody.
		budget, cancel := e.budget(context.WithoutCancel(ctx), pending...)
		pending = e.holdBack(e.readStore(budget, m, pending, shareHit))
		after, cancelAfter := e.Store.More(budget, 0, 1) // chunks may have taken longer than was foreseen
		mine, held, again := e.takeLeases(after, m, pending)
		cancelAfter()
		cancel()
		held, late := e.waitedEnough(m, held, began)
		mine = append(mine, late...)
		// What is led is loaded and shared before anything that another process loads is waited for: two batches that
		// each hold a key of the other's would wait for each other.
		e.loadAndShare(ctx, m, e.shareStale(mine), load)
		if len(held) == 0 || ctx.Err() != nil {
			return
		}
		if again = again && !lookedAgain; !again && !e.await(ctx, held[0].call, wake, pause) {
			return
		}
		lookedAgain = again
		select {
		case <-wake: // whatever it was about is read now
		default:
		}
		for _, a := range held {
			if a.fence.BrokenHere() { // it has told what it had to tell
				e.fence(a, m, wake)
			}
		}
		pending = held
	}
}

// waitedEnough tells those attempts apart that have waited for another process's lease for half of the time that a load may take. That
// one may be stuck, or the lease nobody's; they are loaded without one while there is still time to.
func (e *Engine) waitedEnough(m *tags.Snapshot, held []*attempt, began int64) (waiting, enough []*attempt) {
	waited := time.Duration(e.Clock.Now() - began)
	for _, a := range held {
		if waited < a.Policy.LoadTimeout/2 {
			waiting = append(waiting, a)
			continue
		}
		a.storable, a.reason = false, "another process has held the lease for too long"
		a.setJoinable(e, m)
		enough = append(enough, a)
	}
	return waiting, enough
}

const (
	// Another process's load is looked at when Redis tells of a change, and in growing intervals: pushes can be lost, and
	// the end of a lease whose holder has died is told to nobody. A short interval costs little latency, a long one little
	// load.
	firstPoll   = 2 * time.Millisecond
	slowestPoll = 100 * time.Millisecond
)

// await waits until something happens to a key that another process loads. It reports false if nobody waits any more.
func (e *Engine) await(ctx context.Context, call *flight.Call[flightKey, Outcome], wake <-chan struct{}, pause time.Duration) bool {
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
	case <-wake:
	case <-t.C:
	}
	return true
}

// shareHit gives what was found to those who wait, and to nobody who comes later: the flight may go on for other keys,
// while the value grows old.
func shareHit(a *attempt, out Outcome) {
	a.call.Forget()
	a.call.Resolve(out, nil)
}

// awaitFirst waits while the first connections to the servers of attempts are being made. Without it:
//
//  1. a load begins while there is no connection, so it reads nothing in Redis and takes no lease;
//  2. there is a connection;
//  3. a caller comes. A load that has begun without Redis is not shared once Redis is there: the caller begins another one, and the
//     value of the first one is stored nowhere.
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

// AwaitServers waits while the first connections are being made, for what is about tags or about all that there is in Redis.
func (e *Engine) AwaitServers(ctx context.Context, tags ...string) {
	if e.Store != nil && e.Store.Connecting() {
		e.Store.AwaitFirst(ctx, e.closes, tags...)
	}
}
