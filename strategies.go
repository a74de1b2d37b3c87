package aside

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"
)

// A CallOption changes one call. Calls without one allocate nothing for it, and a hit allocates nothing for one that was
// made before. The zero CallOption changes nothing.
type CallOption struct{ set *callOptions } // a pointer, because hits copy it

// callOptions are what the options of a call come to.
type callOptions struct {
	ttl     time.Duration
	tags    []string
	err     error
	refresh bool
	strong  bool
}

// WithTTL sets the TTL of what this call stores, in place of the policy's. It must be at least 1 ms. A load that is
// already under way keeps the TTL that it began with, and ErrNotFound is cached for the policy's NegativeTTL all the same.
func WithTTL(d time.Duration) CallOption {
	if d < time.Millisecond {
		return CallOption{&callOptions{err: invalidArgument("WithTTL(" + d.String() + "): set a duration of at least 1ms")}}
	}
	return CallOption{&callOptions{ttl: d}}
}

// WithTags gives what this call stores tags, by which InvalidateTags finds it, beside its category. Use the same ones in
// every call for a key: a hit does not look at them. A tag is any text up to about 500 bytes; an entry takes 62 of them.
func WithTags(tags ...string) CallOption {
	names, err := tagNames(tags)
	return CallOption{&callOptions{tags: names, err: err}}
}

// Refresh loads even if the value is cached, and replaces it. It joins no load that began earlier; of those, none is
// stored any more. While another Refresh of the key runs, it waits for the end of that, for a quarter of the LoadTimeout at most,
// and shares the next load with all who have come meanwhile.
func Refresh() CallOption { return CallOption{&callOptions{refresh: true}} }

// Strong reads what Redis holds now, not what this process remembers, checks every tag of it there, and joins no load that
// began before the call. An invalidation that another process has confirmed before this call began is seen by it, whether or
// not Redis' message about it has come through. In memory mode it only keeps from joining a load. Calls that come while another
// Strong call of the key is under way wait for its end and share the next one, as with Refresh.
func Strong() CallOption { return CallOption{&callOptions{strong: true}} }

// passive reports whether opts change nothing about a hit.
func passive(opts []CallOption) bool {
	for _, opt := range opts {
		if o := opt.set; o != nil && (o.refresh || o.strong || o.err != nil) {
			return false
		}
	}
	return true
}

func gather(opts []CallOption) (callOptions, error) {
	var o callOptions
	for _, opt := range opts {
		if opt.set == nil {
			continue
		}
		if opt.set.err != nil {
			return o, opt.set.err
		}
		o.ttl = cmp.Or(opt.set.ttl, o.ttl)
		o.tags = append(o.tags, opt.set.tags...)
		o.refresh = o.refresh || opt.set.refresh
		o.strong = o.strong || opt.set.strong
	}
	slices.Sort(o.tags)
	if o.tags = slices.Compact(o.tags); len(o.tags) > keyspace.MaxTags {
		return o, invalidArgument("WithTags: an entry takes at most " + strconv.Itoa(keyspace.MaxTags) + " tags")
	}
	return o, nil
}

// A Load is the load that a loader runs in; Loading finds it. A loader uses it to adapt how its value is cached. On a nil
// Load all methods do nothing, so a loader can also be called directly. In a batch it stands for all of its ids, and Of for one.
type Load struct {
	cache  *Cache
	slots  []*slot
	parent *Load
	check  bool // nobody waits for it: its values are compared with those that are cached

	mu      sync.Mutex
	ttl     time.Duration // guarded by mu
	noStore bool          // guarded by mu
	tags    []string      // guarded by mu
	ended   bool          // guarded by mu
	each    []*Load       // of a batch whose ids have loaders of their own: one for each slot; guarded by mu
}

type loadKey struct{}

// Loading returns the load that ctx belongs to, or nil outside of one.
func Loading(ctx context.Context) *Load { return loadOf(ctx) }

func loadOf(ctx context.Context) *Load {
	l, _ := ctx.Value(loadKey{}).(*Load)
	return l
}

// parentOf is loadOf for a context whose caller may have left: one that must not be used any more, and panics, is in no load.
func parentOf(ctx context.Context) (l *Load) {
	defer func() { _ = recover() }()
	return loadOf(ctx)
}

// underWay is l, or the load around it, that has not ended yet; nil where all have, which is what is left of a loader whose context is
// used after it has returned.
func (l *Load) underWay() *Load {
	for ; l != nil; l = l.parent {
		l.mu.Lock()
		over := l.ended
		l.mu.Unlock()
		if !over {
			break
		}
	}
	return l
}

// TTL sets how long the loaded values are served, counted from the start of the load, in place of the policy's TTL. Zero or
// less means that they are not stored. It has no effect once the loader has returned.
func (l *Load) TTL(d time.Duration) {
	if d <= 0 {
		l.NoStore()
		return
	}
	l.set(func() { l.ttl = d })
}

// NoStore keeps the loaded values from being stored: those who wait get them, and whoever comes later loads again. It has no
// effect once the loader has returned.
func (l *Load) NoStore() {
	l.set(func() { l.noStore = true })
}

// Tag gives the loaded values further tags, which the loader could not know before, for InvalidateTags. They cost a round trip
// more, though no caller waits for it. While the load runs, an invalidation of any tag keeps its values from being stored,
// because nobody knows yet which tags they will have: where tags are known before the load, WithTags is better. In a batch each of
// its values gets the tags: Of(key).Tag gives them to one. An entry takes 62 tags, those of WithTags included. Beyond that, and for a
// tag that WithTags refuses, the load fails with an *Error with CodeInvalidArgument, and nothing is stored. It has no effect once the
// loader has returned.
func (l *Load) Tag(tags ...string) {
	l.set(func() { l.tags = append(l.tags, tags...) })
}

func (l *Load) set(change func()) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		change()
	}
}

// Of returns the share that key has in the load of a batch, for what a loader has to say of one id and not of the others. It is nil,
// and its methods do nothing, where the load is not of that key. A load of one key is its own share.
func (l *Load) Of(key Key) *Load {
	if l == nil {
		return nil
	}
	at := slices.IndexFunc(l.slots, func(s *slot) bool { return s.key == key.text && key.policy != nil && s.plan.is(key.policy) })
	switch {
	case at < 0:
		return nil
	case len(l.slots) == 1:
		return l
	}
	var own *Load
	l.set(func() { own = l.shares()[at] })
	return own
}

// shares are the Loads of the slots of a batch. It is called with mu held.
func (l *Load) shares() []*Load {
	if l.each == nil {
		l.each = make([]*Load, len(l.slots))
		for i := range l.each {
			l.each[i] = &Load{cache: l.cache, slots: l.slots[i : i+1], parent: l}
		}
	}
	return l.each
}

// refusedTags is the error of a load whose loader has given its value tags that no entry takes, nil where it takes them.
func (s *slot) refusedTags(names []string) error {
	if len(names) == 0 {
		return nil
	}
	tags, err := tagNames(names)
	if err == nil {
		slices.Sort(tags)
		n := len(s.tags) - len(s.plan.tags)
		for _, tag := range slices.Compact(tags) {
			if !slices.Contains(s.tags, tag) {
				n++
			}
		}
		if n <= keyspace.MaxTags {
			return nil
		}
		err = invalidArgument(strconv.Itoa(n) + " tags, an entry takes at most " + strconv.Itoa(keyspace.MaxTags))
	}
	return &Error{Code: CodeInvalidArgument, Key: s.key, Message: "the loader has given its value tags by Load.Tag that are refused", Err: err}
}

// apart returns contexts in which each id of a batch has a Load of its own.
func (l *Load) apart(ctx context.Context, n int) func(i int) context.Context {
	if l == nil || n != len(l.slots) {
		return func(int) context.Context { return ctx }
	}
	l.mu.Lock()
	each := l.shares()
	l.mu.Unlock()
	return func(i int) context.Context { return context.WithValue(ctx, loadKey{}, each[i]) }
}

// end closes the load to further changes.
func (l *Load) end() {
	l.mu.Lock()
	l.ended = true
	each := l.each
	l.mu.Unlock()
	for _, one := range each {
		one.end()
	}
}

// A decision is what a loader has said about a value.
type decision struct {
	ttl  time.Duration // 0 for the policy's
	keep bool
	tags []string
}

// decision is about the value of slot i, once the load has ended.
func (l *Load) decision(i int) decision {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := decision{l.ttl, !l.noStore, l.tags}
	if l.each != nil {
		own := l.each[i].decision(0)
		d.ttl, d.keep, d.tags = cmp.Or(own.ttl, d.ttl), d.keep && own.keep, slices.Concat(d.tags, own.tags)
	}
	return d
}

// A failure is what a load has left behind that failed, so that those after it are not begun at once again and again.
type failure struct {
	key   string
	err   error         // for those who are held back; while it is remembered, told has it
	until int64         // when the next load may begin, on the cache's clock
	over  int64         // when it is forgotten, likewise: a failure after that is the first in a row
	pause time.Duration // before it was varied; 0 of the first failure in a row, which holds back nobody
	owner uint64        // of the policy

	number uint64 // among all of them: a load that began when there were fewer began before this one
	told   *cause // nil where nobody is told of it
}

// loadFailed counts a load that has failed, and holds back the next ones where the one before has failed too: for Backoff, or twice as
// long as the last time. One failure alone says little. Were it to hold back others, they would all fail for a lost packet. Nor do
// loads that run side by side and fail together, as those of one lost connection do: what began before the last failure, when there were
// as many as before says, is no further one. What is told to those who are held back is kept, and nothing of a first failure.
//
// A loader that works with the context of the call around it, and not with its own, fails when that caller has left. The source has
// not failed: see endedWithCaller.
func (c *Cache) loadFailed(s *slot, err error, before uint64) {
	s.plan.counts.LoadErrors.Add(1)
	if c.opts.Backoff < 0 || s.endedWithCaller(err, c.clock.Now()) {
		return
	}
	f := &failure{key: s.key, until: c.clock.Now(), owner: s.plan.owner}
	if last := c.failures.of(s.key, s.plan.owner); last != nil {
		if before < last.number {
			return
		}
		f.err = flightError(err, s.key)
		f.pause = min(max(2*last.pause, c.opts.Backoff), c.opts.MaxBackoff)
		f.until += int64(varied(f.pause, c.opts.MaxBackoff))
	}
	f.over = f.until + int64(c.opts.MaxBackoff)
	c.failures.note(f)
}

// varied is pause, a quarter more or less of it, and no more than most. Where it may not be more, it is less: those that have failed
// together are not to come back together.
func varied(pause, most time.Duration) time.Duration {
	d := pause - pause/4 + rand.N(pause/2+1)
	if d > most {
		d = most - rand.N(most/4+1)
	}
	return d
}

// holdBack fails those slots whose last load has failed not long ago, and passes the others. A Refresh is not held back. Nor is anybody by
// a failure that there is nothing to be told of, which is a first one: a clock that lags could take its end for one ahead.
func (c *Cache) holdBack(slots []*slot) (others []*slot) {
	for _, s := range slots {
		f := c.failures.of(s.key, s.plan.owner)
		if f == nil || f.err == nil || s.supersede || !c.clock.Before(f.until) {
			others = append(others, s)
			continue
		}
		left := time.Duration(f.until - c.clock.Now()).Round(time.Millisecond)
		s.call.Resolve(outcome{}, &Error{
			Code: CodeBackoff, Key: s.key, RetryAfter: max(left, time.Millisecond), Err: f.err,
			Message: "the last loads failed, the next one may begin in " + left.String(),
		})
	}
	return others
}

// longest is what a longer duration counts as: the sum of two of them and any time stays within an int64 of nanoseconds.
const longest = 100 * 365 * 24 * time.Hour

// bounded is d, or the nearest duration from none to longest.
func bounded(d time.Duration) time.Duration { return min(max(d, 0), longest) }

// shorten takes a random share of up to fraction from ttl.
func shorten(ttl time.Duration, fraction float64) time.Duration {
	ttl = min(ttl, longest)
	return ttl - time.Duration(rand.Float64()*fraction*float64(ttl))
}

// jittered spreads a pause over half to one and a half of itself, so that those who wait for the same thing do not look at
// the same moments.
func jittered(pause time.Duration) time.Duration { return pause/2 + rand.N(pause) }
