package tags

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"
)

// A full server evicts what was not used for long, or not often. Entries in memory are served without a command to Redis, so
// their generations would go first. But everything rests on them: with one generation, all that carries it is lost. So each process
// uses, every few seconds, the generations that its calls have rested on since the last time: that of everything, those of the categories
// that were asked for, and those of some of the named tags that memory knows, others each time. A process that is not asked sends nothing.
//
// Where keys are evicted within seconds, that is not often enough. But then there are many loads, and those ask for the generations
// along with their leases, each of them once a second at most.
const (
	touchEvery   = 3 * time.Second // from half as long to one and a half times
	touchByLoads = time.Second
	touchedTags  = 32              // named tags, in one round
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

// Touch goes on until ctx ends. At each round, used says which categories calls have asked for since the last one.
func (r *Registry) Touch(ctx context.Context, used func() (categories []string)) {
	for {
		t := time.NewTimer(touchEvery/2 + rand.N(touchEvery))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		if tags := r.inUse(used()); len(tags) > 0 && r.redis.up() {
			bounded, cancel := context.WithTimeout(ctx, touchTimeout)
			r.redis.touch(bounded, tags...)
			cancel()
		}
	}
}

// inUse are the tags that calls have rested on since the last time, as far as is known.
func (r *Registry) inUse(categories []string) (tags []string) {
	if len(categories) == 0 {
		return nil
	}
	for _, category := range categories {
		tags = append(tags, keyspace.CategoryTag(category))
	}
	tags = append(tags, keyspace.All, keyspace.Sequence)
	return append(tags, r.near.SomeTags(touchedTags, keyspace.IsNamed)...)
}
