package tags

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"
)

// A full server evicts keys that were not used for long, or not often. Hits in memory send no command to Redis, so the generations of their tags
// would be evicted first, and with a generation all entries that carry it are lost. So every few seconds each process reads the generations
// that its calls have used since the last round: that of everything, those of the used categories, and some of the named tags that memory
// knows, others in each round. A process without calls sends nothing.
//
// Where keys are evicted within seconds, that is not often enough. But then there are many loads, and loads read the generations together
// with their leases, each generation at most once a second.
const (
	touchEvery   = 3 * time.Second // from half as long to one and a half times
	touchByLoads = time.Second
	touchedTags  = 32              // named tags, in one round
	touchTimeout = 2 * time.Second // of one round
)

// touches are when a load has last asked for a generation that was known, by its tag. Named tags are not among them: loads always
// ask for those.
type touches struct{ last sync.Map }

// due reports whether a load is to read the generation of a tag although it is known.
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

// Touch runs rounds until ctx ends. used returns the categories that calls have used since the last round.
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

// inUse returns the tags for one round.
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
