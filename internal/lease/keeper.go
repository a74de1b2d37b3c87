// Package lease renews the leases of loads until their values are stored, and gives leases back, also after trouble.
package lease

import (
	"context"
	"time"

	"github.com/gatewayz/aside/internal/redisstore"
)

// A Keeper renews the leases of a cache's loads, and gives them back.
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
	Lost        func()        // Redis says that it is not held any more, or it must not be used any more
	Doubted     func()        // it may have ended, as far as Redis has said

	until time.Time // when it ends, as far as Redis has said
}

// Held are the leases of one load. Loaded is closed when the loader has come back, and Stored when the values are stored.
type Held struct{ Loaded, Stored chan struct{} }

// Unheld is Held of a load that needs no lease.
func Unheld() Held { return Held{make(chan struct{}), make(chan struct{})} }

// Hold renews leases until their values are stored. When ctx ends before they are loaded, because the load's time is up or nobody waits for
// it any more, it gives the leases back: a loader that hangs must not hold up the other processes.
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
			loaded, ended = nil, nil // from now on the end of the flight says nothing of its values
			storing, cancel := k.timeToStore(leases)
			defer cancel()
			late = storing.Done()
		case <-late: // a codec hangs, which must not hold up other processes either
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

// renewOnce renews leases, and returns those that may still be held. Whoever removes a lease, by an invalidation, say, does not
// know of the load, and Redis does not always tell of a lease that is gone: it tells of changes of the key, which was missing
// before and still is. Without Lost and Doubted the next callers would join the load:
//
//  1. A load of K runs here under the lease L.
//  2. Redis evicts L, or L ends while this process is stopped.
//  3. Another process changes the source and invalidates K. There is nothing to remove, and nobody is told.
//  4. A caller comes here. It must not get what was loaded before step 3.
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
			// A renewal that fails is no reason to stop: it may have been carried out, or the next one may come in time, and
			// the fill finds out. But it may also be too late by now.
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
