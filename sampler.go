package aside

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"time"

	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/loglimit"
	"github.com/gatewayz/aside/internal/stats"
	"github.com/gatewayz/aside/internal/wire"
)

// A Check compares a small share of hits with what their loaders return now, in the background, and counts in Metrics how
// many of them were wrong: Checked, Inconsistent and Unchecked, and InconsistentPerMillion. It finds what no invalidation was
// sent for, and what did not arrive. The zero value checks nothing. It is the idea of Meta's Polaris.
//
// A value that differs is no inconsistency yet: its invalidation may be under way. It counts, and is logged with its key at
// most once in ten seconds, if after Within it is still served, was not replaced meanwhile, and still differs from what the
// loader returns then. Nothing is invalidated, since the loader's own source may lag behind. Where a policy relies on its TTL
// alone, what is counted is the price of that.
//
// Two values are the same if the policy's Codec encodes them to the same bytes, or to bytes that decode to values that are
// deeply equal, or equal by a method Equal(T) bool of their type T: what a codec leaves out is not compared, and a value with
// the time of its load in it differs from every other unless its Equal leaves that out. In memory mode too the codec is run.
//
// A check takes no time of any caller. It calls the loader as a load does, on a context with the values of the call that was
// drawn, for the policy's LoadTimeout at most, two at a time. It does so only where MaxLoads leaves it a place, and its
// context ends as soon as a caller's load needs that. Its errors and panics are nobody's, and such a value counts as
// unchecked. Loads and LoadErrors do not count it.
type Check struct {
	// Share of hits to check, from 0 to 1: of those in memory and in Redis whose callers brought a loader. 0.01 is one in a
	// hundred. Stale hits are not checked, nor those inside a check. Default: 0, none.
	Share float64

	// Within is how long an invalidation may take. Default: 10 s.
	Within time.Duration

	// Rate is how many checks begin in a second at most, whatever Share comes to: it bounds what they ask of the source.
	// What is drawn beyond that counts as unchecked. Default: 10. Negative: no limit.
	Rate float64
}

func (k Check) withDefaults() (Check, []error) {
	var errs []error
	k.Within = min(cmp.Or(k.Within, 10*time.Second), longest)
	k.Rate = cmp.Or(k.Rate, 10)
	if !(k.Share >= 0 && k.Share <= 1) { // NaN too
		errs = append(errs, invalidOption("Options.Check.Share is %v: set a share of the hits from 0, for none, to 1", k.Share))
	}
	if k.Within < 0 {
		errs = append(errs, invalidOption("Options.Check.Within is %v: set a positive duration, or 0 for the default", k.Within))
	}
	if k.Rate != k.Rate {
		errs = append(errs, invalidOption("Options.Check.Rate is %v: set checks a second, 0 for the default, or a negative number for no limit", k.Rate))
	}
	return k, errs
}

const (
	// samplesQueued holds what is drawn in a burst. It is short: each one keeps the values of its caller's context alive.
	samplesQueued = 16
	// checksAtOnce bounds the checks that wait for Within to pass. Where they are that many, the next one waits, and what is
	// drawn meanwhile is dropped before anybody knows how it would have ended: the ratio stays right.
	checksAtOnce = 128
	// checkLoadsAtOnce bounds loader calls, and the encoding of what they return.
	checkLoadsAtOnce = 2
)

// A sampler draws hits, and holds those that are to be checked. The zero value draws none.
type sampler struct {
	below      uint64 // the share of hits, of 2^64
	within     time.Duration
	pause      time.Duration
	queue      chan *sample
	checks     chan struct{} // one for each check
	loads      chan struct{} // one for each check that loads
	mismatches loglimit.Limiter
}

func (k *sampler) start(o Check) {
	k.below = math.MaxUint64
	if o.Share < 1 {
		k.below = max(1, uint64(o.Share*(1<<64)))
	}
	k.within = o.Within
	if o.Rate > 0 {
		k.pause = time.Duration(min(float64(time.Second)/o.Rate, float64(longest)))
	}
	k.queue = make(chan *sample, samplesQueued)
	k.checks, k.loads = make(chan struct{}, checksAtOnce), make(chan struct{}, checkLoadsAtOnce)
}

// golden is 2^64 divided by the golden ratio.
const golden = 0x9e3779b97f4a7c15

// drawn reports whether the hit with the number n is one to check. It costs a multiplication, where a random number costs
// several times as much. The multiples of the golden ratio are spread evenly over 2^64, and so is every second of them, every
// third, and so on: whatever rhythm the calls have, each key gets its share.
func (k *sampler) drawn(n uint64) bool { return n*golden < k.below }

// draws is drawn for a hit that was not found the short way.
func (k *sampler) draws(out outcome, err error) bool {
	return k.below != 0 && err == nil && out.status == StatusHit && rand.Uint64() < k.below
}

// hasRoom reports whether take would take what was drawn, before that is made.
func (k *sampler) hasRoom(ctx context.Context, counts *stats.Counters) bool {
	if len(k.queue) == cap(k.queue) { // takes no lock
		counts.Unchecked.Add()
		return false
	}
	if ctx == nil {
		return false // only a hit in memory takes such a context
	}
	for l := loadOf(ctx); l != nil; l = l.parent {
		if l.check { // checks could keep each other going for ever
			return false
		}
	}
	return true
}

func (k *sampler) take(s *sample) {
	select {
	case k.queue <- s:
	default:
		s.plan.counts.Unchecked.Add()
	}
}

// A sample is a hit to check. It does not hold the value, which would keep it in memory: what is cached by then does as well.
type sample struct {
	ctx   context.Context
	key   string
	plan  *plan
	typ   reflect.Type
	load  loadFunc
	equal func(a, b any) bool // of two pointers to values
}

func newSample[T any](ctx context.Context, key string, pl *plan, load loadFunc) *sample {
	return &sample{ctx, key, pl, reflect.TypeFor[T](), load, equalByMethod[T]}
}

// sampleHit is for a hit in memory that was drawn. It is not inlined: what it makes is none of the other hits' business.
//
//go:noinline
func sampleHit[T any](ctx context.Context, c *Cache, key Key, counts *stats.Counters, load func(context.Context) (T, error)) {
	if !c.sampler.hasRoom(ctx, counts) {
		return
	}
	if pl, err := c.planOf(key.policy); err == nil {
		c.sampler.take(newSample[T](ctx, key.text, pl, loadsOne(load)))
	}
}

// equalByMethod is for two pointers to T. Where T has no method Equal(T) bool, no two values are equal by it.
func equalByMethod[T any](a, b any) bool {
	type equaler interface{ Equal(T) bool }
	v, w := a.(*T), b.(*T)
	if e, ok := any(*v).(equaler); ok {
		return e.Equal(*w)
	}
	e, ok := any(v).(equaler)
	return ok && e.Equal(*w)
}

// slot is for one way through what is cached, or for one load.
func (s *sample) slot() *slot {
	return &slot{request: request{key: s.key, plan: s.plan, typ: s.typ, ttl: s.plan.ttl, tags: s.plan.tags}, miss: miss{status: StatusMiss}}
}

// sampling begins checks until the cache is closed.
func (c *Cache) sampling() {
	k := &c.sampler
	for {
		var s *sample
		select {
		case s = <-k.queue:
		case <-c.closes:
			return
		}
		// What cannot be checked yet holds up the queue, so that only the callers' side drops.
		if !c.enter(k.checks) || !c.enter(k.loads) {
			return
		}
		c.background.Go(func() {
			defer func() {
				<-k.checks
				if recover() != nil { // a codec's Name, say
					s.plan.counts.Unchecked.Add()
				}
			}()
			c.check(s)
		})
		if k.pause > 0 && !c.pause(k.pause) {
			return
		}
	}
}

// enter takes one of the places that a channel stands for. It reports false if the cache is closed meanwhile.
func (c *Cache) enter(places chan<- struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	case <-c.closes:
		return false
	}
}

// pause reports false if the cache is closed meanwhile.
func (c *Cache) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.closes:
		return false
	}
}

// check finds out whether what is cached is right, and counts it. It has a place among k.loads.
func (c *Cache) check(s *sample) {
	switch consistent, err := c.verdict(s); {
	case err != nil:
		s.plan.counts.Unchecked.Add()
	case !consistent:
		s.plan.counts.Inconsistent.Add(1)
		fallthrough
	default:
		s.plan.counts.Checked.Add(1)
	}
}

func (c *Cache) verdict(s *sample) (consistent bool, err error) {
	began := c.clock.Now()
	ours := true
	defer func() { // a codec may end the goroutine
		if ours {
			<-c.sampler.loads
		}
	}()
	out, err := c.peekFor(s)
	if err != nil {
		return false, err
	}
	ours = false // compare leaves it
	if err := c.compare(s, out.value); err != errDiffers {
		return err == nil, err
	}
	// An invalidation may be under way, and a source with replicas may have answered from an old one.
	if !c.pause(c.sampler.within) {
		return false, ErrClosed
	}
	out, err = c.peekFor(s)
	if err == ErrMiss || err == nil && out.loadedAt > began {
		return true, nil // it was invalidated, replaced, or has expired
	}
	if err != nil {
		return false, err
	}
	if !c.enter(c.sampler.loads) {
		return false, ErrClosed
	}
	if err := c.compare(s, out.value); err != errDiffers {
		return err == nil, err
	}
	if c.sampler.mismatches.Allow(c.clock.Now()) {
		c.opts.Logger.Warn("aside: a cached value differs from what its loader returns, and nothing has invalidated it",
			"policy", s.plan.policy.name(), "key", s.key, "age", time.Duration(c.clock.Now()-out.loadedAt).Round(time.Millisecond))
	}
	return false, nil
}

var (
	errDiffers   = errors.New("the loader returns another value")
	errNotToSay  = errors.New("nothing can be said of the value")
	errNoPlace   = errors.New("no load may run that nobody waits for")
	errNotServed = errors.New("redis is away: what is cached counts as stale, and says so itself")
)

// peekFor finds what is cached for a sample. Without anything it returns ErrMiss.
func (c *Cache) peekFor(s *sample) (outcome, error) {
	if err := c.usable(); err != nil {
		return outcome{}, err
	}
	sl := s.slot()
	out, ok := c.peek(context.Background(), sl)
	switch {
	case ok && out.status == StatusHit:
		return out, nil
	case ok || sl.status == StatusFallback:
		return outcome{}, errNotServed
	}
	return outcome{}, ErrMiss
}

// compare calls the loader, and returns nil if it returns what is cached, and errDiffers if it returns something else. It
// leaves its place among k.loads when the loader has come back, which may be long after the load's time was up.
//
// A flight of its own, which no caller joins, has the loader bounded, guarded, and waited for by Close like all others.
func (c *Cache) compare(s *sample, cached any) error {
	call, led := c.flights.JoinNew(flightKey{checkKey(s.key), s.typ, s.plan})
	if !led {
		return ErrClosed
	}
	c.flights.Run(s.ctx, s.plan.loadTimeout, func(ctx context.Context) {
		defer func() { <-c.sampler.loads }()
		sl := s.slot()
		err := c.loadToCompare(ctx, s, sl)
		if err == nil {
			err = s.same(cached, sl, c.limits())
		}
		call.Resolve(outcome{}, err)
	}, call)
	_, err := call.Wait(context.Background())
	return err
}

// checkKey is under which a key's checks fly. No key of a policy looks like it.
func checkKey(key string) string { return "%v:" + key }

// loadToCompare calls the loader. Without a value sl.value is nil.
func (c *Cache) loadToCompare(ctx context.Context, s *sample, sl *slot) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	leave, ok := c.loads.Borrow(end)
	if !ok {
		return errNoPlace
	}
	defer leave()
	l := &Load{cache: c, slots: []*slot{sl}, check: true}
	defer l.end()
	sl.err = flight.ErrGoexit
	inLoader(func() {
		s.load(context.WithValue(ctx, loadKey{}, l), []int{0}, func(_ int, g given) { sl.given = g })
	})
	switch {
	case !l.decision(0).keep:
		return errNotToSay // of a value that is not to be cached
	case sl.notFound:
		sl.value, sl.err = nil, nil
	}
	return sl.err
}

// same compares what is cached with what sl has loaded.
func (s *sample) same(cached any, sl *slot, lim wire.Limits) error {
	if cached == nil || sl.value == nil {
		if cached == nil && sl.value == nil {
			return nil
		}
		return errDiffers
	}
	codec := sl.codec()
	fresh, err := lim.Marshal(codec, sl.value)
	if err != nil {
		return err
	}
	old, ok := cached.(*encoded)
	if !ok {
		payload, err := lim.Marshal(codec, cached)
		if err != nil {
			return err
		}
		old = &encoded{payload, codec, s.typ}
	}
	if bytes.Equal(old.payload, fresh) {
		return nil
	}
	// What was read from Redis has been through the codec, and maps may be encoded in any order.
	a, b := reflect.New(s.typ).Interface(), reflect.New(s.typ).Interface()
	// Copies, as in copyTo: a method Equal may bring what it compares into another order.
	if err := errors.Join(old.copyTo(a), (&encoded{fresh, codec, s.typ}).copyTo(b)); err != nil {
		return err
	}
	if reflect.DeepEqual(a, b) || s.equal(a, b) {
		return nil
	}
	return errDiffers
}
