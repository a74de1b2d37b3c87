package aside

import (
	"context"
	"iter"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/flight"
)

// ID is the constraint for a Loader's ids: the types that a part of a Key can have.
type ID interface {
	~string | ~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64
}

// A Loader is a cache, a policy and a load function bound together. The key of an id is the policy's Key with the id as its only part:
// products:7 for the id 7. Make a Loader once, with NewLoader or NewBatchLoader. It may be used by many goroutines at once.
type Loader[K ID, T any] struct {
	cache  *Cache
	policy *Policy                  // a copy, which nobody changes
	owner  atomic.Pointer[resolved] // what policy was last found to be in the cache
	one    func(context.Context, K) (T, error)
	many   func(context.Context, []K) (map[K]T, error)
}

// NewLoader returns a Loader with a function that loads one value. GetMany calls the function for each missing id, up to 16 at the same time.
// NewLoader does not fail: with an invalid argument, each call of the Loader returns an *Error.
func NewLoader[K ID, T any](c *Cache, p Policy, load func(context.Context, K) (T, error)) *Loader[K, T] {
	l := &Loader[K, T]{cache: c, policy: &p}
	if load != nil {
		l.one = load
		l.many = func(ctx context.Context, ids []K) (map[K]T, error) { return loadEach(ctx, ids, load) }
	}
	return l
}

// NewBatchLoader returns a Loader with a function that loads many values at once. Get calls the function with one id. An id that is missing in
// the returned map is not found: see ErrNotFound. With an invalid argument, each call of the Loader returns an *Error.
func NewBatchLoader[K ID, T any](c *Cache, p Policy, load func(context.Context, []K) (map[K]T, error)) *Loader[K, T] {
	l := &Loader[K, T]{cache: c, policy: &p}
	if load != nil {
		l.many = load
		l.one = func(ctx context.Context, id K) (T, error) { return loadAlone(ctx, id, load) }
	}
	return l
}

// Get returns the cached value of an id, or loads it: see GetOrLoad. A hit in memory allocates nothing.
func (l *Loader[K, T]) Get(ctx context.Context, id K, opts ...CallOption) (T, error) {
	if l != nil && passive(opts) && l.one != nil {
		var buf [usualKey]byte
		b, _ := appendPart(append(buf[:0], l.policy.Category...), id) // every ID can be a part
		value, owner := l.cache.found(unsafe.String(unsafe.SliceData(b), len(b)))
		if owner != nil && (l.owner.Load() == owner || l.ownedBy(owner)) {
			if v, ok := value.(*T); ok {
				if l.cache.drawn(owner.Counters.MemoryHits.Add()) {
					sampleHit(ctx, l.cache, l.Key(id), owner.Counters, l.loads(id))
				}
				return *v, nil
			}
		}
	}
	r, err := l.lookup(ctx, l.Key(id), id, opts)
	return r.Value, err
}

// ownedBy reports whether owner is the policy of l, resolved, and remembers that: neither of them changes.
func (l *Loader[K, T]) ownedBy(owner *resolved) bool {
	if !owner.policy.equal(l.policy) {
		return false
	}
	l.owner.Store(owner)
	return true
}

// Lookup is Get with a Result: see the function Lookup.
func (l *Loader[K, T]) Lookup(ctx context.Context, id K, opts ...CallOption) (Result[T], error) {
	return l.lookup(ctx, l.Key(id), id, opts)
}

func (l *Loader[K, T]) lookup(ctx context.Context, key Key, id K, opts []CallOption) (Result[T], error) {
	if err := l.usable(); err != nil {
		return Result[T]{}, err
	}
	return lookup(ctx, l.cache, key, l.loads(id), opts)
}

// loads returns the loader of an id, nil if l has no loader.
func (l *Loader[K, T]) loads(id K) func(context.Context) (T, error) {
	if l.one == nil {
		return nil
	}
	return func(ctx context.Context) (T, error) { return l.one(ctx, id) }
}

// GetMany returns the values of many ids, and loads the missing ones: see GetOrLoadMany.
func (l *Loader[K, T]) GetMany(ctx context.Context, ids []K, opts ...CallOption) (map[K]T, error) {
	if err := l.usable(); err != nil {
		return nil, err
	}
	return GetOrLoadMany(ctx, l.cache, ids, l.Key, l.many, opts...)
}

// Warm is Warm for ids, with the Loader's keys and load function.
func (l *Loader[K, T]) Warm(ctx context.Context, ids iter.Seq[K], w Warming) (Warmed, error) {
	if err := l.usable(); err != nil {
		return Warmed{}, err
	}
	return Warm(ctx, l.cache, ids, l.Key, l.many, w)
}

// Invalidate removes the values of ids from the cache: see Cache.Invalidate.
func (l *Loader[K, T]) Invalidate(ctx context.Context, ids ...K) (Receipt, error) {
	if err := l.usable(); err != nil {
		return Receipt{}, err
	}
	keys := make([]Key, len(ids))
	for i, id := range ids {
		keys[i] = l.Key(id)
	}
	return l.cache.Invalidate(ctx, keys...)
}

// Key returns the key of an id. For a nil Loader it is an invalid Key.
func (l *Loader[K, T]) Key(id K) Key {
	if err := l.usable(); err != nil {
		return Key{form: invalidKey, other: noLoader}
	}
	return l.policy.Key(id)
}

const noLoader = "the Loader is nil or zero: make it with NewLoader or NewBatchLoader"

func (l *Loader[K, T]) usable() error {
	if l == nil || l.policy == nil {
		return invalidArgument(noLoader)
	}
	return nil
}

// loadAlone loads one id with a function for many.
func loadAlone[K comparable, T any](ctx context.Context, id K, load func(context.Context, []K) (map[K]T, error)) (value T, err error) {
	values, err := load(ctx, []K{id})
	return newAnswers([]K{id}, values, err).of(id)
}

// parallelLoads is how many ids a loader of single values loads at the same time for one batch.
const parallelLoads = 16

// loadEach loads many ids with a function for one.
func loadEach[K ID, T any](ctx context.Context, ids []K, load func(context.Context, K) (T, error)) (map[K]T, error) {
	var (
		mu     sync.Mutex
		wg     sync.WaitGroup
		values = make(map[K]T, len(ids))
		failed = make(map[K]error)
		places = make(chan struct{}, parallelLoads)
		apart  = engine.LoadOf(ctx).PerID(ctx, len(ids))
	)
	for i, id := range ids {
		places <- struct{}{}
		if ctx.Err() != nil {
			mu.Lock()
			failed[id] = ctx.Err()
			mu.Unlock()
			<-places
			continue
		}
		wg.Go(func() {
			// A panic here would end the process: the flight recovers panics of its own goroutine only.
			err := error(flight.ErrGoexit)
			var value T
			defer func() {
				if r := recover(); r != nil {
					err = &flight.PanicError{Value: r, Stack: debug.Stack()}
				}
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					values[id] = value
				} else {
					failed[id] = err // callError turns it into an Error with the id's key
				}
				<-places
			}()
			engine.InLoader(func() { value, err = load(apart(i), id) })
		})
	}
	wg.Wait()
	if len(failed) > 0 {
		return values, &BatchError[K]{Errors: failed}
	}
	return values, nil
}
