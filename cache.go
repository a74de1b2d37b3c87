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
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/guard"
	"github.com/gatewayz/aside/internal/health"
	"github.com/gatewayz/aside/internal/hotkeys"
	"github.com/gatewayz/aside/internal/invalidate"
	"github.com/gatewayz/aside/internal/sampler"
	"github.com/gatewayz/aside/internal/stats"

	"github.com/gatewayz/aside/internal/logs"
	"github.com/gatewayz/aside/internal/near"
)

// A Cache holds values in the memory of this process and, with Options.Redis, in Redis. New makes a Cache. All its methods, and the functions
// that take a Cache, may be used by many goroutines at once. On a nil Cache they fail with an *Error.
//
// Values are shared: all callers that hit a value in memory, or wait for the same load, get the same pointers, slices and
// maps, and the cache may still be encoding them. Do not change a value that you got from a cache or gave to it.
type Cache struct {
	near     *near.Cache     // what a hit needs stands first
	switches                 //
	sampler  sampler.Sampler //
	policies *policyTable
	engine   *engine.Engine

	opts       Options
	metrics    stats.Registry
	health     *health.Log
	recent     recentEvents
	hot        *hotkeys.Counter // nil without Options.HotKeys
	warnSecret sync.Once
}

// New makes a cache. It returns at once, and connects to Redis in the background. It fails for invalid or contradictory options, with an error
// that names each of them. It does not fail because Redis is unavailable.
func New(opts Options) (*Cache, error) {
	opts, errs := opts.withDefaults()
	opts.Logger, opts.Redis = logs.Guard(opts.Logger), guard.Hooks(opts.Redis, sound)
	c := &Cache{opts: withoutCredentials(opts), health: health.NewLog(opts.Logger), switches: switches{ended: make(chan struct{})}}
	policies, wrong := newPolicyTable(&c.opts, &c.metrics)
	if errs = append(errs, wrong...); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	c.policies = policies
	c.logStarted()
	c.engine = engine.Open(c.engineOptions(opts.Redis))
	c.near = c.engine.Near
	if c.engine.Store != nil {
		c.health.Ask(c.engine.Store.State)
	}
	if opts.Observer.MemoryHits > 0 && c.engine.Observer() != nil {
		c.sampler.Share(sampler.Telling, opts.Observer.MemoryHits)
	}
	if opts.HotKeys > 0 {
		c.hot = hotkeys.New(opts.HotKeys, c.engine.Clock.Now())
		c.sampler.Share(sampler.Counting, 1.0/hotkeys.OneIn)
	}
	if opts.ConsistencyCheck.SampleRate > 0 {
		c.sampler.Start(sampler.Options(opts.ConsistencyCheck), c.engine, opts.Logger, c.recent.inconsistentValue)
	}
	return c, nil
}

func (c *Cache) engineOptions(redis rueidis.ClientOption) engine.Options {
	o := engine.Options{
		Redis: redis, Prefix: c.opts.prefix(), OpTimeout: c.opts.OpTimeout, LeaseTTL: c.opts.LeaseTTL,
		MaxEntries: c.opts.MaxEntries, MaxBytes: c.opts.MaxBytes, MaxValueBytes: c.opts.MaxValueBytes,
		CompressFrom: c.opts.CompressFrom, ChunkFrom: c.opts.ChunkFrom,
		MaxLoads: c.opts.MaxLoads, MaxQueuedLoads: c.opts.MaxQueuedLoads, Backoff: c.opts.Backoff, MaxBackoff: c.opts.MaxBackoff,
		Logger: c.opts.Logger, Counters: &c.metrics, OnState: c.stateChanged, OnNode: c.health.Node,
		OnFailedLoad: c.recent.failedLoad, SlowLoad: c.opts.SlowLoad, OnSlowLoad: c.recent.slowLoad,
		Categories: c.policies.categories, InUse: c.policies.inUse, NameOfOwner: c.policies.nameOfOwner,
		ErrClosed: ErrClosed, ErrorOf: callError, Observer: c.opts.Observer.internal(c.opts.Logger),
	}
	if c.opts.JSON.Marshal != nil {
		o.JSON = &c.opts.JSON
	}
	if hook := c.opts.OnInvalidated; hook != nil {
		o.OnInvalidated = func(e invalidate.Event) { hook(Invalidation(e)) }
	}
	return o
}

// String returns a summary of the options, without secrets.
func (c *Cache) String() string {
	if c == nil {
		return "aside.Cache(nil)"
	}
	return "aside.Cache{" + c.opts.String() + "}"
}

// Format writes String for every verb, so that no verb prints a secret.
func (c *Cache) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// GetOrLoad returns the cached value of key, or loads and caches it. Concurrent misses of a key, in all processes that share the Redis, cause
// one call of load, and all of them get its result. All calls for a key should have the same T: see Policy.
//
// load runs in a goroutine of its own. Its context carries the values of the first caller's ctx, but not its cancellation: the context ends
// with the policy's LoadTimeout, or when no caller has waited for the load for the policy's LoadGrace. Each caller returns when its own ctx
// ends. So the load may outlive the call, and asks ctx for values until it ends. Pass Request.Context(), never a context that a framework
// reuses for the next request (gin.Context, fasthttp.RequestCtx). With a LoadGrace of -1, the load's context ends before its only caller
// returns.
//
// With Policy.Stale or RefreshAhead, a call that has got the cached value may start load in the background. It then runs after the call has returned,
// with the values of its ctx. So neither load nor these values may hold what ends with the call, such as a transaction or a request's body: each
// such load would fail. No caller sees its error, which is logged and counted in RefreshErrors. With StaleIfError, callers may get an older value
// in place of an error or of a long wait.
//
// The error of load is returned to all waiting callers, and is not cached, except ErrNotFound, which is cached for the policy's NegativeTTL.
// A panic in load becomes an *Error, and is logged with its stack, at most once in ten seconds.
//
// In load, pass load's own context to other calls of the cache. With another one, such as that of the caller, the cache cannot see that the
// call is made inside a load, and loads that wait for each other end only with their LoadTimeout.
//
// If Redis fails, the call uses load and returns no error. A hit in memory allocates nothing, if load was made before: see Key.
func GetOrLoad[T any](ctx context.Context, c *Cache, key Key, load func(context.Context) (T, error), opts ...CallOption) (T, error) {
	if load != nil && passive(opts) {
		if value, owner := c.found(key.view()); owner != nil && owner.is(key.policy) {
			if v, ok := value.(*T); ok {
				if c.drawn(owner.Counters.MemoryHits.Add()) {
					sampleHit(ctx, c, key, owner.Counters, load)
				}
				return *v, nil
			}
		}
	}
	r, err := lookup(ctx, c, key, load, opts)
	return r.Value, err
}

// Lookup is GetOrLoad with a Result: the value with its status, its origin, its age, its TTL, and the reason of a miss.
func Lookup[T any](ctx context.Context, c *Cache, key Key, load func(context.Context) (T, error), opts ...CallOption) (Result[T], error) {
	return lookup(ctx, c, key, load, opts)
}

// Get returns the cached value of key, or ErrMiss. It returns ErrNotFound for a cached "not found".
func Get[T any](ctx context.Context, c *Cache, key Key) (T, error) {
	r, err := get[T](ctx, c, key)
	return r.Value, err
}

// Set stores a value under key, and replaces the cached one. Write the database first, then call Set. Once the value is stored,
// this process serves no older one, and no load of the key that is in flight is stored, in any process. Of several concurrent Sets of one key,
// one is stored. The value has the tags of WithTags in this call, and no others. Tags that a loader gives by Load.Tag belong to the value
// that it loads: if they matter, name them again, or call Invalidate instead of Set.
//
// If Redis is unavailable or fails, Set stores nothing, removes the cached value, and returns nil. If the removal fails too, it is counted in
// RedisErrors, and retried until Redis confirms it. Set returns an error only for bad arguments, a closed cache, and a value that is too large or
// that the codec refuses.
func Set[T any](ctx context.Context, c *Cache, key Key, value T, opts ...CallOption) error {
	r, o, err := newRequest[T](ctx, c, key, opts)
	if err != nil {
		return err
	}
	if o.refresh || o.strong || o.limits != nil {
		return invalidArgument("Set takes none of Refresh, Strong and MaxStale: it always replaces what is cached")
	}
	return callError(c.engine.Set(ctx, r, give(value, nil, nil)), r.Key)
}

// found looks up the text of a key in memory, and does not keep it. owner is nil if there is no value. The caller checks that owner is the
// policy of the key, and the type of the value.
func (c *Cache) found(text string) (value any, owner *resolved) {
	if c == nil || c.near == nil {
		return nil, nil
	}
	if c.switched.Load() {
		return c.foundUnlessOff(text)
	}
	if e := c.near.Get(text); e != nil {
		return e.Value, e.Scope.Owner.(*resolved)
	}
	return nil, nil
}

// hit looks up a key in memory for a batch. v is nil if there is no fresh value of type T that belongs to the key's policy.
func hit[T any](c *Cache, key *Key) (v *T, owner *resolved) {
	value, owner := c.found(key.view())
	if owner != nil && owner.is(key.policy) {
		v, _ = value.(*T)
	}
	return v, owner
}

// lookup is GetOrLoad after a miss in memory.
func lookup[T any](ctx context.Context, c *Cache, key Key, load func(context.Context) (T, error), opts []CallOption) (Result[T], error) {
	r, _, err := withoutKey[T](ctx, c, key, opts)
	if err != nil {
		return Result[T]{}, err
	}
	if load == nil {
		return Result[T]{}, invalidArgument("the loader is nil: give the function that loads the value, or use Get")
	}
	out, here := c.engine.LookAgeing(key.view(), &r)
	if !here {
		r.Key = key.String()
		out, here, err = answer(ctx, c, r, load)
	}
	if here && c.sampler.Draws(sampler.Telling) {
		c.engine.ObserveHit(ctx, key.String(), r.Policy, out)
	}
	if c.sampler.Draws(sampler.Counting) {
		c.countKey(key.String())
	}
	if c.settle(ctx, r, out, err) {
		c.sampler.Offer(newSample(ctx, key.String(), r.Policy, r.Place, r.Type, loadsOne(r.Policy, load), equalByMethod[T]))
	}
	return resultOf[T](c, &r, out, err)
}

// answer is lookup of a value that takes more than a look into memory. It reports whether that was memory all the same.
func answer[T any](ctx context.Context, c *Cache, r engine.Request, load func(context.Context) (T, error)) (out engine.Outcome, here bool, err error) {
	out, unanswered, here := c.engine.Look(r)
	switch {
	case !here:
		began := c.engine.Clock.Now()
		out, err := c.engine.Answer(ctx, unanswered, loadsOne(r.Policy, load))
		r.Policy.Counters.CallTimes.Observe(time.Duration(c.engine.Clock.Now() - began))
		return out, false, callError(err, r.Key)
	case unanswered.RefreshDue():
		c.engine.Refresh(ctx, unanswered, loadsOne(r.Policy, load))
	}
	return out, true, nil
}

// settle counts an answered call. It reports whether the call was a hit that was sampled for a check.
func (c *Cache) settle(ctx context.Context, r engine.Request, out engine.Outcome, err error) (check bool) {
	if why := r.Cause(&out); count(r.Policy.Counters, out, err, why) {
		c.logMiss(ctx, &r, why)
	}
	return err == nil && out.Status == engine.StatusHit && c.sampler.Draws(sampler.Checking) && c.sampler.HasRoom(ctx, r.Policy.Counters)
}

// loadsOne makes an engine.LoadFunc of a loader of one value.
func loadsOne[T any](p *engine.Policy, load func(context.Context) (T, error)) engine.LoadFunc {
	return func(ctx context.Context, indexes []int, found func(int, engine.Loaded)) {
		value, err := load(ctx)
		found(indexes[0], give(value, err, p.NotFound))
	}
}

func get[T any](ctx context.Context, c *Cache, key Key) (Result[T], error) {
	r, _, err := newRequest[T](ctx, c, key, nil)
	if err != nil {
		return Result[T]{}, err
	}
	out, here, ok := c.engine.Peek(ctx, r)
	if !ok {
		err = ErrMiss
		switch {
		case ctx.Err() != nil:
			err = ctx.Err()
		case c.closed.Load():
			err = ErrClosed
		}
	}
	if here && ok && c.sampler.Draws(sampler.Telling) {
		c.engine.ObserveHit(ctx, r.Key, r.Policy, out)
	}
	if c.sampler.Draws(sampler.Counting) {
		c.countKey(r.Key)
	}
	if why := r.Cause(&out); count(r.Policy.Counters, out, err, why) {
		c.logMiss(ctx, &r, why)
	}
	return resultOf[T](c, &r, out, err)
}

// give turns the result of a typed loader into one for the engine. names are the policy's NotFound. The value and its entry for memory are one allocation, so that a hit
// touches one cache line and not two.
func give[T any](value T, err error, names []error) engine.Loaded {
	both := &struct {
		value T // first: a small one and what a hit reads of the entry lie in one line
		entry near.Entry
	}{value: value}
	l := failed(err, names)
	l.Value, l.Entry = &both.value, &both.entry
	return l
}

// failed is give without a value.
func failed(err error, names []error) engine.Loaded {
	err = named(soundFor(err, names), names)
	l := engine.Loaded{Err: err, NotFound: isPlainly(err, ErrNotFound), NotModified: isPlainly(err, ErrNotModified)}
	if err == ErrNotFound {
		l.Err = nil // NotFound says it all
	}
	return l
}

// usable returns an error for a cache that New has not made, and for a closed one.
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

// arrive is usableWith for a call that Close waits for. The caller calls c.engine.Calls.Leave at its end.
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
	r, o, err := withoutKey[T](ctx, c, key, opts)
	r.Key = key.String()
	return r, o, err
}

// withoutKey is newRequest for a call that may not need the text of its key, which takes an allocation.
func withoutKey[T any](ctx context.Context, c *Cache, key Key, opts []CallOption) (engine.Request, callOptions, error) {
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
		Policy: &p.Policy, Type: reflect.TypeFor[T](), TTL: cmp.Or(o.ttl, p.TTL), Tags: p.Tags,
		Strong: o.strong, Replace: o.refresh, Limits: o.limits, Windows: o.windows, Bypass: c.bypasses(p.Category), Place: p.Place,
	}
	if err := o.windowsFit(r.TTL); err != nil {
		return engine.Request{}, callOptions{}, err
	}
	if o.place != nil {
		r.Place = *o.place
	}
	if len(o.tags) > 0 {
		r.Tags = slices.Concat(p.Tags, o.tags)
	}
	return r, o, nil
}
