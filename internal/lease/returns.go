package lease

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/gatewayz/aside/internal/redisstore"
)

// Release releases leases in the background.
func (k *Keeper) Release(leases []redisstore.Request) {
	if len(leases) > 0 {
		k.run(func() { k.release(leases) })
	}
}

// ReleaseNow releases leases, and waits for Redis, but not longer than for any operation. Those that Redis does not confirm in that time are released
// in the background.
func (k *Keeper) ReleaseNow(leases ...redisstore.Request) { k.release(leases) }

// release releases leases, now or when Redis answers again.
func (k *Keeper) release(reqs []redisstore.Request) {
	ctx, cancel := k.store.Budget(context.Background(), 0, len(reqs))
	defer cancel()
	if errs := k.store.Release(ctx, reqs...); errs != nil {
		leases := make([]leaseToReturn, len(reqs))
		for i, r := range reqs {
			leases[i].Request = r
		}
		k.toReturn.add(leases, errs)
	}
}

// Usage returns how many leases are held, and how many could not be released yet.
func (k *Keeper) Usage() (held, unreturned int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for e := k.held.Front(); e != nil; e = e.Next() {
		held += len(e.Value.(*Held).leases)
	}
	return held, k.toReturn.count()
}

// Waiting has a signal when there are leases that could not be released: see ReleaseAgain.
func (k *Keeper) Waiting() <-chan struct{} { return k.toReturn.wake }

// ReleaseAgain releases the leases that could not be released before, in portions. It reports whether there were any, and whether they were
// released.
func (k *Keeper) ReleaseAgain(ctx context.Context) (some, all bool) {
	left := k.toReturn.count()
	some, all = left > 0, true
	for ; left > 0; left -= releasedAtOnce {
		if ctx.Err() != nil || !k.store.Up() {
			return some, false
		}
		leases := k.toReturn.take(min(left, releasedAtOnce))
		reqs := make([]redisstore.Request, len(leases))
		for i, l := range leases {
			reqs[i] = l.Request
		}
		budget, cancel := k.store.Budget(ctx, 0, len(reqs))
		errs := k.store.Release(budget, reqs...)
		cancel()
		for i, err := range errs {
			if !errors.Is(err, redisstore.ErrUnavailable) { // one node of a cluster may be unavailable for longer
				leases[i].tries++
			}
		}
		k.toReturn.add(leases, errs)
		all = all && errs == nil
	}
	return some, all
}

const (
	mostToReturn   = 65536 // leases; beyond that the oldest are left to expire
	mostTries      = 12    // to release one at a server that is in use; they take about 5 s
	releasedAtOnce = 1000
)

// leasesToReturn are leases of loads that are over, whose release Redis did not confirm, because it hung, for example. Until they are released,
// callers that ask for their keys wait for a load that does not run, in all processes.
type leasesToReturn struct {
	wake chan struct{}

	mu     sync.Mutex
	leases []leaseToReturn // the first one is released next; guarded by mu
}

type leaseToReturn struct {
	redisstore.Request
	tries int // that have failed, of those after the first
}

func newLeasesToReturn() *leasesToReturn { return &leasesToReturn{wake: make(chan struct{}, 1)} }

// add adds those leases that have an error.
func (u *leasesToReturn) add(leases []leaseToReturn, errs []error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, err := range errs {
		if err != nil && leases[i].tries < mostTries {
			u.leases = append(u.leases, leases[i])
		}
	}
	u.leases = u.leases[max(0, len(u.leases)-mostToReturn):]
	if len(u.leases) > 0 {
		select {
		case u.wake <- struct{}{}:
		default:
		}
	}
}

func (u *leasesToReturn) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.leases)
}

// take takes out the first n, or as many as there still are.
func (u *leasesToReturn) take(n int) (leases []leaseToReturn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	n = min(n, len(u.leases))
	leases, u.leases = slices.Clone(u.leases[:n]), u.leases[n:]
	return leases
}
