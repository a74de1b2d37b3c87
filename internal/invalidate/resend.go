package invalidate

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/gatewayz/aside/internal/journal"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/loglimit"
	"github.com/gatewayz/aside/internal/observe"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/stats"
)

// sendBatch sends one batch of the keys and tags that Redis has not confirmed. It reports whether there were any, and whether all of them
// are confirmed.
func (v *Invalidator) sendBatch(ctx context.Context) (some, all bool) {
	if some = v.o.Journal.HasBatch(); !some || !v.store.Up() {
		return some, false
	}
	defer v.replay()()
	tags, keys, upTo := v.o.Journal.Batch()
	ok := true // all is false until this returns: the Observer may end the goroutine
	if v.o.Observer != nil {
		var end func(all bool)
		ctx, end = v.beginReplay(ctx, &v.origin, len(tags)+len(keys))
		defer func() { end(all) }()
		v.sweeper.From(ctx)
	}
	ctx, cancel := v.store.Budget(ctx, 0, len(tags)+len(keys))
	defer cancel()
	if len(tags) > 0 {
		for _, group := range independent(tags) {
			for i, g := range v.o.Tags.Bump(ctx, group...) {
				v.refused(g.Err)
				ok = g.Err == nil && v.confirmed(upTo, group[i], g) && ok
			}
		}
	}
	if len(keys) > 0 {
		_, errs := v.store.Remove(ctx, keys...)
		for _, err := range errs {
			v.refused(err)
		}
		done := succeeded(keys, errs)
		if len(done) == 0 {
			return some, false
		}
		_, again := v.o.Journal.Confirm(upTo, done...)
		ok = again == nil && len(done) == len(keys) && ok
		v.notify(journal.Resent, Event{Keys: done})
	}
	return some, ok
}

// sendPatterns carries out the patterns that are in the journal.
func (v *Invalidator) sendPatterns(ctx context.Context) (some, all bool) {
	defer v.replay()()
	patterns, upTo := v.o.Journal.Patterns()
	byCategory := make(map[string][]journal.Pattern)
	for _, p := range patterns {
		byCategory[p.Category()] = append(byCategory[p.Category()], p)
	}
	ok := true // as in sendBatch
	if v.o.Observer != nil && len(patterns) > 0 {
		var end func(all bool)
		ctx, end = v.beginReplay(ctx, &v.patternsOrigin, len(patterns))
		defer func() { end(all) }()
	}
	for _, group := range byCategory {
		err := v.scanner.Erase(ctx, group)
		for _, p := range group {
			if err != nil {
				p.Failed()
				continue
			}
			counts, again := v.o.Journal.Confirm(upTo, p.Name)
			if again != nil {
				ok = false
				continue
			}
			for _, c := range counts {
				close(c.Done)
			}
			v.notify(journal.Resent, Event{Pattern: p.Text})
		}
		if err != nil {
			ok = false
			v.scanner.Failed(ctx, err)
		}
	}
	return len(patterns) > 0, ok
}

// beginReplay tells the Observer that so many invalidations are sent which Redis has not confirmed. end tells whether Redis has confirmed all of them.
func (v *Invalidator) beginReplay(ctx context.Context, of *observe.Origin, n int) (_ context.Context, end func(all bool)) {
	origin := of.Take()
	ctx, op := v.o.Observer.Begin(observe.ValuesOf(ctx, origin), observe.Op{Kind: observe.Replay, Keys: n})
	return ctx, func(all bool) {
		as := observe.End{}
		if !all {
			as.Cause = stats.Unavailable.String()
			of.Return(origin) // it is sent again
		}
		op.End(as)
	}
}

// independent parts tags into groups of which none waits for another: the named ones with the sequence, which must be raised before
// them, and each of the others. In a cluster the server of one may be unavailable, and those of the others are not.
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

// refused logs an invalidation that Redis does not permit. It stays in the journal until it is permitted, and until then no other process is
// notified.
func (v *Invalidator) refused(err error) {
	if !redisstore.IsForbidden(err) {
		return
	}
	if suppressed, ok := v.refusals.Allow(v.o.Clock.Now()); ok {
		v.o.Logger.LogAttrs(context.Background(), slog.LevelWarn, "aside: redis refuses an invalidation: other processes are not notified; will retry until it is permitted",
			slog.String("cause", redisstore.Describe(err)), loglimit.Suppressed(suppressed))
	}
}

// confirmed notes that Redis has given a tag its next generation. It reports false if that is in doubt already.
func (v *Invalidator) confirmed(upTo journal.Position, tag string, g redisstore.Generation) bool {
	caller := v.o.Journal.CallerOf(tag)
	counts, again := v.o.Journal.Confirm(upTo, tag)
	if again == nil && tag != keyspace.Sequence {
		v.sweeper.Begin(caller, tag, g, counts...)
		v.notify(caller, eventOf(tag))
	}
	return again == nil
}

func eventOf(tag string) Event {
	if name, ok := strings.CutPrefix(tag, keyspace.NamedPrefix); ok {
		return Event{Tags: []string{keyspace.GivenName(name)}}
	}
	if name, ok := strings.CutPrefix(tag, keyspace.CategoryPrefix); ok {
		return Event{Category: name}
	}
	return Event{All: true}
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

const (
	watermarkPause = 500 * time.Millisecond // between two records: what Redis forgets of them is sent again
	watermarkAgain = time.Minute            // a record that nobody writes would be taken for unused, where Redis evicts what is
)

// keepWatermark records in Redis how many invalidations Redis has confirmed, until ctx ends. The watermark is behind the invalidations that it
// counts, in Redis' own order and so in everything that is saved or replicated.
func (v *Invalidator) keepWatermark(ctx context.Context) {
	for {
		t := time.NewTimer(watermarkAgain)
		select {
		case <-ctx.Done():
		case <-v.o.Journal.WakeWatermark():
		case <-t.C:
		}
		t.Stop()
		if watermark := v.o.Journal.Watermark(); watermark > 0 {
			v.record(watermark)
		}
		t.Reset(watermarkPause)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

func (v *Invalidator) record(watermark uint64) {
	ctx, cancel := v.store.Budget(context.Background(), 0, 1)
	defer cancel()
	if v.store.WriteWatermark(ctx, watermark) != nil {
		v.o.Journal.NotRecorded()
		return
	}
	v.o.Journal.Recorded(watermark)
}
