package engine

import (
	"context"
	"slices"
	"time"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// keepWithoutLease keeps in memory what was loaded without a lease, or could not be stored under it. Where Redis tells of every change
// that the value could be out of date for, it is as good as one that is in Redis. Where Redis is away, it is kept as what
// nobody tells of: for DegradedTTL. Otherwise Redis was there and it is not known what it would tell, so it is not kept.
func (e *Engine) keepWithoutLease(m *tags.Snapshot, a *attempt, start int64, ttl time.Duration) {
	switch all, away := e.tracked(m, a); {
	case all && len(a.lateNames) == 0:
		e.keepTracked(m, a, start, ttl)
	case away && (len(a.lateNames) == 0 || e.awayFromLateTags(m, a)):
		e.keepUntracked(m, a, start, ttl)
	}
}

func (e *Engine) keepTracked(m *tags.Snapshot, a *attempt, start int64, ttl time.Duration) {
	list, ok := m.Validities([]*near.Validity{a.notice.Validity}, a.unstoredTags())
	if !ok {
		a.Policy.Counters.RefusedFills.Add(1)
		return
	}
	fresh := a.out.FreshUntil
	a.out.FreshUntil = start + int64(ttl)
	entry := a.asEntry(list)
	a.out.FreshUntil = fresh
	if e.roomFor(a, entry) && !e.Near.Insert(a.Key, entry, a.fence) {
		a.Policy.Counters.RefusedFills.Add(1)
	}
	e.closedMeanwhile(a)
}

// keepUntracked keeps in memory what was loaded while Redis could not be asked, for the policy's DegradedTTL: nobody would tell
// if another process invalidated it. What this process invalidates ends it at once.
func (e *Engine) keepUntracked(m *tags.Snapshot, a *attempt, start int64, ttl time.Duration) {
	if a.Policy.DegradedTTL <= 0 {
		return
	}
	if len(a.lateNames) > 0 {
		tags, err := tagNames(a.lateNames)
		if err != nil || e.tags.Events().All != a.tagEvents.All {
			return
		}
		a.Tags = slices.Concat(a.Tags, tags)
	}
	list, ok := m.Hold([]*near.Validity{near.Untracked}, a.Tags)
	if !ok {
		a.Policy.Counters.RefusedFills.Add(1)
		return
	}
	if e.tags.Events().All != a.tagEvents.All && len(a.lateNames) > 0 {
		return // one of the tags above may be it: their fences are younger than the load
	}
	a.out.FreshUntil = start + int64(ttl)
	entry := a.asEntry(list)
	a.out.FreshUntil = start
	if e.roomFor(a, entry) && !e.Near.KeepUntracked(a.Key, entry, a.fence) {
		a.Policy.Counters.RefusedFills.Add(1)
	}
	e.closedMeanwhile(a)
}

// insertLoaded keeps a.out in memory, in memory mode, unless it was invalidated meanwhile. A value that is too large is not
// kept: its callers get it all the same, and are told so.
func (e *Engine) insertLoaded(ctx context.Context, m *tags.Snapshot, a *attempt) error {
	refused := false
	if len(a.lateNames) > 0 {
		unmoved, err := e.addLateTags(ctx, m, a)
		if err == nil && len(a.Tags) > wire.MaxTags {
			err = wire.ErrTags
		}
		if err != nil {
			return e.unkept(a, err)
		}
		refused = !unmoved
	}
	list, ok := a.captured.Validities(nil)
	entry := a.asEntry(list)
	if !e.roomFor(a, entry) {
		return e.unkept(a, wire.ErrTooLarge)
	}
	if refused || !ok || !e.Near.Insert(a.Key, entry, a.fence) {
		a.Policy.Counters.RefusedFills.Add(1)
	}
	if a.Replace {
		e.Near.Discard(a.Key, a.out.LoadedAt) // where the new value was not stored
	}
	e.closedMeanwhile(a)
	return nil
}

// keepRead keeps in memory what was read from Redis, if somebody vouches for it.
func (e *Engine) keepRead(a *attempt, out Outcome, carried tags.Capture) {
	own := a.notice.Validity
	if own == nil {
		return
	}
	list, ok := carried.Validities(own)
	kept := out.inMemory()
	size := near.Size(kept)
	if !ok || !e.Near.Fits(a.Key, size) {
		return
	}
	entry := &near.Entry{Value: kept, Scope: a.Policy.scope(list, a.Tags), LoadedAt: out.LoadedAt, FreshUntil: out.FreshUntil, Size: size}
	if !e.Near.Insert(a.Key, entry, a.fence) {
		e.Near.KeepUntracked(a.Key, entry, a.fence) // as a stale one, where the server of a tag is away
	}
}

// asEntry makes the entry in memory of what was loaded.
func (a *attempt) asEntry(list []*near.Validity) *near.Entry {
	entry := a.Entry
	if entry == nil || a.out.Value != a.Value {
		entry = new(near.Entry) // which is not to keep alive what came with it
	}
	kept := a.out.inMemory()
	*entry = near.Entry{
		Value: kept, Scope: a.Policy.scope(list, a.Tags), LoadedAt: a.out.LoadedAt, FreshUntil: a.out.FreshUntil,
		Size: near.Size(kept),
	}
	return entry
}

// roomFor reports whether memory takes an entry that is not in Redis too.
func (e *Engine) roomFor(a *attempt, entry *near.Entry) bool {
	return entry.Size <= int64(e.opts.MaxValueBytes) && e.Near.Fits(a.Key, entry.Size)
}

func (e *Engine) unkept(a *attempt, err error) error {
	e.unstorable(a, err)
	a.out.FreshUntil = a.out.LoadedAt
	return err
}

// closedMeanwhile keeps what is brought by a loader that Close has given up on from being found.
func (e *Engine) closedMeanwhile(a *attempt) {
	if e.closed.Load() {
		e.Near.Delete(a.Key)
	}
}
