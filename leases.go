package aside

import (
	"context"

	"github.com/gatewayz/aside/internal/lease"
	"github.com/gatewayz/aside/internal/redisstore"
)

// holdLeases has the leases that slots hold renewed until their values are stored.
func (c *Cache) holdLeases(ctx context.Context, slots []*slot) lease.Held {
	var held []*lease.Lease
	for _, s := range slots {
		if s.leased() {
			held = append(held, &lease.Lease{
				Key: s.key, Nonce: s.nonce.String(), LoadTimeout: s.plan.loadTimeout, Doubted: s.call.Drop,
				Lost: func() {
					s.lost.Store(true) // nothing is sent that would be refused
					s.call.Drop()
				},
			})
		}
	}
	if c.leases == nil {
		return lease.Unheld()
	}
	return c.leases.Hold(ctx, held)
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
		c.leases.Release(reqs)
	}
}
