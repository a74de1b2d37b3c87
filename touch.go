package aside

import "github.com/gatewayz/aside/internal/stats"

// mostTouched is of how many categories the generations are used in Redis, in one round.
const mostTouched = 256

// categoriesInUse returns a function that says which categories calls have asked for since it was called last: see tags.Registry.Touch.
func (c *Cache) categoriesInUse() func() []string {
	calls := make(map[*stats.Counters]uint64) // how many each label had counted
	return func() []string { return c.inUse(calls) }
}

func (c *Cache) inUse(calls map[*stats.Counters]uint64) (list []string) {
	used := make(map[*stats.Counters]bool)
	categories := make(map[string]bool)
	for _, pl := range *c.plans.byName.Load() {
		if _, looked := used[pl.counts]; !looked {
			now := pl.counts.Calls()
			used[pl.counts] = now != calls[pl.counts]
			calls[pl.counts] = now
		}
		if category := pl.policy.Category; used[pl.counts] && !categories[category] && len(categories) < mostTouched {
			categories[category] = true
			list = append(list, category)
		}
	}
	for counts := range calls {
		if _, looked := used[counts]; !looked {
			delete(calls, counts)
		}
	}
	return list
}
