package aside

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/guard"
	"github.com/gatewayz/aside/internal/health"
	"github.com/gatewayz/aside/internal/invalidate"
	"github.com/gatewayz/aside/internal/sampler"
	"github.com/gatewayz/aside/internal/stats"

	"github.com/gatewayz/aside/internal/logs"
	"github.com/gatewayz/aside/internal/near"
)

// A Cache keeps values in this process's memory, or in Redis where Options names one. Make it with New. All its methods,
// and the functions that take one, may be used by many goroutines at once; on a nil cache they fail with an *Error.
//
// Values are shared: everyone who hits a value in memory, or waits for the same load, gets the same pointers, slices and
// maps, and the cache may still be encoding them. Do not change what you got from a cache or gave to it.
type Cache struct {
	near     *near.Cache     // what a hit needs stands first
	closed   atomic.Bool     //
	sampler  sampler.Sampler //
	policies *policyTable
	engine   *engine.Engine

	opts       Options
	metrics    stats.Registry
	health     *health.Log
	closing    sync.Once
	warnSecret sync.Once
}

// New makes a cache. It fails for options that are wrong or contradict each other, with an error that names each of them,
// but never because Redis is away: it returns at once and connects in the background.
func New(opts Options) (*Cache, error) {
	opts, errs := opts.withDefaults()
	opts.Logger, opts.Redis = logs.Guard(opts.Logger), guard.Hooks(opts.Redis, sound)
	c := &Cache{opts: withoutCredentials(opts), health: health.NewLog(opts.Logger)}
	policies, wrong := newPolicyTable(&c.opts, &c.metrics)
	if errs = append(errs, wrong...); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	c.policies = policies
	c.engine = engine.Open(c.engineOptions(opts.Redis))
	c.near = c.engine.Near
	if c.engine.Store != nil {
		c.health.Ask(c.engine.Store.State)
	}
	if opts.Check.Share > 0 {
		c.sampler.Start(sampler.Options{Share: opts.Check.Share, Within: opts.Check.Within, Rate: opts.Check.Rate}, c.engine, opts.Logger)
	}
	return c, nil
}

func (c *Cache) engineOptions(redis rueidis.ClientOption) engine.Options {
	o := engine.Options{
		Redis: redis, Prefix: c.opts.prefix(), OpTimeout: c.opts.OpTimeout, LeaseTTL: c.opts.LeaseTTL,
		MaxEntries: c.opts.MaxEntries, MaxBytes: c.opts.MaxBytes, MaxValueBytes: c.opts.MaxValueBytes,
		CompressFrom: c.opts.CompressFrom, ChunkFrom: c.opts.ChunkFrom,
		MaxLoads: c.opts.MaxLoads, MaxQueuedLoads: c.opts.MaxQueuedLoads, Backoff: c.opts.Backoff, MaxBackoff: c.opts.MaxBackoff,
		Logger: c.opts.Logger, Counters: &c.metrics, OnState: c.health.Changed,
		Categories: c.policies.categories, InUse: c.policies.inUse, NameOfOwner: c.policies.nameOfOwner,
		ErrClosed: ErrClosed, ErrorOf: callError,
	}
	if hook := c.opts.OnInvalidated; hook != nil {
		o.OnInvalidated = func(e invalidate.Event) { hook(Invalidation(e)) }
	}
	return o
}

// Close ends the cache: later calls and those that wait for a load return ErrClosed, contexts of loaders end, and
// background work, stores included, is waited for, as are the calls that are under way; only functions of the program's that go on
// for 10 s, such as a loader regardless of its context, are left behind, and logged. It can be called more than once and always
// returns nil, also on a nil cache.
func (c *Cache) Close() error {
	if c == nil || c.engine == nil {
		return nil
	}
	c.closing.Do(func() {
		c.closed.Store(true)
		c.engine.Close()
		c.health.Stop()
	})
	return nil
}

// String says where the cache keeps its values, and nothing secret.
func (c *Cache) String() string {
	if c == nil {
		return "aside.Cache(nil)"
	}
	return "aside.Cache{" + c.opts.String() + "}"
}

// Format writes String for every verb that prints a value, so that none shows a secret.
func (c *Cache) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// GetOrLoad returns the cached value of key, or loads and caches it. Of all callers that miss at the same time, in all
// processes that share the Redis, one calls load, and the others wait for its result. All calls for a key should have one T: see Policy.
//
// load runs in a goroutine of its own, on a context that carries the values of the first caller's ctx but ends only with
// the policy's LoadTimeout, or with its LoadGrace, which begins when the last caller that waits for it has left. Each caller returns when its own ctx ends.
// Since the load may outlive the call, and asks ctx for its values as long as it lasts, ctx must not be one that is used again for something
// else: pass Request.Context(), never the context that a framework hands from one request to the next (gin.Context, fasthttp.RequestCtx).
// With a LoadGrace of -1, the load's context has at least ended before its only caller returns. The
// error that load returns goes to all who wait for it and is not cached, except ErrNotFound, which is cached for the
// policy's NegativeTTL. A panic in load becomes an *Error, and is logged with its stack, at most once in ten seconds. To other calls of the cache, load passes on its own context: another
// one, such as that of the caller around it, hides that they are made inside a load, and loads that wait for each other are then
// not found out before their time is up.
//
// Trouble with Redis is not an error: load then answers. A hit in memory allocates nothing, if key and load
// were made before.
func GetOrLoad[T any](ctx context.Context, c *Cache, key Key, load func(context.Context) (T, error), opts ...CallOption) (T, error) {
	if load != nil && passive(opts) {
		if value, counts := c.hit(key); counts != nil {
			if v, ok := value.(*T); ok {
				if c.drawn(counts.MemoryHits.Add()) {
					sampleHit(ctx, c, key, counts, load)
				}
				return *v, nil
			}
		}
	}
	r, err := lookup(ctx, c, key, load, opts)
	return r.Value, err
}

// Lookup is GetOrLoad with a result that explains itself: where the value came from, how old it is, and why.
func Lookup[T any](ctx context.Context, c *Cache, key Key, load func(context.Context) (T, error), opts ...CallOption) (Result[T], error) {
	return lookup(ctx, c, key, load, opts)
}

// Get returns the cached value of key, or ErrMiss. It returns ErrNotFound for a cached "not found".
func Get[T any](ctx context.Context, c *Cache, key Key) (T, error) {
	r, err := get[T](ctx, c, key)
	return r.Value, err
}

// Set stores a value under key, in place of what is cached: write the database first, then Set. Once the value is stored,
// this process reads no older one, and loads of the key that were under way are not stored any more, here or in any other
// process. Of several Sets of one key at the same time, one is stored. The value has the tags that this call gives it by WithTags, and
// no others: those that a loader has given by Load.Tag belong to the value that it has loaded. Where they matter, give them again, or
// call Invalidate in place of Set, and have the loader load and tag the new value.
//
// If Redis is away or fails, Set stores nothing, removes what was cached, and returns nil. Where that fails too, it is
// logged and counted, and an older value may live in Redis until its TTL ends. Set itself fails only for bad arguments, a closed cache, or a value that is too
// large or that the codec refuses.
func Set[T any](ctx context.Context, c *Cache, key Key, value T, opts ...CallOption) error {
	r, o, err := newRequest[T](ctx, c, key, opts)
	if err != nil {
		return err
	}
	if o.refresh || o.strong {
		return invalidArgument("Set takes neither Refresh nor Strong: it always replaces what is cached")
	}
	return callError(c.engine.Set(ctx, r, give(value, nil)), r.Key)
}

// hit is the whole of a hit in memory but for the type of its value. Without one, counts is nil.
func (c *Cache) hit(key Key) (value any, counts *stats.Counters) {
	if c == nil || c.near == nil || key.policy == nil || c.closed.Load() { // else Close may be waiting, and nothing can be invalidated
		return nil, nil
	}
	e := c.near.Get(key.text)
	if e == nil {
		return nil, nil
	}
	p := e.Scope.Owner.(*resolved)
	if !p.is(key.policy) {
		return nil, nil
	}
	return e.Value, p.Counters
}

// lookup is GetOrLoad after its first step has found nothing.
func lookup[T any](ctx context.Context, c *Cache, key Key, load func(context.Context) (T, error), opts []CallOption) (Result[T], error) {
	r, _, err := newRequest[T](ctx, c, key, opts)
	if err != nil {
		return Result[T]{}, err
	}
	if load == nil {
		return Result[T]{}, invalidArgument("the loader is nil: give the function that loads the value, or use Get")
	}
	out, unanswered, ok := c.engine.Look(r)
	if !ok {
		out, err = c.engine.Answer(ctx, unanswered, loadsOne(load))
		err = callError(err, r.Key)
	}
	if c.settle(ctx, r, out, err) {
		c.sampler.Offer(newSample(ctx, r.Key, r.Policy, r.Type, loadsOne(load), equalByMethod[T]))
	}
	return resultOf[T](c, out, err)
}

// settle counts a call that has been answered. It reports whether its hit is to be checked.
func (c *Cache) settle(ctx context.Context, r engine.Request, out engine.Outcome, err error) (check bool) {
	count(r.Policy.Counters, out, err)
	return err == nil && out.Status == engine.StatusHit && c.sampler.Draws() && c.sampler.HasRoom(ctx, r.Policy.Counters)
}

// loadsOne is load as a flight calls it.
func loadsOne[T any](load func(context.Context) (T, error)) engine.LoadFunc {
	return func(ctx context.Context, indexes []int, found func(int, engine.Loaded)) {
		found(indexes[0], give(load(ctx)))
	}
}

func get[T any](ctx context.Context, c *Cache, key Key) (Result[T], error) {
	r, _, err := newRequest[T](ctx, c, key, nil)
	if err != nil {
		return Result[T]{}, err
	}
	out, ok := c.engine.Peek(ctx, r)
	if !ok {
		err = ErrMiss
		switch {
		case ctx.Err() != nil:
			err = ctx.Err()
		case c.closed.Load():
			err = ErrClosed
		}
	}
	count(r.Policy.Counters, out, err)
	return resultOf[T](c, out, err)
}

// give makes what a typed loader has come back with one that the load path takes. The value and its entry in memory lie side by side, so
// that a hit waits for one line of memory and not for two.
func give[T any](value T, err error) engine.Loaded {
	both := &struct {
		entry near.Entry
		value T
	}{value: value}
	l := failed(err)
	l.Value, l.Entry = &both.value, &both.entry
	return l
}

// failed is what a loader has come back with that has no value, where err is not nil.
func failed(err error) engine.Loaded {
	err = sound(err)
	l := engine.Loaded{Err: err, NotFound: isNotFound(err)}
	if err == ErrNotFound {
		l.Err = nil // there is nothing more to say
	}
	return l
}

// usable is nil for a cache that New made and that is not closed.
func (c *Cache) usable() error {
	switch {
	case c == nil || c.engine == nil:
		return invalidArgument("the cache is nil or zero: make one with New")
	case c.closed.Load():
		return ErrClosed
	}
	return nil
}

// usableWith is usable for a call with a context.
func (c *Cache) usableWith(ctx context.Context) error {
	if err := c.usable(); err != nil {
		return err
	}
	if ctx == nil {
		return invalidArgument("the context is nil: use context.Background() where there is none")
	}
	return nil
}

// arrive is usableWith for a call that Close waits for. It ends with c.engine.Calls.Leave.
func (c *Cache) arrive(ctx context.Context) error {
	if err := c.usableWith(ctx); err != nil {
		return err
	}
	if !c.engine.Calls.Enter() {
		return ErrClosed
	}
	return nil
}

func newRequest[T any](ctx context.Context, c *Cache, key Key, opts []CallOption) (engine.Request, callOptions, error) {
	if err := c.usableWith(ctx); err != nil {
		return engine.Request{}, callOptions{}, err
	}
	if err := key.Err(); err != nil {
		return engine.Request{}, callOptions{}, err
	}
	p, err := c.policies.resolve(key.policy)
	if err != nil {
		return engine.Request{}, callOptions{}, err
	}
	o, err := gather(opts)
	if err != nil {
		return engine.Request{}, callOptions{}, err
	}
	r := engine.Request{
		Key: key.text, Policy: &p.Policy, Type: reflect.TypeFor[T](), TTL: cmp.Or(o.ttl, p.TTL), Tags: p.Tags,
		Strong: o.strong, Replace: o.refresh,
	}
	if len(o.tags) > 0 {
		r.Tags = slices.Concat(p.Tags, o.tags)
	}
	return r, o, nil
}
