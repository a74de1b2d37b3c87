package aside

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/guard"
	"github.com/gatewayz/aside/internal/health"
	"github.com/gatewayz/aside/internal/invalidate"
	"github.com/gatewayz/aside/internal/journal"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/lease"
	"github.com/gatewayz/aside/internal/lifetime"
	"github.com/gatewayz/aside/internal/loglimit"
	"github.com/gatewayz/aside/internal/stats"

	"github.com/gatewayz/aside/internal/backoff"
	"github.com/gatewayz/aside/internal/bulkhead"
	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/logs"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/scan"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// A Cache keeps values in this process's memory, or in Redis where Options names one. Make it with New. All its methods,
// and the functions that take one, may be used by many goroutines at once; on a nil cache they fail with an *Error.
//
// Values are shared: everyone who hits a value in memory, or waits for the same load, gets the same pointers, slices and
// maps, and the cache may still be encoding them. Do not change what you got from a cache or gave to it.
type Cache struct {
	opts         Options
	clock        *near.Clock
	near         *near.Cache
	store        *redisstore.Store // nil in memory mode
	sampler      sampler
	flights      flight.Group[flightKey, outcome]
	fills        sync.Map // key -> *filled
	checkedTypes sync.Map // typeAndCodec -> *atomic.Int32, how many values were checked
	failures     *backoff.Table
	plans        plans
	metrics      stats.Registry
	health       *health.Log
	loads        *bulkhead.Bulkhead
	journal      *journal.Journal // of invalidations; nil in memory mode
	scanner      *scan.Scanner    // nil in memory mode
	invalidator  *invalidate.Invalidator
	leases       *lease.Keeper // nil in memory mode
	tags         *tags.Registry
	closes       chan struct{}

	closing    sync.Once
	closed     atomic.Bool
	background lifetime.Group // all but flights, which are counted by their group
	warnSecret sync.Once

	panicLog loglimit.Limiter // panics of loaders
}

// New makes a cache. It fails for options that are wrong or contradict each other, with an error that names each of them,
// but never because Redis is away: it returns at once and connects in the background.
func New(opts Options) (*Cache, error) {
	opts, errs := opts.withDefaults()
	opts.Logger, opts.Redis = logs.Guard(opts.Logger), guard.Hooks(opts.Redis, sound)
	c := &Cache{opts: withoutCredentials(opts), closes: make(chan struct{})}
	errs = append(errs, c.registerAll()...)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	c.loads = bulkhead.New(opts.MaxLoads, opts.MaxQueuedLoads)
	c.clock = near.NewClock()
	c.failures = backoff.New(c.clock, opts.Backoff, opts.MaxBackoff)
	c.health = health.NewLog(opts.Logger)
	c.near = near.New(near.Options{MaxEntries: opts.MaxEntries, MaxBytes: opts.MaxBytes}, c.clock)
	c.tags = tags.New(c.near, c.clock)
	if opts.Check.Share > 0 {
		c.sampler.start(opts.Check)
		c.background.Go(c.sampling)
	}
	if len(opts.Redis.InitAddress) > 0 {
		c.journal = journal.New()
	}
	c.invalidator = c.newInvalidator()
	if len(opts.Redis.InitAddress) == 0 {
		return c, nil
	}
	c.store = redisstore.Open(redisstore.Options{
		Client:    opts.Redis,
		Namespace: opts.prefix(),
		OpTimeout: opts.OpTimeout,
		Lease:     opts.LeaseTTL,
		Format: redisstore.Format{
			Magic: wire.Magic, Version: wire.Version, Flags: wire.KnownFlags, LoadStart: wire.LoadStartOffset,
			Nonce: wire.NonceOffset, Chunked: wire.ChunkedFlag, Longest: min(opts.MaxValueBytes, math.MaxInt-wire.MaxOverhead) + wire.MaxOverhead, TagsLen: wire.TagsLenOffset, Tags: wire.HeaderLen,
		},
		Clock:   c.clock,
		OnState: c.health.Changed,
		Pushed:  c.invalidator.Pushed,
		Gap:     c.invalidator.Gap,
		Marked:  c.journal.Recover,
		Asked:   c.metrics.Calls,
	})
	c.tags.Connect(c.store, c.journal.Contains)
	c.scanner = scan.New(scan.Options{
		Store: c.store, Named: c.named, Categories: c.categories, Unconfirmed: c.journal.Contains,
		Now: c.clock.Now, Logger: opts.Logger,
	})
	sweeper := scan.NewSweeper(c.scanner)
	c.health.Ask(c.store.State)
	c.leases = lease.NewKeeper(c.store, opts.LeaseTTL, opts.MaxValueBytes, c.background.Go)
	ctx, stop := context.WithCancel(context.Background())
	c.invalidator.Connect(ctx, c.store, sweeper, c.scanner)
	c.background.Go(func() { c.store.Retry(ctx, c.leases.Waiting(), c.leases.ReleaseAgain) })
	c.background.Go(func() { sweeper.Run(ctx) })
	c.background.Go(func() { c.tags.Touch(ctx, c.categoriesInUse()) })
	c.background.Go(func() { <-c.closes; stop() })
	return c, nil
}

// closeGrace is how long Close waits for functions of the program's that do not come back: loaders that ignore the end of their
// context, say.
const closeGrace = 10 * time.Second

// Close ends the cache: later calls and those that wait for a load return ErrClosed, contexts of loaders end, and
// background work, stores included, is waited for, as are the calls that are under way; only functions of the program's that go on
// for 10 s, such as a loader regardless of its context, are left behind, and logged. It can be called more than once and always
// returns nil, also on a nil cache.
func (c *Cache) Close() error {
	if c == nil || c.clock == nil {
		return nil
	}
	c.closing.Do(func() {
		c.closed.Store(true)
		c.background.Close()
		close(c.closes)
		ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
		defer cancel()
		flying, others := c.flights.Close(ctx, ErrClosed), c.background.Wait(ctx)
		switch {
		case flying != nil:
			c.opts.Logger.Warn("aside: closed while loaders still run; they ignore the end of their context")
		case others != nil:
			c.opts.Logger.Warn("aside: closed while calls or OnInvalidated still run; a codec, or OnInvalidated itself, does not return")
		}
		if c.store != nil {
			c.store.Close()
		}
		c.health.Stop()
		c.failures.Close()
		c.near.Close()
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
				if c.sampler.drawn(counts.MemoryHits.Add()) {
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
	s, o, err := newSlot[T](ctx, c, key, opts)
	if err != nil {
		return err
	}
	if o.refresh || o.strong {
		return invalidArgument("Set takes neither Refresh nor Strong: it always replaces what is cached")
	}
	if !c.background.Enter() {
		return ErrClosed
	}
	defer c.background.Leave()
	s.given = give(value, nil)
	return c.set(ctx, s)
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
	pl := e.Scope.Owner.(*plan)
	if !pl.is(key.policy) {
		return nil, nil
	}
	return e.Value, pl.counts
}

// lookup is GetOrLoad after its first step has found nothing.
func lookup[T any](ctx context.Context, c *Cache, key Key, load func(context.Context) (T, error), opts []CallOption) (Result[T], error) {
	s, _, err := newSlot[T](ctx, c, key, opts)
	if err != nil {
		return Result[T]{}, err
	}
	if load == nil {
		return Result[T]{}, invalidArgument("the loader is nil: give the function that loads the value, or use Get")
	}
	out, err := c.answer(ctx, s, loadsOne(load))
	out.count(s.plan.counts, err)
	if c.sampler.draws(out, err) && c.sampler.hasRoom(ctx, s.plan.counts) {
		c.sampler.take(newSample[T](ctx, s.key, s.plan, loadsOne(load)))
	}
	return resultOf[T](c, out, err)
}

// loadsOne is load as a flight calls it.
func loadsOne[T any](load func(context.Context) (T, error)) loadFunc {
	return func(ctx context.Context, ids []int, found func(int, given)) {
		found(ids[0], give(load(ctx)))
	}
}

func get[T any](ctx context.Context, c *Cache, key Key) (Result[T], error) {
	s, _, err := newSlot[T](ctx, c, key, nil)
	if err != nil {
		return Result[T]{}, err
	}
	out, ok := c.peek(ctx, s)
	if !ok {
		err = ErrMiss
		switch {
		case ctx.Err() != nil:
			err = ctx.Err()
		case c.closed.Load():
			err = ErrClosed
		}
	}
	out.count(s.plan.counts, err)
	return resultOf[T](c, out, err)
}

// peek finds what is cached, without a load.
func (c *Cache) peek(ctx context.Context, s *slot) (out outcome, ok bool) {
	out, ok = c.readNear(s)
	if !ok {
		// A load that has just been shared may still be on its way to Redis.
		out, ok = c.flights.Peek(s.flightKey())
		out.status, out.tier = StatusHit, TierMemory
	}
	if !ok && c.store != nil && c.background.Enter() {
		defer c.background.Leave()
		out, ok = c.peekStore(ctx, s)
	}
	return out, ok
}

// peekStore finds what Redis holds. However a codec ends the goroutine, the fences are ended.
func (c *Cache) peekStore(ctx context.Context, s *slot) (out outcome, ok bool) {
	calm := guard.Context(ctx)
	c.awaitFirst(calm, s)
	budget, cancel := c.budget(calm, s)
	defer cancel()
	m := c.tags.Snapshot()
	defer m.End()
	defer func() { s.fence.End() }()
	c.fence(s, m, nil)
	ok = len(c.readStore(budget, m, []*slot{s}, func(_ *slot, o outcome) { out = o })) == 0
	if !ok && s.status == StatusFallback {
		out, ok = c.readStale(s)
	}
	return out, ok
}

// A request is what is asked of one key. It does not change, but that the second of two ids with one key shares what the first begins.
type request struct {
	key       string
	plan      *plan
	typ       reflect.Type // of the value
	ttl       time.Duration
	tags      []string // what it can be invalidated by, beside its key
	strong    bool     // nothing that memory holds is good enough
	supersede bool     // a Set or a Refresh: loads under way must not be stored over it
	index     int      // of its id, in a batch
}

// A slot is one key's way through the load path: a request, and what each step has found.
type slot struct {
	request
	flying
	seen
	grant
	miss
	loaded
	out outcome // what the callers got
}

// flying is the flight of a slot.
type flying struct {
	call         *flight.Call[flightKey, outcome]
	led          bool                             // by this caller, not joined
	caller       context.Context                  // of who leads it; nil otherwise
	left         atomic.Int64                     // when that one found its context ended, on the cache's clock; 0 until then
	waiter       *flight.Call[flightKey, outcome] // of the load that waits for it, where that is known
	ticket       flight.Ticket                    // when it came, of a Strong call and a Refresh
	waitingSince time.Time                        // when it began to wait for another one's end; zero where it has not
	tagEvents    tags.Events                      // when the slot joined its flight, or began it
	apart        func([]*slot)                    // leads other slots of the batch on a goroutine of their own; nil outside of one
}

// seen is what a slot has read.
type seen struct {
	fence       *near.Fence         // taken before anything is read
	notice      tags.Notice         // of its key, as it was read last
	read        bool                // Redis was asked what it holds, or is not to be asked
	unanswered  bool                // Redis did not say what it holds
	began       int64               // when its fence was taken, on the cache's clock
	captured    tags.Capture        // the generations of its tags, from before the load
	reject      redisstore.Rejected // the value in Redis that cannot be used
	outdated    bool                // what Redis has is out of date by its manifest
	quarantined bool                // Redis may still hold what this process has invalidated
}

// A miss is why there is no hit, and what that means for the load.
type miss struct {
	status   Status // what a load would be: a miss, or a fallback
	reason   string // why it is none of the better ones
	keep     bool   // whether a loaded value may be stored
	timedOut bool   // Redis did not answer in time
	unasked  error  // why Redis is not asked: it has just not taken what was to be stored
}

// notCached is a miss as a slot begins with it.
var notCached = miss{status: StatusMiss, reason: "not cached", keep: true}

// A grant is the right to store a value.
type grant struct {
	nonce   wire.Nonce  // of the lease that was asked for; zero if none was
	granted int64       // the server's time when it was granted, µs; 0 without one
	lost    atomic.Bool // Redis has said that it is not held any more
	quiet   bool        // its value is in memory, which a word to those who wait for the lease would take away
}

// A given is what a loader has come back with for one key. Its value and the entry in memory lie side by side, so that a hit waits for one
// line of memory and not for two.
type given struct {
	value    any         // a pointer to the typed value
	entry    *near.Entry // for it, in the same allocation
	err      error
	notFound bool // err says that there is no such thing, and nothing else
}

// loaded is what has come of a load.
type loaded struct {
	given
	lateNames []string // the tags that its loader has named
	ownTTL    bool     // its TTL is not the policy's
}

// give makes what a typed loader has come back with one that the load path takes.
func give[T any](value T, err error) given {
	both := &struct {
		entry near.Entry
		value T
	}{value: value}
	g := failed(err)
	g.value, g.entry = &both.value, &both.entry
	return g
}

// failed is what a loader has come back with that has no value, where err is not nil.
func failed(err error) given {
	err = sound(err)
	return given{err: err, notFound: isNotFound(err)}
}

func (s *slot) leased() bool { return s.granted != 0 }

// asked reports whether a lease may have been granted, told or not.
func (s *slot) asked() bool { return s.nonce != wire.Nonce{} }

// flights are told apart by policy and type too: of two callers that ask one key for different things each gets a right answer.
type flightKey struct {
	key  string
	typ  reflect.Type
	plan *plan
}

func (s *slot) flightKey() flightKey { return flightKey{s.key, s.typ, s.plan} }

// An outcome is how one key's way through the load path ended well.
type outcome struct {
	value      any // a pointer to the typed value; nil for "not found"
	absent     error
	status     Status
	tier       Tier
	reason     string
	loadedAt   int64 // when the load began, on the cache's clock
	freshUntil int64
	late       bool   // it has tags that its callers have not named
	tagEvents  uint64 // that were known of when the flight began
	untold     bool   // nobody would have told this process of a change of those tags
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

// arrive is usableWith for a call that Close waits for. It ends with c.background.Leave.
func (c *Cache) arrive(ctx context.Context) error {
	if err := c.usableWith(ctx); err != nil {
		return err
	}
	if !c.background.Enter() {
		return ErrClosed
	}
	return nil
}

func newSlot[T any](ctx context.Context, c *Cache, key Key, opts []CallOption) (*slot, callOptions, error) {
	if err := c.usableWith(ctx); err != nil {
		return nil, callOptions{}, err
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
	s := &slot{
		request: request{
			key: key.text, plan: pl, typ: reflect.TypeFor[T](), ttl: cmp.Or(o.ttl, pl.ttl), tags: pl.tags,
			strong: o.strong, supersede: o.refresh,
		},
		miss: notCached,
	}
	if len(o.tags) > 0 {
		s.tags = slices.Concat(pl.tags, o.tags)
	}
	return s, o, nil
}

// A loadFunc loads requests by their indexes, and gives the result of each.
type loadFunc func(ctx context.Context, indexes []int, found func(index int, g given))

// join joins the flight of s's key, or leads it. What is under way when a Refresh or a Strong call comes may have read
// the source before: it is not joined. Where that is such a call too, join returns what is closed when it has ended: see outwait.
//
// No code of the program's runs after the flight is led: what ended the goroutine there would leave a flight that never runs.
func (c *Cache) join(ctx context.Context, s *slot) (ended <-chan struct{}, err error) {
	l := loadOf(ctx).underWay()
	s.tagEvents = c.tags.Events()
	if s.supersede || s.strong {
		if s.call, s.led, ended = c.joinFresh(s, l == nil); ended != nil {
			return ended, nil
		}
	} else {
		s.call, s.led = c.flights.Join(s.flightKey())
	}
	if s.led {
		s.caller = ctx
	}
	return nil, c.awaited(l, s)
}

// tooLate reports whether s has joined a load, or a read of Redis, that turned out to have a tag which may have been invalidated
// before s came. Nobody could know: a loader names such tags when it has loaded, and what is in Redis when it is read.
func (s *slot) tooLate(out outcome) bool {
	return !s.led && out.late && (out.tagEvents != s.tagEvents.All || out.untold)
}

// wait waits for a flight. One that was joined may be a batch of policies with more time than this key's.
func (s *slot) wait(ctx context.Context, clock *near.Clock) (out outcome, err error) {
	defer s.forgo()
	defer func() {
		if err != nil {
			s.leave(clock)
		}
	}()
	if s.led && s.waitingSince.IsZero() {
		return s.call.Wait(ctx)
	}
	left := s.plan.loadTimeout
	if !s.waitingSince.IsZero() {
		left -= time.Since(s.waitingSince)
	}
	t := time.NewTimer(left)
	defer t.Stop()
	return s.call.WaitFor(ctx, t.C)
}

// lead takes the keys of one flight along the load path: near, read, lease, load, share, fill. Each step hands on only what
// it could not answer.
func (c *Cache) lead(ctx context.Context, slots []*slot, load loadFunc) {
	m := c.tags.Snapshot()
	wake := make(chan struct{}, 1)
	defer func() {
		for _, s := range slots {
			s.fence.End()
		}
		m.End()
	}()
	c.awaitFirst(ctx, slots...)
	pending := c.recheckNear(ctx, slots, m, wake)
	if c.store == nil {
		m.Renew(true)
		m.Local()
		for _, s := range pending {
			m.Capture(&s.captured, s.tags)
			s.guard(c, m)
		}
		c.loadAndShare(ctx, m, c.holdBack(pending), load)
		return
	}

	began := c.clock.Now()
	lookedAgain := false // at once, the last time: not twice, or a server that contradicts itself would be asked without a pause
	for pause := firstPoll; ; pause = min(2*pause, slowestPoll) {
		// Redis is asked whether or not somebody still waits: a lease whose request was cut off would be held by nobody.
		budget, cancel := c.budget(context.WithoutCancel(ctx), pending...)
		pending = c.holdBack(c.readStore(budget, m, pending, shareHit))
		after, cancelAfter := c.store.More(budget, 0, 1) // chunks may have taken longer than was foreseen
		mine, held, again := c.takeLeases(after, m, pending)
		cancelAfter()
		cancel()
		held, late := c.waitedEnough(m, held, began)
		mine = append(mine, late...)
		// What is led is loaded and shared before anything that another process loads is waited for: two batches that
		// each hold a key of the other's would wait for each other.
		c.loadAndShare(ctx, m, c.shareStale(mine), load)
		if len(held) == 0 || ctx.Err() != nil {
			return
		}
		if again = again && !lookedAgain; !again && !c.await(ctx, held[0].call, wake, pause) {
			return
		}
		lookedAgain = again
		select {
		case <-wake: // whatever it was about is read now
		default:
		}
		for _, s := range held {
			if s.fence.BrokenHere() { // it has told what it had to tell
				c.fence(s, m, wake)
			}
		}
		pending = held
	}
}

// waitedEnough tells those slots apart that have waited for another process's lease for half of the time that a load may take. That
// one may be stuck, or the lease nobody's; they are loaded without one while there is still time to.
func (c *Cache) waitedEnough(m *tags.Snapshot, held []*slot, began int64) (waiting, enough []*slot) {
	waited := time.Duration(c.clock.Now() - began)
	for _, s := range held {
		if waited < s.plan.loadTimeout/2 {
			waiting = append(waiting, s)
			continue
		}
		s.keep, s.reason = false, "another process has held the lease for too long"
		s.guard(c, m)
		enough = append(enough, s)
	}
	return waiting, enough
}

const (
	// Another process's load is looked at when Redis tells of a change, and in growing intervals: pushes can be lost, and
	// the end of a lease whose holder has died is told to nobody. A short interval costs little latency, a long one little
	// load.
	firstPoll   = 2 * time.Millisecond
	slowestPoll = 100 * time.Millisecond
)

// await waits until something happens to a key that another process loads. It reports false if nobody waits any more.
func (c *Cache) await(ctx context.Context, call *flight.Call[flightKey, outcome], wake <-chan struct{}, pause time.Duration) bool {
	if c.store.Tracked() {
		pause = max(pause, slowestPoll/2)
	}
	t := time.NewTimer(jittered(pause))
	defer t.Stop()
	call.Rest()
	defer call.Work()
	select {
	case <-ctx.Done():
		return false
	case <-wake:
	case <-t.C:
	}
	return true
}

// fence takes the fences of a slot, before anything is read that a change could overtake, and keeps those who come after a
// change from joining its flight. What is in quarantine is looked up last:
//
//  1. The flight is there, and has no guard yet: whoever comes may join it, since what it reads is as new as he is.
//  2. An invalidation that Redis has not confirmed is entered. It breaks the fences that are taken already.
//  3. A caller comes, and joins.
//  4. The guard is up. It keeps out those who come from now on, but not him: the flight must not read what Redis still holds.
func (c *Cache) fence(s *slot, m *tags.Snapshot, wake chan<- struct{}) {
	s.fence.End()
	s.began, s.read, s.unanswered = c.clock.Now(), false, false
	s.fence, s.notice, s.captured.Tags = c.near.Fence(s.key, wake), c.tags.Notice(s.key), nil
	m.Add(s.tags...)
	m.Add(keyspace.Sequence)
	s.guard(c, m)
	c.seeQuarantine(s, m)
}

// seeQuarantine looks up which of s's names Redis must not be asked for.
func (c *Cache) seeQuarantine(s *slot, m *tags.Snapshot) {
	s.quarantined = c.journal.Contains(s.key)
	m.Recheck(s.tags)
}

// shareHit gives what was found to those who wait, and to nobody who comes later: the flight may go on for other keys,
// while the value grows old.
func shareHit(s *slot, out outcome) {
	s.call.Drop()
	s.call.Resolve(out, nil)
}

// readNear looks into memory.
func (c *Cache) readNear(s *slot) (outcome, bool) {
	if s.supersede || s.strong && c.store != nil {
		return outcome{}, false
	}
	e := c.near.Get(s.key)
	if e == nil || !s.ours(e) {
		return outcome{}, false
	}
	value, ok := e.Value, holds(e.Value, s.typ)
	if !ok && c.store == nil { // else Redis is asked, and what it has is kept as this type
		if !s.covers(e.Value) {
			s.reason = reasonNarrower
		} else if value, ok = c.as(e.Value, s); !ok {
			s.reason = "the stored value cannot be used"
		}
	}
	if !ok {
		return outcome{}, false
	}
	out := outcome{status: StatusHit, tier: TierMemory, reason: "fresh", loadedAt: e.LoadedAt, freshUntil: e.FreshUntil}
	out.found(value)
	return out, true
}

// found notes what memory holds.
func (o *outcome) found(value any) {
	if isAbsent(value) {
		o.absent = absentError(value)
		return
	}
	o.value = value
}

// readDegraded looks into memory for a value that nobody vouches for, while Redis is away. A Strong call is not answered with
// one: it asks for what Redis holds, or what the loader finds.
func (c *Cache) readDegraded(s *slot) (outcome, bool) {
	if c.store == nil || !c.away(s) {
		return outcome{}, false
	}
	before := s.reason
	s.reason = redisstore.ErrUnavailable.Error()
	out, ok := c.readStale(s)
	s.reason = before // it may be there by the time that a load begins
	return out, ok
}

// away reports whether a server is away that s cannot do without: that of its key, or of a tag.
func (c *Cache) away(s *slot) bool {
	if c.store.AllUp() {
		return false
	}
	return !c.store.UpFor(s.key) || slices.ContainsFunc(s.tags, func(tag string) bool { return !c.store.UpFor(tag) })
}

// readStale looks into memory for a value that nobody vouches for, where Redis could not be asked for a better one.
func (c *Cache) readStale(s *slot) (outcome, bool) {
	if s.supersede || s.strong {
		return outcome{}, false
	}
	e := c.near.Stale(s.key)
	if e == nil || !s.ours(e) || !s.covers(e.Value) {
		return outcome{}, false
	}
	value, ok := c.as(e.Value, s)
	if !ok {
		return outcome{}, false
	}
	out := outcome{status: StatusStale, tier: TierMemory, reason: s.reason, loadedAt: e.LoadedAt, freshUntil: e.LoadedAt}
	out.found(value)
	return out, true
}

// shareStale gives those who wait what memory has, where Redis could not be asked for a better value, and passes the slots
// that have to be loaded. Where Redis has said what it holds, and would only not take a new value, what memory has without a word
// from Redis is no better than that.
func (c *Cache) shareStale(slots []*slot) (others []*slot) {
	for _, s := range slots {
		if s.status == StatusFallback && (s.unanswered || c.away(s)) {
			if out, ok := c.readStale(s); ok {
				shareHit(s, out)
				continue
			}
		}
		others = append(others, s)
	}
	return others
}

// holds reports whether a value in memory is one of typ.
func holds(value any, typ reflect.Type) bool {
	if isAbsent(value) {
		return true
	}
	if e, ok := value.(*encoded); ok {
		return e.typ == typ
	}
	return reflect.TypeOf(value).Elem() == typ
}

// recheckNear takes the fences, and looks into memory again now that the flight is led: a load that ended between the first
// look and then would be repeated.
func (c *Cache) recheckNear(ctx context.Context, slots []*slot, m *tags.Snapshot, wake chan<- struct{}) (pending []*slot) {
	for _, s := range slots {
		s.tagEvents = c.tags.Events()
		if s.supersede {
			c.near.Break(s.key) // of the loads under way, none is stored any more
		}
		c.fence(s, m, wake)
		if f, ok := c.fills.Load(s.key); ok && !s.supersede && !s.strong {
			// Redis tells of this process's own change like of any other, so nobody joins the flight that stores the value
			// any more. But it is about to be here: reading and decoding it once more would take longer. Where Redis did not
			// answer, this has been the wait for Redis that a call may have: there is not to be a second one.
			select {
			case <-f.(*filled).over:
				s.unasked = f.(*filled).err
			case <-ctx.Done():
			}
		}
		if out, ok := c.readNear(s); ok {
			shareHit(s, out)
			continue
		}
		if e := c.near.Get(s.key); e != nil && !s.ours(e) && !s.supersede {
			c.sharedKey(s, e.Scope.Owner.(*plan).owner)
		}
		pending = append(pending, s)
	}
	return pending
}

// readStore looks into Redis, in one round trip, and hands each usable value to found. The others are pending. The
// generations that memory does not know come along; a second round trip is for those of tags that nobody but the value
// itself has named.
func (c *Cache) readStore(ctx context.Context, m *tags.Snapshot, slots []*slot, found func(*slot, outcome)) (pending []*slot) {
	if len(slots) == 0 {
		return nil
	}
	slots, pending = c.apart(m, slots)
	if len(slots) == 0 && !slices.ContainsFunc(pending, func(s *slot) bool { return s.unasked == nil }) {
		for _, s := range pending {
			s.read = true // for the time that the load takes, nobody tells this process of anything
			s.guard(c, m)
		}
		return pending
	}
	if len(slots) > 0 {
		m.Renew(!slots[0].strong)
	}
	values := c.look(ctx, m, slots, pending)
	slots, values = c.setApart(m, slots, values)
	var sealed []*sealed
	for i, s := range slots {
		r := values[i]
		s.notice.Voucher, s.reject, s.unanswered = r.Voucher, redisstore.Rejected{}, false
		switch {
		case r.Err != nil:
			c.redisFailed(ctx, s, r.Err)
			s.unanswered = s.status == StatusFallback
		case c.journal.Contains(s.key): // what was confirmed is in doubt since: the reply may be another server's
			s.quarantine()
		case r.Value != nil && !s.supersede:
			if v, ok := c.unseal(ctx, s, r); ok {
				sealed = append(sealed, v)
				m.AddStored(v.header.Tags, !s.strong)
				continue
			}
		}
		pending = append(pending, s)
	}
	if lacksTags(m, sealed) {
		after, cancel := c.store.More(ctx, 0, 1) // chunks may have taken longer than was foreseen
		c.look(after, m, nil, nil)
		cancel()
	}
	for _, v := range sealed {
		if out, ok := c.open(ctx, m, v); ok {
			found(v.slot, out)
		} else {
			pending = append(pending, v.slot)
		}
	}
	for _, s := range pending {
		s.read = true
		if err := m.Unanswered(s.tags); err != nil && s.keep {
			c.redisFailed(ctx, s, err)
		}
		m.Capture(&s.captured, s.tags)
		s.guard(c, m)
	}
	return pending
}

// apart tells those slots that may be read in Redis from those that must not be, because Redis has not confirmed that they
// were invalidated: neither is what it has of them trusted, nor is anything stored there. Nor are those read that have waited
// for Redis in vain already.
func (c *Cache) apart(m *tags.Snapshot, slots []*slot) (readable, others []*slot) {
	for _, s := range slots {
		switch {
		case s.quarantined || m.Quarantined(s.tags):
			s.quarantine()
		case s.unasked != nil:
			s.status, s.keep, s.reason = StatusFallback, false, redisstore.Describe(s.unasked)
		default:
			readable = append(readable, s)
			continue
		}
		others = append(others, s)
	}
	return readable, others
}

func (s *slot) quarantine() {
	s.status, s.keep, s.reason = StatusFallback, false, "redis has not confirmed an invalidation yet"
}

// look reads the values of slots, and the generations that m does not know. Of quarantined slots, whose values are not trusted, it
// reads just enough for Redis to tell of their changes: what is loaded for them is kept and shared only if it does.
func (c *Cache) look(ctx context.Context, m *tags.Snapshot, slots, quarantined []*slot) []redisstore.Read {
	unread := m.Unread()
	looks := make([]redisstore.Look, 0, len(slots)+unread+len(quarantined))
	for _, s := range slots {
		l := redisstore.Look{Key: s.key, Fence: s.fence}
		if s.supersede {
			l.Head = wire.HeadLen // only so that Redis tells of changes
		}
		looks = append(looks, l)
	}
	looks = m.Looks(looks)
	var others []*slot
	for _, s := range quarantined {
		if s.unasked == nil {
			others = append(others, s)
			looks = append(looks, redisstore.Look{Key: s.key, Fence: s.fence, Head: 1})
		}
	}
	if len(looks) == 0 {
		return nil
	}
	reads := c.store.Look(ctx, looks...)
	m.Learn(reads[len(slots) : len(slots)+unread])
	for i, s := range others {
		s.notice.Voucher = reads[len(slots)+unread+i].Voucher
	}
	return reads[:len(slots)]
}

// takeLeases asks Redis for the right to fill, and for the generations that are still unknown. Of the slots, mine are those
// to load here, and held those that another process is loading, or has loaded by now: then it is worth looking again at
// once.
func (c *Cache) takeLeases(ctx context.Context, m *tags.Snapshot, slots []*slot) (mine, held []*slot, again bool) {
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
	if len(asking) == 0 {
		return mine, nil, false
	}
	ask := c.store.Acquire
	if asking[0].supersede {
		ask = c.store.Seize
	}
	lives := make(map[string]time.Duration) // of the generations of their tags
	for _, s := range asking {
		for _, tag := range s.tags {
			lives[tag] = max(lives[tag], s.tagLife())
		}
	}
	asked := m.Asks(lives)
	grants, gens := ask(ctx, asked.Tags, reqs...)
	m.Given(ctx, asked, gens)
	for i, g := range grants {
		s := asking[i]
		switch {
		case g.Err != nil:
			c.redisFailed(ctx, s, g.Err)
			s.guard(c, m)
			if errors.Is(g.Err, redisstore.ErrUnavailable) {
				s.nonce = wire.Nonce{} // nobody was asked
			}
			c.release(s) // in case it was granted all the same
			mine = append(mine, s)
		case g.Granted:
			s.granted = g.Now
			if !m.Capture(&s.captured, s.tags) { // without its generations nothing can be stored
				c.release(s)
				s.granted = 0
			}
			s.guard(c, m)
			mine = append(mine, s)
		default:
			again = again || g.Present
			held = append(held, s)
		}
	}
	return mine, held, again
}

// loadAndShare calls the loader once for slots, gives each result to all who wait for it, and stores it where that is
// allowed. However the loader ends, no lease outlives it.
func (c *Cache) loadAndShare(ctx context.Context, m *tags.Snapshot, slots []*slot, load loadFunc) {
	if len(slots) == 0 {
		return
	}
	slices.SortStableFunc(slots, func(s, t *slot) int { return s.index - t.index }) // as the loader is promised them
	if ctx.Err() != nil {                                                           // nobody waits any more
		c.release(slots...)
		return
	}
	// Until the values are stored: encoding and sending them can take longer than a lease lives.
	leases := c.holdLeases(ctx, slots)
	defer close(leases.Stored)
	done := false
	defer func() {
		if !done { // runtime.Goexit
			c.release(slots...)
		}
	}()

	parent := parentOf(ctx) // before there is a place that nobody would leave
	leave, ok := c.place(ctx, slots[0].call)
	switch {
	case !ok:
		c.overloaded(slots)
	case ctx.Err() != nil: // while it waited for its place
		leave()
		ok = false
	}
	if !ok {
		close(leases.Loaded)
		c.release(slots...)
		done = true
		return
	}
	// Of what is loaded without Redis, no reply has armed the fences; but it may well tell of a change while the load runs.
	for _, s := range slots {
		if s.status == StatusFallback && !s.leased() {
			s.fence.Await()
			m.Await(s.tags)
		}
	}
	l := &Load{cache: c, slots: slots, parent: parent}
	start, took := func() (int64, time.Duration) {
		defer leave()
		return c.callLoader(ctx, l, load)
	}()
	close(leases.Loaded)

	var store, unstored []*slot
	for _, i := range smallFirst(slots) {
		s, d := slots[i], l.decision(i)
		s.out = outcome{
			value: s.value, status: s.status, tier: TierOrigin, reason: s.reason, loadedAt: start, freshUntil: start,
			late: len(d.tags) > 0, tagEvents: s.tagEvents.All,
		}
		ttl := cmp.Or(d.ttl, s.ttl)
		s.ownTTL = ttl != s.plan.ttl
		ttl = shorten(ttl, s.plan.policy.Jitter)
		switch {
		case s.err == nil && s.plan.policy.Private:
			s.err = s.own(c.limits())
		case s.notFound:
			s.out.value, s.out.absent = nil, s.err
			s.err, ttl, s.ownTTL = nil, s.plan.negativeTTL, false
		}
		if s.err != nil {
			unstored = append(unstored, s)
			s.call.Resolve(outcome{}, loadError(ctx, s.err))
			continue
		}
		s.lateNames = d.tags
		if s.out.late {
			s.out.untold = c.untoldOfLateTags(m, s)
			s.guard(c, m)
		}
		kept := d.keep && ttl > 0
		switch {
		case !kept:
		case c.store == nil:
			s.out.freshUntil += int64(ttl)
			kept = c.insertLoaded(ctx, m, s) == nil
		case s.leased():
			s.out.freshUntil += int64(ttl)
			store = append(store, s)
			if s.supersede {
				c.near.Discard(s.key, start) // until the new value is in its place, those who come get it from here
			}
		default: // without a lease nothing is stored in Redis, and what a Refresh was to replace must go
			kept = !s.supersede
			if kept {
				c.keepWithoutLease(m, s, start, ttl)
			}
			if s.timedOut {
				defer c.learnSize(s) // when the callers have their values
			}
		}
		if !kept {
			unstored = append(unstored, s)
			if s.supersede {
				// The value that the caller wanted replaced must not come back.
				c.removeOld(ctx, s)
			}
		}
		if !s.leased() || !kept {
			s.call.Drop() // those who wait share it, and nobody else
		}
		s.call.Resolve(s.out, nil)
	}
	c.release(unstored...)
	for _, part := range c.parts(store) {
		c.fill(m, part, took)
	}
	done = true
}

// place takes a place in the bulkhead for the loader of a call. A load that waits for its place ends when nobody waits for it.
func (c *Cache) place(ctx context.Context, call *flight.Call[flightKey, outcome]) (leave func(), ok bool) {
	end := func(p *bulkhead.Place) bool { return call.EndDeserted(p) }
	p := c.loads.TryEnter(end)
	if p == nil {
		p, ok = func() (*bulkhead.Place, bool) {
			call.Rest()
			defer call.Work()
			return c.loads.Enter(ctx, call.Hurried(), end)
		}()
		if !ok {
			return func() {}, false
		}
	}
	call.Watch(p)
	return func() {
		call.Unwatch(p) // before the place is somebody else's
		p.Leave()
	}, true
}

// overloaded refuses loads for which there is no room.
func (c *Cache) overloaded(slots []*slot) {
	for _, s := range slots {
		s.plan.counts.Overloads.Add(1)
		s.call.Resolve(outcome{}, &Error{
			Code: CodeOverloaded, Key: s.key,
			Message: "too many loads run and wait: raise Options.MaxLoads where the source can take more, or call less",
		})
	}
}

// callLoader calls the loader, counts how it ends, and turns a panic into the error of its slots: other keys of the flight
// may be in other hands. runtime.Goexit goes on, and ends the flight.
func (c *Cache) callLoader(ctx context.Context, l *Load, load loadFunc) (start int64, took time.Duration) {
	counts := l.slots[0].plan.counts
	counts.Loads.Add(1)
	before := c.failures.Last()
	// A loader may ignore the end of its time, and come back late or never: its callers have failed by then.
	settled := context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), flight.ErrTimeout) {
			for _, s := range l.slots {
				c.loadFailed(s, flight.ErrTimeout, before)
			}
		}
	})
	start = c.clock.Now()
	defer func() {
		l.end()
		took = time.Duration(c.clock.Now() - start)
		counts.LoadTime.Add(int64(took))
		if p := recover(); p != nil {
			for _, s := range l.slots {
				s.given = given{err: sound(&flight.PanicError{Value: p, Stack: debug.Stack()})}
			}
		}
		for i, s := range l.slots {
			if s.err != nil && !s.notFound {
				continue
			}
			if err := s.refusedTags(l.decision(i).tags); err != nil {
				s.err, s.notFound = err, false
			}
		}
		c.logPanics(l.slots)
		if !settled() || ctx.Err() != nil && !errors.Is(context.Cause(ctx), flight.ErrTimeout) {
			return // counted above, or nobody waited any more: the loader can hear of that before settled does
		}
		for _, s := range l.slots {
			if s.err != nil && !s.notFound {
				c.loadFailed(s, s.err, before)
			} else {
				c.failures.ForgetOwn(s.key, s.plan.owner)
			}
		}
	}()
	indexes := make([]int, len(l.slots))
	for i, s := range l.slots {
		indexes[i], s.err = s.index, flight.ErrGoexit // which stands unless the loader says otherwise
	}
	inLoader(func() {
		load(context.WithValue(ctx, loadKey{}, l), indexes, func(index int, g given) {
			at, _ := slices.BinarySearchFunc(l.slots, index, func(s *slot, index int) int { return s.index - index })
			l.slots[at].given = g
		})
	})
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
