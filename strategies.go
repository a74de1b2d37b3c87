package aside

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// A CallOption changes one call. Calls without one allocate nothing for it.
type CallOption struct {
	ttl     time.Duration
	setTTL  bool
	refresh bool
}

// WithTTL sets the TTL of what this call stores, in place of the policy's. It must be at least 1 ms. A load that is
// already under way keeps the TTL that it began with, and ErrNotFound is cached for the policy's NegativeTTL all the same.
func WithTTL(d time.Duration) CallOption { return CallOption{ttl: d, setTTL: true} }

// Refresh loads even if the value is cached, and replaces it. It joins no load that began earlier; of those, none is
// stored any more.
func Refresh() CallOption { return CallOption{refresh: true} }

type callOptions struct {
	ttl     time.Duration
	refresh bool
}

func gather(opts []CallOption) (callOptions, error) {
	var o callOptions
	for _, opt := range opts {
		if opt.setTTL {
			if opt.ttl < time.Millisecond {
				return o, invalidArgument("WithTTL(" + opt.ttl.String() + "): set a duration of at least 1ms")
			}
			o.ttl = opt.ttl
		}
		o.refresh = o.refresh || opt.refresh
	}
	return o, nil
}

// A Load is the load that a loader runs in; Loading finds it. A loader uses it to adapt how its value is cached. On a nil
// Load all methods do nothing, so a loader can also be called directly. In a batch it stands for all of its ids.
type Load struct {
	cache  *Cache
	slots  []*slot
	parent *Load

	mu      sync.Mutex
	ttl     time.Duration // guarded by mu
	noStore bool          // guarded by mu
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

// apart returns contexts in which each id of a batch has a Load of its own.
func (l *Load) apart(ctx context.Context, n int) func(i int) context.Context {
	if l == nil || n != len(l.slots) {
		return func(int) context.Context { return ctx }
	}
	each := make([]*Load, n)
	for i := range each {
		each[i] = &Load{cache: l.cache, slots: l.slots[i : i+1], parent: l}
	}
	l.set(func() { l.each = each })
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

// decision is what the loader has said about the value of slot i, once the load has ended.
func (l *Load) decision(i int) (ttl time.Duration, keep bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.each != nil {
		return l.each[i].decision(0)
	}
	return l.ttl, !l.noStore
}

// reentrant finds out whether ctx is that of a loader of this cache, or of a load inside one, that is loading key: to wait
// for that load would be to wait for oneself.
func (c *Cache) reentrant(ctx context.Context, key string) error {
	for l := loadOf(ctx); l != nil; l = l.parent {
		l.mu.Lock()
		over := l.ended || l.cache != c
		l.mu.Unlock()
		if over {
			continue
		}
		for _, s := range l.slots {
			if s.key == key {
				return &Error{Code: CodeReentrant, Key: key, Message: "a loader asked for the key that it is loading: it would wait for itself"}
			}
		}
	}
	return nil
}

// longest is what a longer TTL counts as; sums of it and any time stay within an int64 of nanoseconds.
const longest = 100 * 365 * 24 * time.Hour

// shorten takes a random share of up to fraction from ttl.
func shorten(ttl time.Duration, fraction float64) time.Duration {
	ttl = min(ttl, longest)
	return ttl - time.Duration(rand.Float64()*fraction*float64(ttl))
}

// jittered spreads a pause over half to one and a half of itself, so that those who wait for the same thing do not look at
// the same moments.
func jittered(pause time.Duration) time.Duration { return pause/2 + rand.N(pause) }

// sleep waits for d and reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
