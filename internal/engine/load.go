package engine

import (
	"context"

	"github.com/gatewayz/aside/internal/tags"
)

// lead takes the keys of one flight along the load path. Each step passes on only the attempts that it could not answer:
//
//  1. near (near.go): take the fences, then look into memory again.
//  2. read (read.go): read the values in Redis, and the generations of their tags.
//  3. lease (acquire.go): take a lease for each key that this process is to load.
//  4. load (loader.go): call the loader.
//  5. share (loader.go): give each waiting caller its value.
//  6. fill (fill.go): store the values under their leases.
//  7. wait (wait.go): for keys whose lease another process holds, wait for a change, and go back to step 2.
func (e *Engine) lead(ctx context.Context, attempts []*attempt, load LoadFunc) {
	m := e.prepare(attempts)
	changed := make(chan struct{}, 1) // gets a message when one of the keys changes
	defer endFences(m, attempts)

	attempts, bypassing := e.splitBypassing(attempts, m)
	if len(attempts) > 0 {
		e.awaitFirst(ctx, attempts...)
	}
	pending := e.recheckNear(ctx, attempts, m, changed)
	if e.Store == nil {
		e.captureLocal(m, pending)
		e.loadAndShare(ctx, m, e.refuseBackedOff(append(pending, bypassing...)), load, e.admit)
		return
	}

	w := leaseWait{began: e.Clock.Now(), pause: firstPoll}
	for {
		var mine, held []*attempt
		var present bool
		if len(pending) > 0 {
			mine, held, present = e.readAndLease(ctx, m, pending)
		}
		held, late := e.giveUpWaiting(m, held, w.began)
		mine = append(append(mine, late...), e.refuseBackedOff(bypassing)...)
		bypassing = nil
		// This flight loads and shares its own keys before it waits for keys that another process loads. Otherwise two
		// batches that each hold a key of the other's would wait for each other.
		e.loadAndShare(ctx, m, e.shareStale(mine), load, e.admit)
		if len(held) == 0 || ctx.Err() != nil {
			return
		}
		if !e.awaitChange(ctx, &w, held[0].call, changed, present) {
			return
		}
		e.renewFences(m, held, changed)
		pending = held
	}
}

// readAndLease reads values in Redis and takes leases for the missing ones. Both steps share one budget. mine are the attempts to load
// here. held are those whose lease another process holds; present reports whether a value of one of them is in Redis by now.
func (e *Engine) readAndLease(ctx context.Context, m *tags.Snapshot, pending []*attempt) (mine, held []*attempt, present bool) {
	// The budget does not end with ctx: a lease whose request was cut off would be held by no load.
	budget, cancel := e.detachedBudget(ctx, pending...)
	defer cancel()
	pending = e.refuseBackedOff(e.readStore(budget, m, pending, shareHit))
	after, cancelAfter := e.Store.More(budget, 0, 1) // reading chunks may have used up the budget
	defer cancelAfter()
	return e.takeLeases(after, m, pending)
}
