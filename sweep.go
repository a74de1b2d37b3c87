package aside

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gatewayz/aside/internal/journal"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/quota"

	"github.com/gatewayz/aside/internal/redisstore"
)

// A tag's next generation makes everything out of date that carries an older one; sweeps give the memory back. They go through
// Redis' keys in the background, one at a time: what is invalidated meanwhile is swept together by the next one. Only the process
// that has invalidated something sweeps it.
type sweeps struct {
	wake   chan struct{}
	mu     sync.Mutex
	due    map[string]*target // by tag, until it is swept; guarded by mu
	others int                // of those, what callers outside of the program have invalidated; guarded by mu

	outside quota.Shares // of these callers
}

// mostDue is how many tags wait to be swept. The values of further ones are out of date too, and end with their TTL. Of callers outside of
// the program there are half as many: the others are for the program.
const (
	mostDue        = 65536
	mostDueOutside = mostDue / 2
)

// reserve sets room aside for the tags among what a caller is about to invalidate.
func (s *sweeps) reserve(caller string, names []string) (end func(), ok bool) {
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
	full := len(s.due)+n > mostDue
	s.mu.Unlock()
	if full {
		return nil, false
	}
	return s.outside.Reserve(quota.Use{Entries: mostDueOutside}, caller, quota.Use{Entries: n})
}

// sweepAfter has removed what an invalidation of a tag has put out of date, and returns what counts it. Where the tag had no generation,
// that is nothing: no value that carries it was up to date.
func (c *Cache) sweepAfter(caller, tag string, g redisstore.Generation, waiting ...*journal.Count) []*journal.Count {
	if !g.Missing {
		return []*journal.Count{c.sweeps.beginFor(caller, tag, g.Value, waiting...)}
	}
	for _, t := range waiting {
		close(t.Done)
	}
	return nil
}

// A target is a tag, and what is to be removed: what carries it with an older generation.
type target struct {
	generation uint64
	taken      uint64   // the generation that it had when it was last begun to be swept
	tallies    []*tally // the oldest first
	caller     string   // in whose share it is
}

// A tally is a count, and the generation of the last invalidation that it is for.
type tally struct {
	*journal.Count
	upTo uint64
}

func (s *sweeps) begin(tag string, generation uint64, waiting ...*journal.Count) *journal.Count {
	return s.beginFor("", tag, generation, waiting...)
}

// beginFor has what is older than a tag's generation removed, and counted by the tallies that wait for it and by the one that it
// returns. That is a shared one where the next sweep of the tag has one already, or where there are many since each sweep fails: a
// tag that is invalidated all the time must not have more and more of them.
func (s *sweeps) beginFor(caller, tag string, generation uint64, waiting ...*journal.Count) *journal.Count {
	const most = 8
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.due == nil {
		s.due = make(map[string]*target)
	}
	d := s.due[tag]
	if d == nil && (len(s.due) >= mostDue || caller != "" && s.others >= mostDueOutside) {
		own := journal.NewCount()
		for _, t := range append(waiting, own) {
			close(t.Done)
		}
		return own
	}
	if d == nil {
		d = &target{caller: caller}
		s.due[tag] = d
		s.count(caller, 1)
	}
	d.generation = max(d.generation, generation)
	for _, t := range waiting {
		d.tallies = append(d.tallies, &tally{t, generation})
	}
	wake(s.wake)
	if n := len(d.tallies); n > 0 {
		if last := d.tallies[n-1]; last.upTo > d.taken || generation <= d.taken || n >= most {
			last.upTo = max(last.upTo, generation)
			return last.Count
		}
	}
	own := journal.NewCount()
	d.tallies = append(d.tallies, &tally{own, generation})
	return own
}

// count is called with the lock held.
func (s *sweeps) count(caller string, sign int) {
	if caller != "" {
		s.others += sign
		s.outside.Take(caller, quota.Use{Entries: sign})
	}
}

// take returns what is due, which stays so until it is done.
func (s *sweeps) take() map[string]target {
	s.mu.Lock()
	defer s.mu.Unlock()
	round := make(map[string]target, len(s.due))
	for tag, d := range s.due {
		d.taken = d.generation
		round[tag] = target{generation: d.generation, tallies: slices.Clone(d.tallies)}
	}
	return round
}

// done notes that what take returned is swept.
func (s *sweeps) done(round map[string]target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for tag, t := range round {
		d := s.due[tag]
		d.tallies = slices.DeleteFunc(d.tallies, func(tally *tally) bool {
			over := tally.upTo <= t.generation
			if over {
				close(tally.Done)
			}
			return over
		})
		if d.generation <= t.generation {
			delete(s.due, tag)
			s.count(d.caller, -1)
		}
	}
}

// sweep sweeps what is due until ctx ends. One that fails is repeated from its beginning, together with what has become due.
func (c *Cache) sweep(ctx context.Context) {
	const (
		soonest, latest = 50 * time.Millisecond, time.Second // after a failure
		longestRest     = 30 * time.Second
	)
	for pause := soonest; ; {
		select {
		case <-ctx.Done():
			return
		case <-c.sweeps.wake:
		}
		round := c.sweeps.take()
		if len(round) == 0 {
			continue
		}
		began := time.Now()
		var wait time.Duration
		if err := c.sweepOnce(ctx, round); err != nil {
			wake(c.sweeps.wake)
			wait, pause = jittered(pause), min(2*pause, latest)
			c.scanFailed(ctx, err)
		} else {
			c.sweeps.done(round)
			// So that tags which are invalidated all the time have Redis go through its keys for a tenth of the time at most, or,
			// where that takes long, not all the time.
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

// scanFailed logs that Redis' keys could not be gone through, now and then. What is to be done is done later.
func (c *Cache) scanFailed(ctx context.Context, err error) {
	if ctx.Err() == nil && c.store.Up() && c.scanLog.Allow(c.clock.Now()) {
		c.opts.Logger.Warn("aside: keys in redis cannot be gone through; it is tried again", "reason", redisstore.Describe(err))
	}
}

// sweepOnce removes what the targets put out of date.
func (c *Cache) sweepOnce(ctx context.Context, targets map[string]target) error {
	current := make(map[string]uint64, len(targets))
	for tag, t := range targets {
		current[tag] = t.generation
	}
	return c.scanner.Sweep(ctx, current, func(tag string, n int64) {
		for _, tally := range targets[tag].tallies {
			tally.Removed.Add(n)
		}
	})
}

// replayPatterns carries out the patterns that are in the journal.
func (c *Cache) replayPatterns(ctx context.Context) (some, all bool) {
	tasks, upTo := c.journal.Patterns()
	byCategory := make(map[string][]journal.Pattern)
	for _, t := range tasks {
		byCategory[t.Category()] = append(byCategory[t.Category()], t)
	}
	all = true
	for _, group := range byCategory {
		err := c.carryOut(ctx, group)
		for _, t := range group {
			if err != nil {
				t.Failed()
				continue
			}
			tallies, again := c.journal.Confirm(upTo, t.Name)
			if again != nil {
				all = false
				continue
			}
			for _, tally := range tallies {
				close(tally.Done)
			}
			c.tell(journal.Resent, Invalidation{Pattern: t.Text})
		}
		if err != nil {
			all = false
			c.scanFailed(ctx, err)
		}
	}
	return len(tasks) > 0, all
}

// carryOut removes what matches patterns of one category: first the leases, and in a second pass the values. In one pass, a load
// could store its value behind the scan, and give back its lease before the scan gets there. As it is, a lease that is there at
// the beginning is found by the first pass, or has been filled by the end of that, and then the second one finds the value.
//
// The sequence comes before all that. Where Redis holds neither value nor lease, nothing is found and nobody is told; what a process
// has loaded and could not store rests on the sequence instead.
func (c *Cache) carryOut(ctx context.Context, tasks []journal.Pattern) error {
	budget, cancel := c.store.Budget(ctx, 0, 1)
	raised := c.tags.Bump(budget, keyspace.Sequence)
	cancel()
	if err := raised[0].Err; err != nil {
		return err
	}
	var passes []string
	if match, one := together(tasks); one {
		// A key that is known needs no search: its value and its lease go at once.
		if err := c.erase(ctx, tasks, []string{match}); err != nil {
			return err
		}
	} else {
		passes = []string{redisstore.LeasePattern(match), match}
	}
	if err := c.store.Scan(ctx, func(names []string) error { return c.erase(ctx, tasks, names) }, passes...); err != nil {
		return err
	}
	return c.store.Writable(ctx)
}

// together is a pattern that matches all that any of the tasks does, and whether that is one key.
func together(tasks []journal.Pattern) (match string, one bool) {
	if len(tasks) == 1 {
		return tasks[0].Text, tasks[0].Glob.Prefix() == tasks[0].Text
	}
	match = tasks[0].Glob.Prefix()
	for _, t := range tasks[1:] {
		n, other := 0, t.Glob.Prefix()
		for n < min(len(match), len(other)) && match[n] == other[n] {
			n++
		}
		match = match[:n]
	}
	return match + "*", false
}

// erase removes what the tasks match of names in Redis, which may be those of leases.
func (c *Cache) erase(ctx context.Context, tasks []journal.Pattern, names []string) error {
	var keys []string
	var of [][]journal.Pattern
	for _, key := range names {
		if lease, ok := redisstore.KeyOfLease(key); ok {
			key = lease
		}
		var which []journal.Pattern
		for _, t := range tasks {
			if t.Matches(key) && !strings.ContainsAny(key, "{}") {
				which = append(which, t)
			}
		}
		if len(which) > 0 {
			keys, of = append(keys, key), append(of, which)
		}
	}
	removed, err := c.store.Erase(ctx, keys...)
	for i, which := range of {
		if !removed[i] {
			continue
		}
		for _, t := range which {
			t.Removed()
		}
	}
	return err
}
