package aside

import (
	"context"
	"strings"
	"time"

	"github.com/gatewayz/aside/internal/journal"
	"github.com/gatewayz/aside/internal/keyspace"

	"github.com/gatewayz/aside/internal/redisstore"
)

// replayAtOnce is how many leases are given back in one round trip.
const replayAtOnce = 1000

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

const (
	markPause = 500 * time.Millisecond // between two marks: what Redis forgets of them is sent again
	markAgain = time.Minute            // so that it is not taken for unused, where Redis evicts what is
)

// keepMark writes into Redis how many invalidations it has confirmed, until ctx ends. The mark is behind what it is about, in
// Redis' own order and so in everything that is saved or replicated.
func (c *Cache) keepMark(ctx context.Context, j *journal.Journal) {
	for {
		t := time.NewTimer(markAgain)
		select {
		case <-ctx.Done():
		case <-j.WakeWatermark():
		case <-t.C:
		}
		t.Stop()
		if mark := j.Watermark(); mark > 0 {
			c.withBudget(1, func(ctx context.Context) error {
				err := c.store.Mark(ctx, mark)
				if err != nil {
					j.NotRecorded()
				} else {
					j.Recorded(mark)
				}
				return err
			})
		}
		t.Reset(markPause)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

// replay calls once, which sends some of what Redis has not confirmed, as soon as there is something and Redis is there, until
// ctx ends. It reports whether there was anything, and whether all of that is confirmed.
func (c *Cache) replay(ctx context.Context, wake <-chan struct{}, once func(context.Context) (some, all bool)) {
	const soonest, latest, longest = 10 * time.Millisecond, time.Second, 5 * time.Second
	for pause := soonest; ; {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
		for ctx.Err() == nil {
			began := time.Now()
			some, all := once(ctx)
			if !some {
				break
			}
			if all {
				pause = soonest
				continue
			}
			// What takes long and fails, a pattern with a key that the user may not touch, say, is not all that Redis does.
			rest := max(jittered(pause), min(4*time.Since(began), longest))
			pause = min(2*pause, latest)
			if !c.store.Up() { // asking that costs nothing
				rest, pause = jittered(soonest), soonest
			}
			t := time.NewTimer(rest)
			select {
			case <-ctx.Done():
			case <-t.C:
			}
			t.Stop()
		}
	}
}

// replayOnce sends one round of keys and tags.
func (c *Cache) replayOnce(ctx context.Context) (some, all bool) {
	if some = c.journal.HasBatch(); !some || !c.store.Up() {
		return some, false
	}
	tags, keys, upTo := c.journal.Batch()
	all = true
	ctx, cancel := c.store.Budget(ctx, 0, len(tags)+len(keys))
	defer cancel()
	if len(tags) > 0 {
		for _, group := range independent(tags) {
			for i, g := range c.tags.Bump(ctx, group...) {
				c.refused(g.Err)
				all = g.Err == nil && c.confirmed(upTo, group[i], g) && all
			}
		}
	}
	if len(keys) > 0 {
		_, errs := c.store.Remove(ctx, keys...)
		for _, err := range errs {
			c.refused(err)
		}
		done := succeeded(keys, errs)
		if len(done) == 0 {
			return some, false
		}
		_, again := c.journal.Confirm(upTo, done...)
		all = again == nil && len(done) == len(keys) && all
		c.tell(journal.Resent, Invalidation{Keys: done})
	}
	return some, all
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
		err := c.scanner.Erase(ctx, group)
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
			c.scanner.Failed(ctx, err)
		}
	}
	return len(tasks) > 0, all
}

// independent parts tags into groups of which none waits for another: the named ones with the sequence, which must be raised before
// them, and each of the others. In a cluster the server of one may be away, and those of the others are not.
func independent(tags []string) (groups [][]string) {
	var named []string
	for _, tag := range tags {
		if tag == keyspace.Sequence || keyspace.IsNamed(tag) {
			named = append(named, tag)
		} else {
			groups = append(groups, []string{tag})
		}
	}
	if len(named) > 0 {
		groups = append(groups, named)
	}
	return groups
}

// refused logs an invalidation that Redis does not permit: it waits until that is mended, and meanwhile nobody else is told of it.
func (c *Cache) refused(err error) {
	if redisstore.IsForbidden(err) && c.refusalLog.Allow(c.clock.Now()) {
		c.opts.Logger.Warn("aside: an invalidation is refused by redis: other processes are not told of it, and it is sent again until it is permitted",
			"reason", redisstore.Describe(err))
	}
}

// confirmed notes that Redis has given a tag its next generation. It reports false if that is in doubt already.
func (c *Cache) confirmed(upTo journal.Position, tag string, g redisstore.Generation) bool {
	caller := c.journal.CallerOf(tag)
	tallies, again := c.journal.Confirm(upTo, tag)
	if again == nil && tag != keyspace.Sequence {
		c.sweeper.Begin(caller, tag, g, tallies...)
		c.tell(caller, invalidationOf(tag))
	}
	return again == nil
}

func invalidationOf(tag string) Invalidation {
	if name, ok := strings.CutPrefix(tag, keyspace.NamedPrefix); ok {
		return Invalidation{Tags: []string{keyspace.GivenName(name)}}
	}
	if name, ok := strings.CutPrefix(tag, keyspace.CategoryPrefix); ok {
		return Invalidation{Category: name}
	}
	return Invalidation{All: true}
}

// succeeded are those keys that have no error.
func succeeded(keys []string, errs []error) (done []string) {
	if errs == nil {
		return keys
	}
	for i, key := range keys {
		if errs[i] == nil {
			done = append(done, key)
		}
	}
	return done
}
