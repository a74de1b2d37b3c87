package aside

import (
	"context"
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
	if reqs := leaseRequests(slots, (*slot).leased); len(reqs) > 0 {
		c.background.Go(func() { c.renew(ctx, k, reqs) })
	}
	return k
}

func (c *Cache) renew(ctx context.Context, k leaseKeeper, reqs []redisstore.Request) {
	renewals := time.NewTicker(c.opts.LeaseTTL / 3)
	defer renewals.Stop()
	loaded, ended := k.loaded, ctx.Done()
	for {
		select {
		case <-k.stored:
			return
		case <-loaded:
			loaded, ended = nil, nil // from now on the end of the flight says nothing of its values
		case <-ended:
			select {
			case <-loaded:
				continue // both at once
			default:
			}
			c.giveBack(reqs)
			return
		case <-renewals.C:
			// A renewal that fails is no reason to stop: the next one may come in time.
			c.withBudget(len(reqs), func(ctx context.Context) error { return c.store.Renew(ctx, reqs...) })
		}
	}
}

// release gives back, in the background, the leases that slots hold or may have been granted.
func (c *Cache) release(slots ...*slot) {
	if reqs := leaseRequests(slots, (*slot).asked); len(reqs) > 0 {
		c.background.Go(func() { c.giveBack(reqs) })
	}
}

func leaseRequests(slots []*slot, which func(*slot) bool) (reqs []redisstore.Request) {
	for _, s := range slots {
		if which(s) {
			reqs = append(reqs, redisstore.Request{Key: s.key, Nonce: s.nonce.String()})
		}
	}
	return reqs
}

// giveBack gives leases back, now or when Redis answers again.
func (c *Cache) giveBack(reqs []redisstore.Request) {
	ctx, cancel := c.store.Budget(context.Background(), 0, len(reqs))
	defer cancel()
	c.unreturned.add(0, reqs, c.store.Release(ctx, reqs...))
}

// giveBackAgain sends some of the leases that could not be given back. It reports whether there were any, and whether they
// were given back.
func (c *Cache) giveBackAgain(ctx context.Context) (some, all bool) {
	if !c.store.Up() {
		return !c.unreturned.none(), false
	}
	reqs, tries := c.unreturned.take()
	if len(reqs) == 0 {
		return false, false
	}
	ctx, cancel := c.store.Budget(ctx, 0, len(reqs))
	defer cancel()
	errs := c.store.Release(ctx, reqs...)
	c.unreturned.add(tries+1, reqs, errs)
	return true, errs == nil
}

const (
	mostUnreturned = 65536 // leases; those for which there is no room end by themselves
	mostTries      = 12    // to give one back to a Redis that answers others; they take longer than it lives, as a rule
)

// unreturned are leases that Redis may hold for loads that are over, because it did not say that it had them back: it has just
// hung, say. Until they are given back, whoever asks for their keys waits for nothing, here and elsewhere.
type unreturned struct {
	wake chan struct{}

	mu     sync.Mutex
	leases [mostTries][]redisstore.Request // by how often they were tried again; guarded by mu
	count  int                             // guarded by mu
}

// add adds those of reqs that have an error.
func (u *unreturned) add(tries int, reqs []redisstore.Request, errs []error) {
	if errs == nil || tries >= mostTries {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, r := range reqs {
		if errs[i] != nil && u.count < mostUnreturned {
			u.leases[tries] = append(u.leases[tries], r)
			u.count++
		}
	}
	wake(u.wake)
}

func (u *unreturned) none() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.count == 0
}

// take takes out as many as are sent in one round trip, of those that were tried least.
func (u *unreturned) take() (reqs []redisstore.Request, tries int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for tries, leases := range u.leases {
		if n := min(len(leases), replayAtOnce); n > 0 {
			u.leases[tries] = slices.Clone(leases[n:])
			u.count -= n
			return leases[:n], tries
		}
	}
	return nil, 0
}

// withBudget runs an operation whose failure needs no handling.
func (c *Cache) withBudget(keys int, op func(context.Context) error) {
	ctx, cancel := c.store.Budget(context.Background(), 0, keys)
	defer cancel()
	_ = op(ctx)
}
