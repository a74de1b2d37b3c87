package aside

import (
	"context"
	"iter"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/flight"
)

// ID is the constraint for the ids of NewLoader and NewBatchLoader: the types that a part of a Key can have.
type ID interface {
	~string | ~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64
}

// A Loader is a cache, a policy and a load function bound together. The key of an id is the policy's Key with the id as its only part:
// products:7 for the id 7. For ids that are no string and no integer, and for keys of another form, NewLoaderBy takes a function. Make a Loader
// once. It may be used by many goroutines at once.
type Loader[K comparable, T any] struct {
	cache  *Cache
	policy *Policy                  // a copy, which nobody changes
	owner  atomic.Pointer[resolved] // what policy was last found to be in the cache
	key    func(*Policy, K) Key     // nil: the id is the only part
	wrong  string                   // why no call can succeed
	tags   func(K) []string         // the tags of an id's value; nil: none
	one    func(context.Context, K) (T, error)
	many   func(context.Context, []K) (map[K]T, error)
}

// NewLoader returns a Loader with a function that loads one value. GetMany calls the function for each missing id, up to 16 at the same time.
// NewLoader does not fail: with an invalid argument, each call of the Loader returns an *Error.
func NewLoader[K ID, T any](c *Cache, p Policy, load func(context.Context, K) (T, error)) *Loader[K, T] {
	return &Loader[K, T]{cache: c, policy: &p, one: load, many: many(load)}
}

// NewBatchLoader returns a Loader with a function that loads many values at once. Get calls the function with one id. An id that is missing in
// the returned map is not found: see ErrNotFound. Policy.MaxBatch bounds how many ids one call gets. With an invalid argument, each call of the
// Loader returns an *Error.
func NewBatchLoader[K ID, T any](c *Cache, p Policy, load func(context.Context, []K) (map[K]T, error)) *Loader[K, T] {
	return &Loader[K, T]{cache: c, policy: &p, one: one(load), many: load}
}

// NewLoaderBy is NewLoader for ids of any comparable type. key makes the key of an id, with the policy that it gets:
//
//	pages := aside.NewLoaderBy(c, ProductLists, func(p *aside.Policy, q Page) aside.Key { return p.Key(q.Limit, q.Offset) }, loadPage)
//	users := aside.NewLoaderBy(c, Profiles, func(p *aside.Policy, id string) aside.Key { return p.Key(c.HashID(id)) }, loadUser)
//
// The key must hold all that tells one id from another: ids with the same key get the same value. key is called at each call of the Loader, by many
// goroutines at once. If it allocates nothing, neither does a hit in memory. A call whose key function panics, or returns a key of another policy or
// a key without a part, fails with CodeInvalidKey.
func NewLoaderBy[K comparable, T any](c *Cache, p Policy, key func(p *Policy, id K) Key, load func(context.Context, K) (T, error)) *Loader[K, T] {
	l := &Loader[K, T]{cache: c, policy: &p, key: key, one: load, many: many(load)}
	if key == nil {
		l.wrong = noKeyFunction
	}
	return l
}

// NewBatchLoaderBy is NewBatchLoader for ids of any comparable type: see NewLoaderBy.
func NewBatchLoaderBy[K comparable, T any](c *Cache, p Policy, key func(p *Policy, id K) Key, load func(context.Context, []K) (map[K]T, error)) *Loader[K, T] {
	l := &Loader[K, T]{cache: c, policy: &p, key: key, one: one(load), many: load}
	if key == nil {
		l.wrong = noKeyFunction
	}
	return l
}

// Tagged returns a Loader like l whose values have the tags that the function returns for their id, as by WithTags, in all calls that store: loads, Set and
// Warm. It is for tags that the id tells, such as that of its tenant; for others see Load.Tag. A hit does not call the function. A call fails if the
// function panics, or returns a tag that WithTags refuses. The function is called by many goroutines at once.
func (l *Loader[K, T]) Tagged(tags func(id K) []string) *Loader[K, T] {
	if l == nil {
		return nil
	}
	return &Loader[K, T]{cache: l.cache, policy: l.policy, key: l.key, wrong: l.wrong, tags: tags, one: l.one, many: l.many}
}

// also returns the further option of each id's calls, nil if there is none.
func (l *Loader[K, T]) also() func(K) CallOption {
	if l.tags == nil {
		return nil
	}
	return l.tagged
}

// tagged returns the option with the tags of an id.
func (l *Loader[K, T]) tagged(id K) (o CallOption) {
	defer func() {
		if p := recover(); p != nil {
			o = CallOption{&callOptions{err: invalidArgument("the Loader of policy " + l.policy.name() + ": the function of Tagged panicked: " + panicText(p))}}
		}
	}()
	return WithTags(l.tags(id)...)
}

// Get returns the cached value of an id, or loads it: see GetOrLoad. A hit in memory allocates nothing.
func (l *Loader[K, T]) Get(ctx context.Context, id K, opts ...CallOption) (T, error) {
	if l != nil && passive(opts) && l.one != nil {
		var value any
		var owner *resolved
		if l.key == nil {
			var buf [usualKey]byte
			b, _ := appendPart(append(buf[:0], l.policy.Category...), id) // every ID can be a part
			value, owner = l.cache.found(unsafe.String(unsafe.SliceData(b), len(b)))
		} else {
			key := l.Key(id)
			value, owner = l.cache.found(key.view())
		}
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
	return lookup(ctx, l.cache, key, l.loads(id), with(opts, l.also(), id))
}

// loads returns the loader of an id, nil if l has no loader.
func (l *Loader[K, T]) loads(id K) func(context.Context) (T, error) {
	if l.one == nil {
		return nil
	}
	return func(ctx context.Context) (T, error) { return l.one(ctx, id) }
}

// Cached returns the cached value of an id, or ErrMiss: see the function Get.
func (l *Loader[K, T]) Cached(ctx context.Context, id K) (T, error) {
	return Get[T](ctx, l.from(), l.Key(id))
}

// Set stores the value of an id: see the function Set.
func (l *Loader[K, T]) Set(ctx context.Context, id K, value T, opts ...CallOption) error {
	if err := l.usable(); err != nil {
		return err
	}
	return Set(ctx, l.cache, l.Key(id), value, with(opts, l.also(), id)...)
}

// Refresh loads the value of an id and replaces the cached one: see the option Refresh.
func (l *Loader[K, T]) Refresh(ctx context.Context, id K, opts ...CallOption) (T, error) {
	return l.Get(ctx, id, append(slices.Clip(opts), Refresh())...)
}

// GetMany returns the values of many ids, and loads the missing ones: see GetOrLoadMany.
func (l *Loader[K, T]) GetMany(ctx context.Context, ids []K, opts ...CallOption) (map[K]T, error) {
	if err := l.usable(); err != nil {
		return nil, err
	}
	return getMany(ctx, l.cache, ids, l.Key, l.many, l.also(), opts)
}

// LookupMany is GetMany with a Result for each id: see the function LookupMany.
func (l *Loader[K, T]) LookupMany(ctx context.Context, ids []K, opts ...CallOption) (map[K]Result[T], error) {
	if err := l.usable(); err != nil {
		return nil, err
	}
	return lookupMany(ctx, l.cache, ids, l.Key, l.many, l.also(), opts)
}

// SetMany stores the values of many ids: see the function SetMany.
func (l *Loader[K, T]) SetMany(ctx context.Context, values map[K]T, opts ...CallOption) error {
	if err := l.usable(); err != nil {
		return err
	}
	return setMany(ctx, l.cache, values, l.Key, l.also(), opts)
}

// Warm is Warm for ids, with the Loader's keys and load function.
func (l *Loader[K, T]) Warm(ctx context.Context, ids iter.Seq[K], w Warming) (Warmed, error) {
	if err := l.usable(); err != nil {
		return Warmed{}, err
	}
	return warmUp(ctx, l.cache, ids, l.Key, l.many, l.also(), w)
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

// InvalidateAll invalidates all entries of the category of the Loader's policy: see Cache.InvalidatePolicy.
func (l *Loader[K, T]) InvalidateAll(ctx context.Context) (Receipt, error) {
	if err := l.usable(); err != nil {
		return Receipt{}, err
	}
	return l.cache.InvalidatePolicy(ctx, *l.policy)
}

// Key returns the key of an id. For a nil Loader it is an invalid Key.
func (l *Loader[K, T]) Key(id K) Key {
	switch {
	case l == nil || l.policy == nil:
		return Key{form: invalidKey, other: noLoader}
	case l.wrong != "":
		return l.noKey(l.wrong)
	case l.key == nil:
		return l.policy.Key(id)
	}
	return l.keyBy(id)
}

// keyBy returns the key that the key function makes, or an invalid Key that says what is wrong with it.
func (l *Loader[K, T]) keyBy(id K) (key Key) {
	defer func() {
		if p := recover(); p != nil {
			key = l.noKey("the key function panicked: " + panicText(p))
		}
	}()
	key = l.key(l.policy, id)
	switch {
	case key.form == invalidKey: // it says why
	case key.policy == nil:
		return l.noKey("the key function returned the zero Key: return the Key of the policy that it gets")
	case key.policy != l.policy && !key.policy.equal(l.policy):
		return l.noKey("the key function returned a key of policy " + key.policy.name() + ": make it with the policy that it gets")
	case len(key.view()) == len(l.policy.Category):
		return l.noKey("the key function returned a key without a part: all ids would have the same value")
	}
	return key
}

func (l *Loader[K, T]) noKey(why string) Key {
	return Key{form: invalidKey, policy: l.policy, other: "the Loader of policy " + l.policy.name() + ": " + why}
}

// panicText describes a panic without the panic's value, which may hold an id.
func panicText(p any) string {
	if err, ok := p.(runtime.Error); ok {
		return err.Error()
	}
	return "with a " + typeName(p)
}

const (
	noLoader      = "the Loader is nil or zero: make it with NewLoader or NewBatchLoader"
	noKeyFunction = "the key function is nil: give the function that makes the key of an id"
)

func (l *Loader[K, T]) usable() error {
	if l == nil || l.policy == nil {
		return invalidArgument(noLoader)
	}
	return nil
}

// from returns the Loader's cache, nil for a nil Loader.
func (l *Loader[K, T]) from() *Cache {
	if l == nil {
		return nil
	}
	return l.cache
}

// many makes a function for many ids of one that loads one.
func many[K comparable, T any](load func(context.Context, K) (T, error)) func(context.Context, []K) (map[K]T, error) {
	if load == nil {
		return nil
	}
	return func(ctx context.Context, ids []K) (map[K]T, error) { return loadEach(ctx, ids, load) }
}

// one makes a function for one id of one that loads many.
func one[K comparable, T any](load func(context.Context, []K) (map[K]T, error)) func(context.Context, K) (T, error) {
	if load == nil {
		return nil
	}
	return func(ctx context.Context, id K) (T, error) { return loadAlone(ctx, id, load) }
}

// loadAlone loads one id with a function for many.
func loadAlone[K comparable, T any](ctx context.Context, id K, load func(context.Context, []K) (map[K]T, error)) (value T, err error) {
	values, err := load(ctx, []K{id})
	return newAnswers([]K{id}, values, err).of(id)
}

// parallelLoads is how many ids a loader of single values loads at the same time for one batch.
const parallelLoads = 16

// loadEach loads many ids with a function for one.
func loadEach[K comparable, T any](ctx context.Context, ids []K, load func(context.Context, K) (T, error)) (map[K]T, error) {
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
