package aside

import (
	"context"
)

// A Receipt tells what an invalidation did.
type Receipt struct {
	// Removed is how many values were removed: those in memory, or those in Redis where a cache has one.
	Removed int64
	// Confirmed is whether Redis has carried it out for all keys. It is always true in memory mode.
	Confirmed bool
}

// Invalidate removes keys from the cache. Once it has returned a confirmed receipt, this process reads no older value, and the
// loads that were under way when it was called are not stored, here or in any other process; those who were already waiting
// for such a load still get its value.
//
// The error is for an invalid key, in which case nothing is invalidated, and for a nil or closed cache. Redis being away is
// not an error: the receipt is then not confirmed, and a value in Redis may live until its TTL ends. An invalidation is
// carried out even if ctx has ended, since what it is about has changed all the same; it is bounded by Options.OpTimeout.
func (c *Cache) Invalidate(ctx context.Context, keys ...Key) (Receipt, error) {
	if err := c.usable(); err != nil {
		return Receipt{}, err
	}
	slots := make([]*slot, len(keys))
	for i, key := range keys {
		s, _, err := newSlot[any](ctx, c, key, nil)
		if err != nil {
			return Receipt{}, err
		}
		slots[i] = s
	}
	if len(keys) == 0 {
		return Receipt{Confirmed: true}, nil
	}
	removed, err := c.remove(ctx, slots)
	return Receipt{Removed: removed, Confirmed: err == nil}, nil
}

// remove takes keys out of wherever values are kept, and out of reach of those who come later.
func (c *Cache) remove(ctx context.Context, slots []*slot) (removed int64, err error) {
	keys := make([]string, len(slots))
	for i, s := range slots {
		keys[i] = s.key
	}
	// Last: a flight that began before the values were gone may have seen an old one.
	defer c.forget(keys...)
	if c.near != nil {
		for _, key := range keys {
			if c.near.Delete(key) {
				removed++
			}
		}
		return removed, nil
	}
	ctx, cancel := c.store.Budget(context.WithoutCancel(ctx), 0, len(keys))
	defer cancel()
	removed, err = c.store.Remove(ctx, keys...)
	if err != nil {
		for _, s := range slots {
			s.plan.counts.redisErrors.Add(1)
		}
	}
	return removed, err
}

// forget keeps later callers from joining the flights of keys.
func (c *Cache) forget(keys ...string) {
	gone := make(map[string]struct{}, len(keys))
	for _, key := range keys {
		gone[key] = struct{}{}
	}
	c.flights.Forget(func(k flightKey) bool {
		_, ok := gone[k.key]
		return ok
	})
}
