// Package tags knows the generations of tags, by which everything that carries a tag is invalidated at once: an entry carries the
// generations that its tags had before its load, and one that carries another generation than the tag has now is out of date.
//
// A [Registry] is what a process knows of tags, a [Snapshot] what one flight, or one read, has seen of them, and a [Capture] what one
// entry carries.
package tags

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
)

// A Registry is what a process knows of the tags of one cache. Without Connect it is that of a cache in memory mode, which makes the
// generations by itself.
type Registry struct {
	near        *near.Cache
	clock       *near.Clock
	redis       *redis                 // nil in memory mode
	quarantined func(name string) bool // nil in memory mode

	generations atomic.Uint64 // the last one that was given to a tag in memory mode
	events      atomic.Uint64 // see Events
	ownEvents   atomic.Uint64 // likewise
	touches     touches
}

// A redis is what is needed of a redisstore.Store.
type redis struct {
	contact func(name string) (ups uint64, up bool)
	look    func(ctx context.Context, looks ...redisstore.Get) []redisstore.Read
	ensure  func(ctx context.Context, tags ...redisstore.Tag) []redisstore.Generation
	bump    func(ctx context.Context, tags ...redisstore.Tag) []redisstore.Generation
	change  func(ctx context.Context, keys []string, tags []redisstore.Tag) (removed int64, errs []error, generations []redisstore.Generation)
	budget  func(ctx context.Context, size int64, keys int) (context.Context, context.CancelFunc)
	up      func() bool
	touch   func(ctx context.Context, names ...string)
}

// New makes the registry of a cache. What it knows of generations is in memory, which is in clock's time.
func New(memory *near.Cache, clock *near.Clock) *Registry {
	return &Registry{near: memory, clock: clock}
}

// Connect makes the registry use the generations in Redis. It is called before any other method but Pushed and Gap. quarantined reports whether
// Redis has yet to confirm an invalidation of a name.
func (r *Registry) Connect(store *redisstore.Store, quarantined func(name string) bool) {
	r.quarantined = quarantined
	r.redis = &redis{
		contact: store.Contact, look: store.Get, ensure: store.Ensure, bump: store.Bump, change: store.Change, budget: store.Budget, up: store.Up, touch: store.Touch,
	}
}

// local reports whether the cache is in memory mode.
func (r *Registry) local() bool { return r.redis == nil }

func (r *Registry) inQuarantine(name string) bool { return r.quarantined != nil && r.quarantined(name) }

// Events are counts of tag events: how often a named tag may have been invalidated. The tags that a loader names are known only after the load.
// If a count has not changed since the load began, none of them was invalidated.
type Events struct {
	All uint64 // in any process, as far as this process was notified
	Own uint64 // in this process
}

// Events returns the counts of now.
func (r *Registry) Events() Events { return Events{r.events.Load(), r.ownEvents.Load()} }

// Pushed counts an event if the changed name is the sequence, which changes before any named tag does.
func (r *Registry) Pushed(name string) {
	if name == keyspace.Sequence {
		r.events.Add(1)
	}
}

// Gap counts an event, since Redis may not have notified this process of one.
func (r *Registry) Gap() { r.events.Add(1) }

// Retire invalidates tags in this process. The sequence comes first if there are named ones.
func (r *Registry) Retire(names []string) {
	r.countOwn(names)
	for _, name := range names {
		r.near.Retire(name)
	}
}

// RetireAll is Retire in memory mode, where what is out of date is removed in the background: see near.Cache.
func (r *Registry) RetireAll(names []string, removed *atomic.Int64, done chan<- struct{}) {
	r.countOwn(names)
	r.near.RetireAll(names, removed, done)
}

// countOwn comes before the tags are retired: see AddLate.
func (r *Registry) countOwn(names []string) {
	if names[0] == keyspace.Sequence {
		r.ownEvents.Add(1)
		r.events.Add(1)
	}
}

// Bump gives tags their next generations in Redis, the first of them before all others.
func (r *Registry) Bump(ctx context.Context, names ...string) []redisstore.Generation {
	return r.redis.bump(ctx, bumped(names)...)
}

// Change is Bump, and removes the values of keys at the same time.
func (r *Registry) Change(ctx context.Context, keys []string, names ...string) (removed int64, errs []error, generations []redisstore.Generation) {
	return r.redis.change(ctx, keys, bumped(names))
}

func bumped(names []string) []redisstore.Tag {
	next := make([]redisstore.Tag, len(names))
	for i, name := range names {
		next[i] = withLife(name, margin)
	}
	return next
}

// margin is how much longer than what carries it the generation of a named tag lives at least. A lost one costs misses, never
// a hit on what is out of date.
const margin = 10 * time.Second

// Life is how long the generations of an entry's tags have to live if the entry lives for so long.
func Life(entry time.Duration) time.Duration { return min(entry, math.MaxInt64-margin) + margin }

// withLife is a tag whose generation lives for so long at least from now on, if it does not live for ever.
func withLife(name string, life time.Duration) redisstore.Tag {
	if keyspace.IsNamed(name) {
		return redisstore.Tag{Key: name, Life: life}
	}
	return redisstore.Tag{Key: name} // these are few
}
