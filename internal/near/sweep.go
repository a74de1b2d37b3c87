package near

import (
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/maypok86/otter/v2"
)

// sweepEvery is how often the sweeper frees the memory of entries that cannot be served any more. otter could do that itself, but the times
// that it keeps for it make every hit a tenth slower.
const sweepEvery = time.Minute

// rest is the pause after a sweep that took so long. It limits sweeps to a fifth of a processor, however often there is an invalidation.
func rest(took time.Duration) time.Duration { return min(4*took, sweepEvery) }

// A sweeper sweeps a cache at intervals and on request. It does not keep the cache from being collected.
type sweeper struct {
	ending        sync.Once
	stop, stopped chan struct{}
	wake          chan struct{} // has room for one message
	removed       atomic.Uint64 // entries that were counted for a request

	mu      sync.Mutex
	pending []*count             // requests for the next sweep; guarded by mu
	counts  map[*Validity]*count // the request for each revoked validity whose entries are not swept yet; guarded by mu
}

// A count counts the entries that are removed for one invalidation.
type count struct {
	validities []*Validity
	removed    *atomic.Int64
	done       chan<- struct{}
}

func newSweeper() *sweeper {
	return &sweeper{
		stop: make(chan struct{}), stopped: make(chan struct{}), wake: make(chan struct{}, 1), counts: make(map[*Validity]*count),
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
			c.sweepPending()
		}
		over := time.NewTimer(rest(time.Since(began)))
		select {
		case <-s.stop:
		case <-over.C:
		}
		over.Stop()
	}
}

// RetireAll is Retire of several tags. The sweeper removes the entries that rested on them in the background. It adds to removed how many of
// these entries were within their TTL, and closes done afterwards. It does not close done if the cache is closed before that.
func (c *Cache) RetireAll(tags []string, removed *atomic.Int64, done chan<- struct{}) {
	n := &count{removed: removed, done: done}
	for _, tag := range tags {
		s := c.shard(tag)
		s.mu.Lock()
		if g := s.generations.Find(tag); g != nil {
			c.sweeper.expect(g.Validity, n) // before the revocation: a sweep in progress may find its entries at once
		}
		c.retired.note(tag)
		s.retire(tag)
		s.breakFences(tag)
		s.mu.Unlock()
	}
	c.sweeper.request(n)
}

// expect makes n count the entries that rest on v.
func (s *sweeper) expect(v *Validity, n *count) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[v] = n
	n.validities = append(n.validities, v)
}

// request starts a sweep for n, or leaves n to the next one.
func (s *sweeper) request(n *count) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = append(s.pending, n)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// takePending returns and clears the pending requests.
func (s *sweeper) takePending() (pending []*count) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pending, s.pending = s.pending, nil
	return pending
}

// countRemoved counts a removed entry. It counts the entry once, even if several of its validities were revoked.
func (s *sweeper) countRemoved(e *Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range e.Scope.Validities {
		if n := s.counts[v]; n != nil {
			n.removed.Add(1)
			s.removed.Add(1)
			return
		}
	}
}

// finish completes the requests of a sweep.
func (s *sweeper) finish(swept []*count) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range swept {
		for _, v := range n.validities {
			delete(s.counts, v)
		}
		close(n.done)
	}
}

// sweepPending is one sweep for all pending requests.
func (c *Cache) sweepPending() {
	pending := c.sweeper.takePending()
	c.sweep(c.sweeper.countRemoved)
	c.sweeper.finish(pending)
}

// Sweep removes every entry that cannot be served any more, not even as a stale entry. It reports how many of them were within their TTL.
func (c *Cache) Sweep() (removed int64) {
	c.sweep(func(*Entry) { removed++ })
	return removed
}

// sweep is Sweep, and calls within for each removed entry that was within its TTL.
func (c *Cache) sweep(within func(*Entry)) {
	for key, e := range c.store.All() {
		if c.presentable(e) || c.isPushed(e) {
			continue
		}
		c.store.Compute(key, func(there *Entry, found bool) (*Entry, otter.ComputeOp) {
			if !found || there != e {
				return nil, otter.CancelOp
			}
			if c.clock.Before(e.Times().DeadUntil) {
				within(e)
			}
			return nil, otter.InvalidateOp
		})
	}
}
