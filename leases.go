package aside

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/gatewayz/aside/internal/redisstore"
)

// A leaseKeeper renews the leases of one load.
type leaseKeeper struct{ loaded, stored chan struct{} }

// keepLeases renews the leases that slots hold until their values are stored. When ctx ends before they are loaded, because
// the load's time is up or nobody waits for it any more, it gives the leases back: a loader that hangs must not hold up the
// fleet.
func (c *Cache) keepLeases(ctx context.Context, slots []*slot) leaseKeeper {
	k := leaseKeeper{make(chan struct{}), make(chan struct{})}
	var held []*keptLease
	for _, s := range slots {
		if s.leased() {
			held = append(held, &keptLease{slot: s, until: time.Now().Add(c.opts.LeaseTTL)})
		}
	}
	if len(held) > 0 {
		c.background.Go(func() { c.renew(ctx, k, held) })
	}
	return k
}

// A keptLease is one that is renewed.
type keptLease struct {
	slot  *slot
	until time.Time // when it ends, as far as Redis has said
}

func (c *Cache) renew(ctx context.Context, k leaseKeeper, held []*keptLease) {
	renewals := time.NewTicker(c.opts.LeaseTTL / 3)
	defer renewals.Stop()
	loaded, ended := k.loaded, ctx.Done()
	var late <-chan struct{}
	for {
		select {
		case <-k.stored:
			return
		case <-loaded:
			loaded, ended = nil, nil // from now on the end of the flight says nothing of its values
			storing, cancel := c.timeToStore(held)
			defer cancel()
			late = storing.Done()
		case <-late: // a codec hangs, which must not hold up the fleet either
			for _, l := range held {
				l.slot.lost.Store(true)
				l.slot.call.Drop()
			}
			c.giveBack(requestsOf(held))
			return
		case <-ended:
			select {
			case <-loaded:
				continue // both at once
			default:
			}
			c.giveBack(requestsOf(held))
			return
		case <-renewals.C:
			if held = c.renewOnce(held); len(held) == 0 {
				renewals.Stop()
			}
		}
	}
}

// timeToStore bounds how long the leases of loaded values are renewed: for as long as a load may take, and what the largest ones need.
func (c *Cache) timeToStore(held []*keptLease) (context.Context, context.CancelFunc) {
	var encoding time.Duration
	for _, l := range held {
		encoding = max(encoding, l.slot.plan.loadTimeout)
	}
	sending, cancel := c.store.Budget(context.Background(), int64(c.opts.MaxValueBytes)*int64(len(held)), len(held))
	defer cancel()
	until, _ := sending.Deadline()
	return context.WithDeadline(context.Background(), until.Add(encoding))
}

// renewOnce renews leases, and returns those that may still be held. Whoever removes a lease, by an invalidation, say, does not
// know of the load, and Redis does not always tell of a lease that is gone: it tells of changes of the key, which was missing
// before and still is. So without the following the next callers would join the load:
//
//  1. a load of K runs here under the lease L;
//  2. Redis evicts L, or L ends while this process is stopped;
//  3. another process changes the source and invalidates K: there is nothing to remove, and nobody is told;
//  4. a caller comes here. It must not get what was loaded before step 3.
func (c *Cache) renewOnce(held []*keptLease) (left []*keptLease) {
	ctx, cancel := c.store.Budget(context.Background(), 0, len(held))
	defer cancel()
	asked := time.Now()
	renewed, errs := c.store.Renew(ctx, requestsOf(held)...)
	for i, l := range held {
		switch {
		case errs[i] == nil && !renewed[i]:
			l.slot.lost.Store(true) // nothing is sent that would be refused
			l.slot.call.Drop()
			continue
		case errs[i] == nil:
			l.until = asked.Add(c.opts.LeaseTTL)
		case !time.Now().Before(l.until):
			// A renewal that fails is no reason to stop: it may have been carried out, or the next one may come in time, and
			// the fill finds out. But it may also be too late by now.
			l.slot.call.Drop()
		}
		left = append(left, l)
	}
	return left
}

func requestsOf(held []*keptLease) (reqs []redisstore.Request) {
	for _, l := range held {
		reqs = append(reqs, redisstore.Request{Key: l.slot.key, Nonce: l.slot.nonce.String()})
	}
	return reqs
}

// release gives back, in the background, the leases that slots hold or may have been granted.
func (c *Cache) release(slots ...*slot) {
	var reqs []redisstore.Request
	for _, s := range slots {
		if s.asked() {
			reqs = append(reqs, redisstore.Request{Key: s.key, Nonce: s.nonce.String(), Quiet: s.quiet})
		}
	}
	if len(reqs) > 0 {
		c.background.Go(func() { c.giveBack(reqs) })
	}
}

// giveBack gives leases back, now or when Redis answers again.
func (c *Cache) giveBack(reqs []redisstore.Request) {
	ctx, cancel := c.store.Budget(context.Background(), 0, len(reqs))
	defer cancel()
	if errs := c.store.Release(ctx, reqs...); errs != nil {
		leases := make([]unreturnedLease, len(reqs))
		for i, r := range reqs {
			leases[i].Request = r
		}
		c.unreturned.add(leases, errs)
	}
}

// giveBackAgain sends the leases that could not be given back, in portions. It reports whether there were any, and whether
// they were given back.
func (c *Cache) giveBackAgain(ctx context.Context) (some, all bool) {
	left := c.unreturned.count()
	some, all = left > 0, true
	for ; left > 0; left -= replayAtOnce {
		if ctx.Err() != nil || !c.store.Up() {
			return some, false
		}
		leases := c.unreturned.take(min(left, replayAtOnce))
		reqs := make([]redisstore.Request, len(leases))
		for i, l := range leases {
			reqs[i] = l.Request
		}
		budget, cancel := c.store.Budget(ctx, 0, len(reqs))
		errs := c.store.Release(budget, reqs...)
		cancel()
		for i, err := range errs {
			if !errors.Is(err, redisstore.ErrUnavailable) { // one node of a cluster may be away for longer
				leases[i].tries++
			}
		}
		c.unreturned.add(leases, errs)
		all = all && errs == nil
	}
	return some, all
}

const (
	mostUnreturned = 65536 // leases; beyond that the oldest are left to end by themselves
	mostTries      = 12    // to give one back to a server that is used; they take about 5 s
)

// unreturned are leases that Redis may hold for loads that are over, because it did not say that it had them back: it has just
// hung, say. Until they are given back, whoever asks for their keys waits in vain, here and elsewhere.
type unreturned struct {
	wake chan struct{}

	mu     sync.Mutex
	leases []unreturnedLease // the first one is the next to be given back; guarded by mu
}

type unreturnedLease struct {
	redisstore.Request
	tries int // that have failed, of those after the first
}

// add adds those leases that have an error.
func (u *unreturned) add(leases []unreturnedLease, errs []error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, err := range errs {
		if err != nil && leases[i].tries < mostTries {
			u.leases = append(u.leases, leases[i])
		}
	}
	u.leases = u.leases[max(0, len(u.leases)-mostUnreturned):]
	if len(u.leases) > 0 {
		wake(u.wake)
	}
}

func (u *unreturned) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.leases)
}

// take takes out the first n, or as many as there still are.
func (u *unreturned) take(n int) (leases []unreturnedLease) {
	u.mu.Lock()
	defer u.mu.Unlock()
	n = min(n, len(u.leases))
	leases, u.leases = slices.Clone(u.leases[:n]), u.leases[n:]
	return leases
}

// withBudget runs an operation whose failure needs no handling.
func (c *Cache) withBudget(keys int, op func(context.Context) error) {
	ctx, cancel := c.store.Budget(context.Background(), 0, keys)
	defer cancel()
	_ = op(ctx)
}
