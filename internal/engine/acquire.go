package engine

import (
	"context"
	"errors"
	"time"

	"github.com/gatewayz/aside/internal/lease"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// takeLeases asks Redis for leases, and for the generations that are still unknown, in one round trip. mine are the attempts to load here,
// held those that another process is loading. present reports that a value of one of held is in Redis by now, so that it can be read at once.
//
// A previous value has to be there still when the lease is granted, with the generations of that moment. A load that waits for the lease, or gets
// none, has no previous value:
//
//  1. A load reads the value, to ask its source whether that is modified.
//  2. Another process invalidates the key, or a tag of the value. Redis confirms that.
//  3. The load is granted the lease, beside no value, with the new generation of the tag.
//  4. The source says that the value is not modified. Under that lease, the value would be stored as a new one.
func (e *Engine) takeLeases(ctx context.Context, m *tags.Snapshot, attempts []*attempt) (_, held []*attempt, present bool) {
	mine, asking := listOf(attempts), listOf(attempts)
	var reqs []redisstore.Request
	if len(attempts) > 1 {
		reqs = make([]redisstore.Request, 0, len(attempts))
	} else if len(attempts) == 1 {
		reqs = attempts[0].room().request[:0]
	}
	for _, a := range attempts {
		if !a.storable {
			a.prior = nil
			mine = append(mine, a) // not to be stored, so it needs no lease
			continue
		}
		a.newNonce()
		asking = append(asking, a)
		reqs = append(reqs, redisstore.Request{Key: a.Key, Nonce: a.nonceText, Rejected: a.rejected, Behind: a.old != nil})
	}
	if len(asking) == 0 {
		return mine, nil, false
	}
	ask := e.Store.Acquire
	if asking[0].Replace {
		ask = e.Store.Seize
	}
	lives := make(map[string]time.Duration) // of the generations of their tags
	for _, a := range asking {
		for _, tag := range a.Tags {
			lives[tag] = max(lives[tag], a.tagLife())
		}
	}
	asked := m.Asks(lives)
	grants, gens := ask(ctx, asked.Tags, reqs...)
	m.Given(ctx, asked, gens)
	for i, g := range grants {
		a := asking[i]
		if !g.Holds {
			a.prior = nil
		}
		switch {
		case g.Err != nil:
			e.redisFailed(ctx, a, g.Err)
			a.setJoinable(e, m)
			if errors.Is(g.Err, redisstore.ErrUnavailable) {
				a.nonce = wire.Nonce{} // the request was not sent
			}
			e.release(a) // in case it was granted all the same
			mine = append(mine, a)
		case g.Granted:
			a.granted, a.empty = g.Now, g.Empty
			if !a.capture(m) { // without its generations nothing can be stored
				e.release(a)
				a.granted, a.prior = 0, nil
			}
			judgePrior(m, a) // again: the generations are those of now
			a.setJoinable(e, m)
			mine = append(mine, a)
		default:
			present = present || g.Present
			held = append(held, a)
		}
	}
	return mine, held, present
}

// holdLeases renews the leases of attempts until their values are stored.
func (e *Engine) holdLeases(attempts []*attempt) *lease.Held {
	var few [1]*lease.Lease
	held := few[:0]
	for _, a := range attempts {
		if a.leased() {
			a.lease = lease.Lease{Key: a.Key, Nonce: a.nonceText, LoadTimeout: a.Policy.LoadTimeout, Holder: a}
			held = append(held, &a.lease)
		}
	}
	if e.leases == nil {
		return new(lease.Held)
	}
	return e.leases.Hold(held...)
}

// LeaseLost notes that the fill would be refused, so that it is not sent.
func (a *attempt) LeaseLost() {
	a.lost.Store(true)
	a.call.Forget()
}

// LeaseDoubted keeps later callers from joining the load.
func (a *attempt) LeaseDoubted() { a.call.Forget() }

// release releases, in the background, the leases that attempts hold or may have been granted.
func (e *Engine) release(attempts ...*attempt) {
	var reqs []redisstore.Request
	for _, a := range attempts {
		if a.asked() {
			reqs = append(reqs, redisstore.Request{Key: a.Key, Nonce: a.nonceText, Quiet: a.quiet, Pause: a.pause})
		}
	}
	if len(reqs) > 0 {
		e.leases.Release(reqs)
	}
}
