// Package lease renews the leases of loads until their values are stored, and releases leases, also after an outage.
package lease

import (
	"context"
	"time"

	"github.com/gatewayz/aside/internal/redisstore"
)

// A Keeper renews and releases the leases of a cache's loads.
type Keeper struct {
	store    *redisstore.Store
	life     time.Duration   // of a lease
	maxValue int64           // bytes of the largest value
	run      func(f func())  // runs f in the background
	toReturn *leasesToReturn // that Redis did not confirm
}

// NewKeeper makes one. Leases live for life, values have at most maxValue bytes, and run runs a function in the background.
func NewKeeper(store *redisstore.Store, life time.Duration, maxValue int, run func(f func())) *Keeper {
	return &Keeper{store: store, life: life, maxValue: int64(maxValue), run: run, toReturn: newLeasesToReturn()}
}

// A Lease is one that a load holds.
type Lease struct {
	Key, Nonce  string
	LoadTimeout time.Duration // bounds how long its value may take to encode
	Lost        func()        // the lease is no longer held, or must not be used any more
	Doubted     func()        // the lease may have expired: Redis has not confirmed a renewal in time

	until time.Time // when it expires by the last reply of Redis
}

// Held are the leases of one load. The load closes Loaded when the loader has returned, and Stored when the values are stored.
type Held struct{ Loaded, Stored chan struct{} }

// Unheld is Held of a load that needs no lease.
func Unheld() Held { return Held{make(chan struct{}), make(chan struct{})} }

// Hold renews leases until their values are stored. If ctx ends before the values are loaded, because the load's time is up or no caller waits
// any more, Hold releases the leases: a loader that hangs must not block other processes.
func (k *Keeper) Hold(ctx context.Context, leases []*Lease) Held {
	h := Unheld()
	for _, l := range leases {
		l.until = time.Now().Add(k.life)
	}
	if len(leases) > 0 {
		k.run(func() { k.renew(ctx, h, leases) })
	}
	return h
}

func (k *Keeper) renew(ctx context.Context, h Held, leases []*Lease) {
	renewals := time.NewTicker(k.life / 3)
	defer renewals.Stop()
	loaded, ended := h.Loaded, ctx.Done()
	var late <-chan struct{}
	for {
		select {
		case <-h.Stored:
			return
		case <-loaded:
			loaded, ended = nil, nil // the values are loaded, so the end of the flight no longer matters
			storing, cancel := k.timeToStore(leases)
			defer cancel()
			late = storing.Done()
		case <-late: // a codec hangs, which must not block other processes either
			for _, l := range leases {
				l.Lost()
			}
			k.release(requestsOf(leases))
			return
		case <-ended:
			select {
			case <-loaded:
				continue // both at once
			default:
			}
			k.release(requestsOf(leases))
			return
		case <-renewals.C:
			if leases = k.renewOnce(leases); len(leases) == 0 {
				renewals.Stop()
			}
		}
	}
}

// timeToStore bounds how long the leases of loaded values are renewed: for as long as a load may take, and what the largest values need.
func (k *Keeper) timeToStore(leases []*Lease) (context.Context, context.CancelFunc) {
	var encoding time.Duration
	for _, l := range leases {
		encoding = max(encoding, l.LoadTimeout)
	}
	sending, cancel := k.store.Budget(context.Background(), k.maxValue*int64(len(leases)), len(leases))
	defer cancel()
	until, _ := sending.Deadline()
	return context.WithDeadline(context.Background(), until.Add(encoding))
}

// renewOnce renews leases, and returns those that may still be held. Redis does not always push the loss of a lease: it pushes changes of the
// key, which was missing before and still is. Without Lost and Doubted later callers would join the load:
//
//  1. A load of K runs here under the lease L.
//  2. Redis evicts L, or L expires while this process is suspended.
//  3. Another process changes the source and invalidates K. There is nothing to remove, and no process is notified.
//  4. A caller comes here. It must not get the value that was loaded before step 3.
func (k *Keeper) renewOnce(leases []*Lease) (left []*Lease) {
	ctx, cancel := k.store.Budget(context.Background(), 0, len(leases))
	defer cancel()
	asked := time.Now()
	renewed, errs := k.store.Renew(ctx, requestsOf(leases)...)
	for i, l := range leases {
		switch {
		case errs[i] == nil && !renewed[i]:
			l.Lost()
			continue
		case errs[i] == nil:
			l.until = asked.Add(k.life)
		case !time.Now().Before(l.until):
			// A failed renewal does not end the lease: it may have been carried out, or the next one may be in time, and
			// the fill finds out. But the lease may also have expired by now.
			l.Doubted()
		}
		left = append(left, l)
	}
	return left
}

func requestsOf(leases []*Lease) (reqs []redisstore.Request) {
	for _, l := range leases {
		reqs = append(reqs, redisstore.Request{Key: l.Key, Nonce: l.Nonce})
	}
	return reqs
}
