package aside

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/stats"
)

// A server that is full evicts what was not used for long, or not often. Entries in memory are served without a word to Redis, and
// so their generations would go first, though everything rests on them: with one, all that carries it is lost. So each process
// uses, every few seconds, the generations that its calls have rested on since the last time: that of everything, of the categories
// that were asked for, and some of the named tags that memory knows, others each time. A process that is not asked sends nothing.
//
// Where keys go within seconds, that is not often enough. But then there are many loads, and those ask for the generations along with
// their leases, each of them once a second at most.
const (
	touchEvery   = 3 * time.Second // from half as long to one and a half times
	touchByLoads = time.Second
	touchedTags  = 32              // named tags, in one round
	mostTouched  = 256             // categories, likewise
	touchTimeout = 2 * time.Second // of one round
)

// touches are when a load has last asked for a generation that was known, by its tag. Named tags are not among them: loads always
// ask for those.
type touches struct{ last sync.Map }

// due reports whether a load is to ask for the generation of a tag though it is known.
func (t *touches) due(tag string, now int64) bool {
	last, ok := t.last.Load(tag)
	if !ok {
		_, ok = t.last.LoadOrStore(tag, newTouch(now))
		return !ok
	}
	at := last.(*atomic.Int64)
	before := at.Load()
	return now-before >= int64(touchByLoads) && at.CompareAndSwap(before, now)
}

func newTouch(now int64) *atomic.Int64 {
	at := new(atomic.Int64)
	at.Store(now)
	return at
}

// touching goes on until ctx ends.
func (c *Cache) touching(ctx context.Context) {
	calls := make(map[*stats.Counters]uint64) // how many each label had counted
	for {
		t := time.NewTimer(jittered(touchEvery))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		if tags := c.inUse(calls); len(tags) > 0 && c.store.Up() {
			bounded, cancel := context.WithTimeout(ctx, touchTimeout)
			c.store.Touch(bounded, tags...)
			cancel()
		}
	}
}

// inUse are the tags that calls have rested on since the last time, as far as is known.
func (c *Cache) inUse(calls map[*stats.Counters]uint64) (tags []string) {
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
			tags = append(tags, keyspace.CategoryPrefix+category)
		}
	}
	for counts := range calls {
		if _, looked := used[counts]; !looked {
			delete(calls, counts)
		}
	}
	if len(tags) == 0 {
		return nil
	}
	tags = append(tags, keyspace.All, keyspace.Sequence)
	return append(tags, c.near.SomeTags(touchedTags, func(tag string) bool { return keyspace.IsNamed(tag) })...)
}
