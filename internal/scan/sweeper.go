package scan

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/journal"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/observe"
	"github.com/gatewayz/aside/internal/quota"
	"github.com/gatewayz/aside/internal/redisstore"
)

// A tag's next generation makes all values out of date that carry an older one; sweeps free their memory. Sweeps run in the background,
// one at a time. All tags that are invalidated while one runs are swept together by the next one. Only the process that has invalidated
// a tag sweeps it.

// A Sweeper knows which tags wait to be swept, and sweeps them. It is safe for concurrent use.
type Sweeper struct {
	scanner *Scanner
	swept   *atomic.Uint64 // counts the removed values
	wake    chan struct{}

	mu      sync.Mutex
	pending map[string]*pendingSweep // by tag, until it is swept; guarded by mu
	others  int                      // how many of them callers outside of the program have invalidated; guarded by mu

	outside quota.Shares // of these callers

	observer *observe.Observer // nil: none
	origin   observe.Origin    // of what is pending
}

// mostPending is how many tags wait to be swept. The values of further ones are out of date too, and end with their TTL. Callers outside
// of the program have half of the places: the others are for the program.
const (
	mostPending        = 65536
	mostPendingOutside = mostPending / 2
)

// mostWaiting is how many counts wait for the sweeps of one tag. There are that many where each sweep fails.
const mostWaiting = 8

// A pendingSweep says what is to be removed for a tag: the values that carry it with an older generation.
type pendingSweep struct {
	generation uint64
	begun      uint64    // the generation when the last round began
	waiting    []waiting // the oldest first
	caller     string    // in whose share it is
}

// A waiting count is done when a sweep has removed what is older than a generation: that of the last invalidation that it is for.
type waiting struct {
	count *journal.Count
	upTo  uint64
}

// A round is what one sweep removes, by tag.
type round map[string]swept

type swept struct {
	generation uint64
	counts     []*journal.Count
}

// NewSweeper makes a Sweeper, which adds to swept how many values it removes. It sweeps while Run runs.
func NewSweeper(s *Scanner, swept *atomic.Uint64) *Sweeper {
	return &Sweeper{scanner: s, swept: swept, wake: make(chan struct{}, 1), pending: make(map[string]*pendingSweep)}
}

// Observe sets the Observer that is told of sweeps. It is called before Run.
func (s *Sweeper) Observe(o *observe.Observer) { s.observer = o }

// From notes the context of what the next Begin is called for.
func (s *Sweeper) From(ctx context.Context) { s.origin.Note(ctx, s.observer) }

// Reserve sets room aside for the tags among the names that a caller is going to invalidate, until end is called.
func (s *Sweeper) Reserve(caller string, names []string) (end func(), ok bool) {
	n := 0
	for _, name := range names {
		if strings.HasPrefix(name, "%") && !strings.HasPrefix(name, keyspace.PatternPrefix) && name != keyspace.Sequence {
			n++
		}
	}
	if n == 0 {
		return func() {}, true
	}
	s.mu.Lock()
	full := len(s.pending)+n > mostPending
	s.mu.Unlock()
	if full {
		return nil, false
	}
	return s.outside.Reserve(quota.Use{Entries: mostPendingOutside}, caller, quota.Use{Entries: n})
}

// Begin removes the values that a caller's invalidation of a tag has made out of date, in the background. The counts are those that wait
// for it. Begin returns the count of the invalidation itself. A tag that had no generation needs no sweep, and has no count: no value
// that carries the tag was up to date.
func (s *Sweeper) Begin(caller, tag string, g redisstore.Generation, counts ...*journal.Count) []*journal.Count {
	if !g.Missing {
		return []*journal.Count{s.begin(caller, tag, g.Value, counts...)}
	}
	for _, c := range counts {
		close(c.Done)
	}
	return nil
}

// begin is Begin for a tag that had a generation. The count that it returns is a shared one where the next sweep of the tag has a count
// already, or where many wait since each sweep fails: a tag that is invalidated all the time must not have more and more of them.
func (s *Sweeper) begin(caller, tag string, generation uint64, counts ...*journal.Count) *journal.Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pending[tag]
	if p == nil && (len(s.pending) >= mostPending || caller != "" && s.others >= mostPendingOutside) {
		own := journal.NewCount()
		for _, c := range append(counts, own) {
			close(c.Done)
		}
		return own
	}
	if p == nil {
		p = &pendingSweep{caller: caller}
		s.pending[tag] = p
		s.account(caller, 1)
	}
	p.generation = max(p.generation, generation)
	for _, c := range counts {
		p.waiting = append(p.waiting, waiting{c, generation})
	}
	wake(s.wake)
	if n := len(p.waiting); n > 0 {
		if last := &p.waiting[n-1]; last.upTo > p.begun || generation <= p.begun || n >= mostWaiting {
			last.upTo = max(last.upTo, generation)
			return last.count
		}
	}
	own := journal.NewCount()
	p.waiting = append(p.waiting, waiting{own, generation})
	return own
}

// account is called with the lock held.
func (s *Sweeper) account(caller string, sign int) {
	if caller != "" {
		s.others += sign
		s.outside.Take(caller, quota.Use{Entries: sign})
	}
}

// beginRound returns what is pending. It stays pending until endRound.
func (s *Sweeper) beginRound() round {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := make(round, len(s.pending))
	for tag, p := range s.pending {
		p.begun = p.generation
		counts := make([]*journal.Count, len(p.waiting))
		for i, w := range p.waiting {
			counts[i] = w.count
		}
		r[tag] = swept{p.generation, counts}
	}
	return r
}

// endRound notes that all of a round is removed.
func (s *Sweeper) endRound(r round) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for tag, done := range r {
		p := s.pending[tag]
		p.waiting = slices.DeleteFunc(p.waiting, func(w waiting) bool {
			over := w.upTo <= done.generation
			if over {
				close(w.count.Done)
			}
			return over
		})
		if p.generation <= done.generation {
			delete(s.pending, tag)
			s.account(p.caller, -1)
		}
	}
}

// Run sweeps what is pending until ctx ends. A round that fails is repeated from its beginning, together with what has become pending.
func (s *Sweeper) Run(ctx context.Context) {
	const (
		soonest, latest = 50 * time.Millisecond, time.Second // after a failure
		longestRest     = 30 * time.Second
	)
	for pause := soonest; ; {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		r := s.beginRound()
		if len(r) == 0 {
			continue
		}
		began := time.Now()
		var wait time.Duration
		if err := s.sweepApart(ctx, r); err != nil {
			wake(s.wake)
			wait, pause = pause/2+rand.N(pause), min(2*pause, latest)
			s.scanner.Failed(ctx, err)
		} else {
			s.endRound(r)
			// Tags that are invalidated all the time make Redis go through its keys for a tenth of the time at most, or, where a
			// sweep takes long, not all the time.
			wait, pause = min(4*time.Since(began), longestRest), soonest
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

var errUnended = errors.New("the program's Observer has ended the goroutine")

// sweepApart is sweep on a goroutine of its own, which the program's Observer may end.
func (s *Sweeper) sweepApart(ctx context.Context, r round) (err error) {
	err = errUnended
	var one sync.WaitGroup
	one.Go(func() { err = s.sweep(ctx, r) })
	one.Wait()
	return err
}

// sweep removes and counts what a round is about.
func (s *Sweeper) sweep(ctx context.Context, r round) (err error) {
	if s.observer != nil {
		var op observe.Operation
		origin := s.origin.Take()
		ctx, op = s.observer.Begin(observe.ValuesOf(ctx, origin), observe.Op{Kind: observe.Sweep, Keys: len(r)})
		defer func() {
			if err != nil {
				s.origin.Return(origin) // it is repeated
			}
			op.End(observe.End{Err: err})
		}()
	}
	current := make(map[string]uint64, len(r))
	for tag, t := range r {
		current[tag] = t.generation
	}
	return s.scanner.sweep(ctx, current, func(tag string, n int64) {
		s.swept.Add(uint64(n))
		for _, c := range r[tag].counts {
			c.Removed.Add(n)
		}
	})
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
