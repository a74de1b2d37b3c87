package near

import (
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/maypok86/otter/v2"
)

// sweepEvery is how often the memory is given back of what can be served no more. otter could do that by itself, but keeping
// times of its own for it makes every hit a tenth slower.
const sweepEvery = time.Minute

// rest is how long no sweep is begun after one that has taken so long: however often something is invalidated, sweeps take a
// fifth of a processor.
func rest(took time.Duration) time.Duration { return min(4*took, sweepEvery) }

// A sweeper sweeps a cache every now and then, and when it is asked to, without keeping it from being collected.
type sweeper struct {
	ending        sync.Once
	stop, stopped chan struct{}
	wake          chan struct{} // with room for one

	mu     sync.Mutex
	due    []*count            // by the next sweep; guarded by mu
	counts map[*Voucher]*count // of vouchers that have ended and are not swept yet; guarded by mu
}

// A count is of the entries that one invalidation is about.
type count struct {
	vouchers []*Voucher
	removed  *atomic.Int64
	done     chan<- struct{}
}

func newSweeper() *sweeper {
	return &sweeper{
		stop: make(chan struct{}), stopped: make(chan struct{}), wake: make(chan struct{}, 1), counts: make(map[*Voucher]*count),
	}
}

func (s *sweeper) end() { s.ending.Do(func() { close(s.stop) }) }

func (s *sweeper) run(cache weak.Pointer[Cache]) {
	defer close(s.stopped)
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.wake:
		case <-t.C:
		}
		began := time.Now()
		if c := cache.Value(); c != nil {
			c.sweepDue()
		}
		over := time.NewTimer(rest(time.Since(began)))
		select {
		case <-s.stop:
		case <-over.C:
		}
		over.Stop()
	}
}

// RetireAll is Retire of several tags, and has what rested on them removed in the background. It adds to removed how many of
// those entries were within their time, and closes done when that is over; it does not if the cache is closed before.
func (c *Cache) RetireAll(tags []string, removed *atomic.Int64, done chan<- struct{}) {
	n := &count{removed: removed, done: done}
	for _, tag := range tags {
		s := c.shard(tag)
		s.mu.Lock()
		if g := s.generations.Find(tag); g != nil {
			c.sweeper.expect(g.Voucher, n) // before a sweep that is under way can come upon what has lost it
		}
		s.retire(tag)
		s.breakFences(tag)
		s.mu.Unlock()
	}
	c.sweeper.ask(n)
}

func (s *sweeper) expect(v *Voucher, n *count) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[v] = n
	n.vouchers = append(n.vouchers, v)
}

func (s *sweeper) ask(n *count) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.due = append(s.due, n)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take returns what is due.
func (s *sweeper) take() (due []*count) {
	s.mu.Lock()
	defer s.mu.Unlock()
	due, s.due = s.due, nil
	return due
}

// met counts an entry that was removed: once, though it may have lost several vouchers.
func (s *sweeper) met(e *Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range e.Scope.Vouchers {
		if n := s.counts[v]; n != nil {
			n.removed.Add(1)
			return
		}
	}
}

func (s *sweeper) done(swept []*count) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range swept {
		for _, v := range n.vouchers {
			delete(s.counts, v)
		}
		close(n.done)
	}
}

func (c *Cache) sweepDue() {
	due := c.sweeper.take()
	c.sweep(c.sweeper.met)
	c.sweeper.done(due)
}

// Sweep removes every entry that cannot be served any more, not even as a stale one, and reports how many of them were
// within their time.
func (c *Cache) Sweep() (removed int64) {
	c.sweep(func(*Entry) { removed++ })
	return removed
}

// sweep is Sweep, and tells of each entry that was within its time.
func (c *Cache) sweep(within func(*Entry)) {
	for key, e := range c.store.All() {
		if c.presentable(e) {
			continue
		}
		c.store.Compute(key, func(there *Entry, found bool) (*Entry, otter.ComputeOp) {
			if !found || there != e {
				return nil, otter.CancelOp
			}
			if c.clock.Before(e.FreshUntil) {
				within(e)
			}
			return nil, otter.InvalidateOp
		})
	}
}
