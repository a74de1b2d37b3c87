package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// keepWithoutLease keeps in memory a value that was loaded without a lease, or that could not be stored under it:
//
//   - Where Redis notifies this process of changes of the key and all tags, the value is kept like one that is in Redis.
//   - Where Redis is unavailable for each name that it does not notify of, the value is kept for DegradedTTL.
//   - Otherwise it is not kept: another process could invalidate it, and this process would not be notified.
func (e *Engine) keepWithoutLease(m *tags.Snapshot, a *attempt, start int64, ttl time.Duration) {
	if a.Place == PlaceRedis {
		return
	}
	switch all, unavailable := e.tracked(m, a); {
	case all && len(a.lateNames) == 0:
		e.keepTracked(m, a, start, ttl)
	case unavailable && (len(a.lateNames) == 0 || e.lateTagsCutOff(m, a)):
		e.keepUntracked(m, a, start, ttl)
	}
}

// keepTracked keeps in memory a value whose changes Redis pushes to this process.
func (e *Engine) keepTracked(m *tags.Snapshot, a *attempt, start int64, ttl time.Duration) {
	list, ok := m.Validities([]*near.Validity{a.notice.Validity}, a.unstoredTags())
	if !ok { // one of the tags was invalidated
		a.out.Overtaken = e.elsewhere(a)
		a.Policy.Counters.FillsRejected.Add(1)
		return
	}
	fresh := a.out.FreshUntil
	a.out.FreshUntil = start + int64(ttl)
	entry := a.asEntry(list, wire.Nonce{})
	a.out.FreshUntil = fresh
	switch {
	case e.roomFor(a, entry):
		kept := e.Near.Insert(a.Key, entry, a.fence)
		if !kept {
			a.Policy.Counters.FillsRejected.Add(1)
		}
		if e.elsewhere(a) {
			if a.out.Overtaken = !kept; kept {
				a.out.FreshUntil = start + int64(ttl)
			}
		}
	case e.elsewhere(a):
		e.unstorable(a, e.noRoom(entry)) // it is kept nowhere
	}
	e.deleteIfClosed(a)
}

// keepUntracked keeps in memory a value that was loaded while Redis was unavailable, for the policy's DegradedTTL: this process would not be
// notified if another one invalidated it. An invalidation by this process removes it at once.
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
	names := a.Tags
	if e.elsewhere(a) {
		names = a.unstoredTags() // once Redis is back, this process hears of patterns
	}
	list, ok := m.Hold([]*near.Validity{near.Untracked}, names)
	if !ok {
		a.Policy.Counters.FillsRejected.Add(1)
		return
	}
	if e.tags.Events().All != a.tagEvents.All && len(a.lateNames) > 0 {
		return // one of the tags above may have been invalidated before its fence was taken
	}
	a.out.FreshUntil = start + int64(ttl)
	entry := a.asEntry(list, wire.Nonce{})
	a.out.FreshUntil = start
	if e.roomFor(a, entry) && !e.Near.KeepUntracked(a.Key, entry, a.fence) {
		a.Policy.Counters.FillsRejected.Add(1)
	}
	e.deleteIfClosed(a)
}

// insertLoaded keeps a.out in memory, in memory mode, unless it was invalidated during the load. A value that is too large is not kept. Its
// callers still get it, and the log says why it is not cached.
func (e *Engine) insertLoaded(ctx context.Context, m *tags.Snapshot, a *attempt) error {
	refused := false
	if len(a.lateNames) > 0 {
		unmoved, err := e.addLateTags(ctx, m, a)
		if err != nil {
			return e.uncached(a, err)
		}
		refused = !unmoved
	}
	list, ok := a.captured.Validities(nil)
	entry := a.asEntry(a.withPrior(list), wire.Nonce{})
	if !e.roomFor(a, entry) {
		return e.uncached(a, e.noRoom(entry))
	}
	if refused || !ok || !e.Near.Insert(a.Key, entry, a.fence) {
		a.Policy.Counters.FillsRejected.Add(1)
		a.out.FreshUntil, a.out.Overtaken = a.out.LoadedAt, true // the callers' value is not cached, and may be out of date
	} else {
		a.Policy.Counters.ValueBytes.Observe(entry.Size)
	}
	if a.Replace {
		e.Near.Discard(a.Key, a.out.LoadedAt) // the old value, if the new one was not stored
	}
	e.deleteIfClosed(a)
	return nil
}

// fewValidities is for how many validities of an entry there is room without an allocation.
const fewValidities = 8

// keepRead keeps in memory a value that was read from Redis, if Redis notifies this process of its changes.
func (e *Engine) keepRead(a *attempt, entry *near.Entry, carried tags.Capture) {
	own := a.notice.Validity
	if own == nil || a.Place == PlaceRedis {
		return
	}
	var room [fewValidities]*near.Validity
	list, ok := carried.Validities(append(room[:0], own))
	entry.Size = near.Size(entry.Value)
	if !ok || !e.Near.Fits(a.Key, entry.Size) {
		return
	}
	entry.Scope = a.Policy.scope(list, a.Tags)
	a.bound(entry, e.Clock.Now())
	if !e.Near.Insert(a.Key, entry, a.fence) {
		e.Near.KeepUntracked(a.Key, entry, a.fence) // as a stale value, where the server of a tag is unavailable
	}
}

// asEntry makes the entry for memory of a loaded value. nonce identifies the value in Redis, and is zero where Redis does not hold it.
func (a *attempt) asEntry(list []*near.Validity, nonce wire.Nonce) *near.Entry {
	entry := a.Entry
	if entry == nil || a.out.Value != a.Value {
		entry = new(near.Entry) // a.Entry would keep the value alive that was allocated with it
	}
	kept := a.out.inMemory()
	*entry = near.Entry{
		Value: kept, Scope: a.Policy.scope(list, a.Tags), LoadedAt: a.out.LoadedAt, Until: a.out.FreshUntil,
		Size: near.Size(kept), LoadTime: a.took,
	}
	return withPlan(entry, a.planOf(&a.out, a.windows, a.took, nonce))
}

// roomFor reports whether memory takes an entry that is not stored in Redis.
func (e *Engine) roomFor(a *attempt, entry *near.Entry) bool {
	return entry.Size <= int64(e.opts.MaxValueBytes) && e.Near.Fits(a.Key, entry.Size)
}

// noRoom is the error for an entry that memory does not take.
func (e *Engine) noRoom(entry *near.Entry) error {
	if entry.Size > int64(e.opts.MaxValueBytes) {
		return e.tooLarge(entry.Size)
	}
	return errOverMaxBytes
}

var errOverMaxBytes = errors.New("value larger than MaxBytes, which bounds all values in memory")

// tooLarge is the error for a value of so many bytes.
func (e *Engine) tooLarge(size int64) error {
	return fmt.Errorf("%w: %d bytes, at most %d", wire.ErrTooLarge, size, e.opts.MaxValueBytes)
}

// uncached notes a loaded value that memory does not take.
func (e *Engine) uncached(a *attempt, err error) error {
	e.unstorable(a, err)
	a.out.FreshUntil = a.out.LoadedAt
	return err
}

// deleteIfClosed removes a value that a loader has returned after Close gave up waiting for it.
func (e *Engine) deleteIfClosed(a *attempt) {
	if e.closed.Load() {
		e.Near.Delete(a.Key)
	}
}
