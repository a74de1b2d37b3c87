package aside

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/wire"
)

// A Cache keeps values in this process's memory, or in Redis where Options names one. Make it with New. All its methods,
// and the functions that take one, may be used by many goroutines at once; on a nil cache they fail with an *Error.
//
// Values are shared: everyone who hits a value in memory, or waits for the same load, gets the same pointers, slices and
// maps, and the cache may still be encoding them. Do not change what you got from a cache or gave to it.
type Cache struct {
	opts    Options
	clock   *near.Clock
	near    *near.Cache       // nil where values are in Redis: memory is not kept coherent with it yet
	store   *redisstore.Store // nil in memory mode
	flights flight.Group[flightKey, outcome]
	plans   plans
	metrics metrics
	health  health

	closing    sync.Once
	closed     atomic.Bool
	background sync.WaitGroup // renewals and releases of leases; flights are counted by their group
	warnSecret sync.Once
}

// New makes a cache. It fails for options that are wrong or contradict each other, with an error that names each of them,
// but never because Redis is away: it returns at once and connects in the background.
func New(opts Options) (*Cache, error) {
	opts, errs := opts.withDefaults()
	c := &Cache{opts: opts}
	errs = append(errs, c.registerAll()...)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	c.clock = near.NewClock()
	c.health.start(opts.Logger)
	if len(opts.Redis.InitAddress) == 0 {
		c.near = near.New(near.Options{MaxEntries: opts.MaxEntries, MaxBytes: opts.MaxBytes}, c.clock)
		return c, nil
	}
	c.store = redisstore.Open(redisstore.Options{
		Client:    opts.Redis,
		OpTimeout: opts.OpTimeout,
		Lease:     opts.LeaseTTL,
		Format:    redisstore.Format{Magic: wire.Magic, Version: wire.Version, Flags: wire.KnownFlags, LoadStart: wire.LoadStartOffset},
		OnState:   c.health.onState,
	})
	return c, nil
}

// closeGrace is how long Close waits for loaders that ignore the end of their context.
const closeGrace = 10 * time.Second

// Close ends the cache: later calls and those that wait for a load return ErrClosed, contexts of loaders end, and
// background work, stores included, is waited for; only loaders that go on regardless of their context for 10 s are left
// behind, and logged. It can be called more than once and always returns nil, also on a nil cache.
func (c *Cache) Close() error {
	if c == nil || c.clock == nil {
		return nil
	}
	c.closing.Do(func() {
		c.closed.Store(true)
		ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
		defer cancel()
		if c.flights.Close(ctx, ErrClosed) == nil {
			c.background.Wait()
		} else {
			c.opts.Logger.Warn("aside: closed while loaders still run; they ignore the end of their context")
		}
		if c.store != nil {
			c.store.Close()
		}
		if c.near != nil {
			c.near.Close()
		}
		c.clock.Stop()
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
// processes that share the Redis, one calls load, and the others wait for its result.
//
// load runs in a goroutine of its own, on a context that carries the values of the first caller's ctx but ends only with
// the policy's LoadTimeout, or when every caller that waits for it has left. Each caller returns when its own ctx ends. The
// error that load returns goes to all who wait for it and is not cached, except ErrNotFound, which is cached for the
// policy's NegativeTTL. A panic in load becomes an *Error.
//
// Trouble with Redis is not an error: load then answers. A hit in memory allocates nothing, if key and load
// were made before.
func GetOrLoad[T any](ctx context.Context, c *Cache, key Key, load func(context.Context) (T, error), opts ...CallOption) (T, error) {
	if len(opts) == 0 && load != nil {
		if e := c.hit(key); e != nil {
			if v, ok := e.Value.(*T); ok {
				e.Owner.(*plan).counts.memoryHits.add()
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
// process. Of several Sets of one key at the same time, one is stored.
//
// If Redis is away or fails, Set stores nothing, removes what was cached, and returns nil. Where that fails too, it is
// logged and counted, and an older value may live in Redis until its TTL ends. Set itself fails only for bad arguments, a closed cache, or a value that is too
// large or that the codec refuses.
func Set[T any](ctx context.Context, c *Cache, key Key, value T, opts ...CallOption) error {
	s, o, err := newSlot[T](ctx, c, key, opts)
	if err != nil {
		return err
	}
	if o.refresh {
		return invalidArgument("Set takes no Refresh option: it always replaces what is cached")
	}
	hold(s, value, nil)
	return c.set(ctx, s)
}

// hit is the whole of a hit in memory but for the type of its value.
func (c *Cache) hit(key Key) *near.Entry {
	if c == nil || c.near == nil || key.policy == nil {
		return nil
	}
	e := c.near.Get(key.text)
	if e == nil || !e.Owner.(*plan).is(key.policy) {
		return nil
	}
	return e
}

// lookup is GetOrLoad after its first step has found nothing.
func lookup[T any](ctx context.Context, c *Cache, key Key, load func(context.Context) (T, error), opts []CallOption) (Result[T], error) {
	s, o, err := newSlot[T](ctx, c, key, opts)
	if err != nil {
		return Result[T]{}, err
	}
	if load == nil {
		return Result[T]{}, invalidArgument("the loader is nil: give the function that loads the value, or use Get")
	}
	out, ok := c.readNear(s)
	if !ok || o.refresh {
		out, err = c.fly(ctx, s, o.refresh, func(ctx context.Context, slots []*slot) {
			v, err := load(ctx)
			hold(slots[0], v, err)
		})
	}
	s.plan.counts.count(out, err)
	return resultOf[T](c, out, err)
}

func get[T any](ctx context.Context, c *Cache, key Key) (Result[T], error) {
	s, _, err := newSlot[T](ctx, c, key, nil)
	if err != nil {
		return Result[T]{}, err
	}
	out, ok := c.readNear(s)
	if !ok {
		// A load that has just been shared may still be on its way to Redis.
		out, ok = c.flights.Peek(s.flightKey())
		out.status, out.tier = StatusHit, TierMemory
	}
	if !ok && c.store != nil {
		budget, cancel := c.budget(ctx, s)
		ok = len(c.readStore(budget, []*slot{s}, func(_ *slot, o outcome) { out = o })) == 0
		cancel()
	}
	if !ok {
		err = ErrMiss
		if ctx.Err() != nil {
			err = ctx.Err()
		}
	}
	s.plan.counts.count(out, err)
	return resultOf[T](c, out, err)
}

// A slot is one key's way through the load path.
type slot struct {
	key       string
	plan      *plan
	typ       reflect.Type // of the value
	index     int          // of its id, in a batch
	ttl       time.Duration
	call      *flight.Call[flightKey, outcome]
	led       bool                // by this caller, not joined
	fence     *near.Fence         // taken before the load, in memory mode
	reject    redisstore.Rejected // the value in Redis that cannot be used
	keep      bool                // whether a loaded value may be stored
	supersede bool                // a Set or a Refresh: loads under way must not be stored over it
	status    Status              // what a load would be: a miss, or a fallback
	reason    string              // why it is none of the better ones
	timedOut  bool                // Redis did not answer in time

	nonce   wire.Nonce // of the lease that was asked for; zero if none was
	granted int64      // the server's time when it was granted, µs; 0 without one

	value any         // what the loader gave: a pointer to the typed value
	entry *near.Entry // for it, in the same allocation
	err   error
	out   outcome // what the callers got
}

// hold notes what a loader has come back with. The value and its entry in memory lie side by side, so that a hit waits for
// one line of memory and not for two.
func hold[T any](s *slot, value T, err error) {
	both := &struct {
		entry near.Entry
		value T
	}{value: value}
	s.value, s.entry, s.err = &both.value, &both.entry, err
}

func (s *slot) leased() bool { return s.granted != 0 }

// asked reports whether a lease may have been granted, told or not.
func (s *slot) asked() bool { return s.nonce != wire.Nonce{} }

// flights are told apart by type too: two callers that ask one key for different types each get a right answer.
type flightKey struct {
	key string
	typ reflect.Type
}

func (s *slot) flightKey() flightKey { return flightKey{s.key, s.typ} }

// An outcome is how one key's way through the load path ended well.
type outcome struct {
	value      any // a pointer to the typed value; nil for "not found"
	absent     error
	status     Status
	tier       Tier
	reason     string
	loadedAt   int64 // when the load began, on the cache's clock
	freshUntil int64
}

// usable is nil for a cache that New made and that is not closed.
func (c *Cache) usable() error {
	switch {
	case c == nil || c.clock == nil:
		return invalidArgument("the cache is nil or zero: make one with New")
	case c.closed.Load():
		return ErrClosed
	}
	return nil
}

func newSlot[T any](ctx context.Context, c *Cache, key Key, opts []CallOption) (*slot, callOptions, error) {
	if err := c.usable(); err != nil {
		return nil, callOptions{}, err
	}
	if ctx == nil {
		return nil, callOptions{}, invalidArgument("the context is nil: use context.Background() where there is none")
	}
	if err := key.Err(); err != nil {
		return nil, callOptions{}, err
	}
	pl, err := c.planOf(key.policy)
	if err != nil {
		return nil, callOptions{}, err
	}
	o, err := gather(opts)
	if err != nil {
		return nil, callOptions{}, err
	}
	return &slot{key: key.text, plan: pl, typ: reflect.TypeFor[T](), ttl: pick(o.ttl, pl.ttl), keep: true, status: StatusMiss, reason: "not cached"}, o, nil
}

// A loadFunc loads the slots it is given: it writes the value or the err of each.
type loadFunc func(ctx context.Context, slots []*slot)

// fly joins the flight of one key, or leads it, and waits for the result.
func (c *Cache) fly(ctx context.Context, s *slot, refresh bool, load loadFunc) (outcome, error) {
	if err := c.reentrant(ctx, s.key); err != nil {
		return outcome{}, err
	}
	s.supersede = refresh
	c.join(s)
	if s.led {
		c.flights.Run(ctx, s.plan.loadTimeout, func(ctx context.Context) { c.lead(ctx, []*slot{s}, refresh, load) }, s.call)
	}
	out, err := s.wait(ctx)
	if err != nil {
		return outcome{}, flightError(err, s.key)
	}
	if !s.led && out.status != StatusHit {
		out.reason = "shared a load in flight: " + out.reason
	}
	return out, nil
}

// join joins the flight of s's key, or leads it. What is under way when a Refresh comes may have read the source before: it
// is not joined, by the Refresh or by anyone who comes later.
func (c *Cache) join(s *slot) {
	if s.supersede {
		s.call, s.led = c.flights.JoinNew(s.flightKey(), func(k flightKey) bool { return k.key == s.key })
	} else {
		s.call, s.led = c.flights.Join(s.flightKey())
	}
}

// wait waits for a flight. One that was joined may be a batch of policies with more time than this key's.
func (s *slot) wait(ctx context.Context) (outcome, error) {
	if s.led {
		return s.call.Wait(ctx)
	}
	bounded, cancel := context.WithTimeout(ctx, s.plan.loadTimeout)
	defer cancel()
	out, err := s.call.Wait(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		err = flight.ErrTimeout
	}
	return out, err
}

// lead takes the keys of one flight along the load path: near, read, lease, load, share, fill. Each step hands on only what
// it could not answer.
func (c *Cache) lead(ctx context.Context, slots []*slot, refresh bool, load loadFunc) {
	pending := slots
	if c.near != nil {
		pending = c.recheckNear(slots, refresh)
		defer func() {
			for _, s := range slots {
				s.fence.End()
			}
		}()
	}
	if c.store == nil {
		c.loadAndShare(ctx, pending, load)
		return
	}

	// Redis is asked whether or not somebody still waits: a lease whose request was cut off would be held by nobody.
	budget, cancel := c.budget(context.WithoutCancel(ctx), pending...)
	if !refresh {
		pending = c.readStore(budget, pending, shareHit)
	}
	for pause := firstPoll; ; pause = min(2*pause, slowestPoll) {
		mine, held := c.takeLeases(budget, pending, refresh)
		cancel()
		// What is led is loaded and shared before anything that another process loads is waited for: two batches that
		// each hold a key of the other's would wait for each other.
		c.loadAndShare(ctx, mine, load)
		if len(held) == 0 || !sleep(ctx, jittered(pause)) {
			return
		}
		pending = held
		budget, cancel = c.budget(context.WithoutCancel(ctx), pending...)
	}
}

const (
	// Another process's load is looked at in growing intervals: a short one costs little latency, a long one little load.
	firstPoll   = 2 * time.Millisecond
	slowestPoll = 50 * time.Millisecond
)

// shareHit gives what was found to those who wait, and to nobody who comes later: the flight may go on for other keys,
// while the value grows old.
func shareHit(s *slot, out outcome) {
	s.call.Drop()
	s.call.Resolve(out, nil)
}

// readNear looks into memory.
func (c *Cache) readNear(s *slot) (outcome, bool) {
	if c.near == nil {
		return outcome{}, false
	}
	e := c.near.Get(s.key)
	if e == nil || e.Value != nil && reflect.TypeOf(e.Value).Elem() != s.typ {
		return outcome{}, false
	}
	return outcome{value: e.Value, absent: ErrNotFound, status: StatusHit, tier: TierMemory, reason: "fresh", loadedAt: e.LoadedAt, freshUntil: e.FreshUntil}, true
}

// recheckNear looks into memory again now that the flight is led: a load that ended between the first look and then would
// be repeated. The fences come first, before anything is read that an invalidation could overtake.
func (c *Cache) recheckNear(slots []*slot, refresh bool) (pending []*slot) {
	for _, s := range slots {
		s.fence = c.near.Fence(s.key)
		if out, ok := c.readNear(s); ok && !refresh {
			shareHit(s, out)
		} else {
			pending = append(pending, s)
		}
	}
	return pending
}

// readStore looks into Redis, in one round trip, and hands each usable value to found. The others are pending.
func (c *Cache) readStore(ctx context.Context, slots []*slot, found func(*slot, outcome)) (pending []*slot) {
	keys := make([]string, len(slots))
	for i, s := range slots {
		keys[i] = s.key
	}
	for i, r := range c.store.Read(ctx, keys...) {
		s := slots[i]
		switch {
		case r.Err != nil:
			c.redisFailed(ctx, s, r.Err)
		case r.Value != nil:
			if out, ok := c.open(s, r.Value); ok {
				found(s, out)
				continue
			}
		}
		pending = append(pending, s)
	}
	return pending
}

// takeLeases asks Redis for the right to fill. Keys that have a value by now are shared; of the others, mine are those
// to load here, and held those that another process is loading.
func (c *Cache) takeLeases(ctx context.Context, slots []*slot, refresh bool) (mine, held []*slot) {
	var asking []*slot
	var reqs []redisstore.Request
	for _, s := range slots {
		if !s.keep {
			mine = append(mine, s) // not to be stored, so there is nothing to ask for
			continue
		}
		s.nonce = wire.NewNonce()
		asking = append(asking, s)
		reqs = append(reqs, redisstore.Request{Key: s.key, Nonce: s.nonce.String(), Rejected: s.reject})
	}
	ask := c.store.Acquire
	if refresh {
		ask = c.store.Seize
	}
	for i, g := range ask(ctx, reqs...) {
		s := asking[i]
		switch {
		case g.Err != nil:
			c.redisFailed(ctx, s, g.Err)
			c.release(s) // in case it was granted all the same
			mine = append(mine, s)
		case g.Granted:
			s.granted = g.Now
			mine = append(mine, s)
		case g.Value == nil:
			held = append(held, s)
		default:
			if out, ok := c.open(s, g.Value); ok {
				out.status, out.reason = StatusMiss, "loaded by another caller"
				shareHit(s, out)
			} else {
				held = append(held, s) // rejected: ask again, naming it
			}
		}
	}
	return mine, held
}

// loadAndShare calls the loader once for slots, gives each result to all who wait for it, and stores it where that is
// allowed. However the loader ends, no lease outlives it.
func (c *Cache) loadAndShare(ctx context.Context, slots []*slot, load loadFunc) {
	if len(slots) == 0 {
		return
	}
	if ctx.Err() != nil { // nobody waits any more
		c.release(slots...)
		return
	}
	// Until the values are stored: encoding and sending them can take longer than a lease lives.
	leases := c.keepLeases(ctx, slots)
	defer close(leases.stored)
	done := false
	defer func() {
		if !done { // runtime.Goexit
			c.release(slots...)
		}
	}()

	l := &Load{cache: c, slots: slots, parent: loadOf(ctx)}
	start, took := c.callLoader(ctx, l, load)
	close(leases.loaded)

	var store, unstored []*slot
	for i, s := range slots {
		s.out = outcome{value: s.value, status: s.status, tier: TierOrigin, reason: s.reason, loadedAt: start, freshUntil: start}
		ttl, keep := l.decision(i)
		ttl = shorten(pick(ttl, s.ttl), s.plan.policy.Jitter)
		switch {
		case s.err == nil:
		case errors.Is(s.err, ErrNotFound):
			s.out.value, s.out.absent = nil, s.err
			ttl = s.plan.negativeTTL
		default:
			unstored = append(unstored, s)
			s.call.Resolve(outcome{}, loadError(ctx, s.err))
			continue
		}
		kept := keep && ttl > 0
		switch {
		case !kept:
		case c.near != nil:
			s.out.freshUntil += int64(ttl)
			kept = c.insert(s) == nil
		case s.leased():
			s.out.freshUntil += int64(ttl)
			store = append(store, s)
		default: // without a lease nothing is stored, and what a Refresh was to replace must go
			kept = !s.supersede
			if s.timedOut {
				defer c.learnSize(s) // when the callers have their values
			}
		}
		if !kept {
			unstored = append(unstored, s)
			if s.supersede {
				// The value that the caller wanted replaced must not come back.
				_, _ = c.remove(ctx, []*slot{s})
			}
		}
		if !s.leased() || !kept {
			s.call.Drop() // those who wait share it, and nobody else
		}
		s.call.Resolve(s.out, nil)
	}
	c.release(unstored...)
	c.fill(store, took)
	done = true
}

// callLoader calls the loader, counts how it ends, and turns a panic into the error of its slots: other keys of the flight
// may be in other hands. runtime.Goexit goes on, and ends the flight.
func (c *Cache) callLoader(ctx context.Context, l *Load, load loadFunc) (start int64, took time.Duration) {
	counts := l.slots[0].plan.counts
	counts.loads.Add(1)
	// A loader may ignore the end of its time, and come back late or never: its callers have failed by then.
	settled := context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), flight.ErrTimeout) {
			counts.loadErrors.Add(uint64(len(l.slots)))
		}
	})
	start = c.clock.Now()
	defer func() {
		l.end()
		took = time.Duration(c.clock.Now() - start)
		counts.loadTime.Add(int64(took))
		if p := recover(); p != nil {
			for _, s := range l.slots {
				s.value, s.err = nil, &flight.PanicError{Value: p, Stack: debug.Stack()}
			}
		}
		if !settled() {
			return // counted above, or nobody waited any more
		}
		for _, s := range l.slots {
			if s.err != nil && !errors.Is(s.err, ErrNotFound) {
				counts.loadErrors.Add(1)
			}
		}
	}()
	for _, s := range l.slots {
		s.err = flight.ErrGoexit // stands unless the loader says otherwise
	}
	load(context.WithValue(ctx, loadKey{}, l), l.slots)
	return start, took
}

// loadError is what the callers of a failed load get. A loader that came back because its time was up is reported as such,
// whatever its own error was.
func loadError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, flight.ErrTimeout) && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		return cause
	}
	return err
}
