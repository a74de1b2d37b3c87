// Package invalidate carries out invalidations, in this process and in Redis. It retries invalidations until Redis confirms them, and notifies
// the program of the confirmed ones.
package invalidate

import (
	"context"
	"log/slog"

	"github.com/gatewayz/aside/internal/backoff"
	"github.com/gatewayz/aside/internal/glob"
	"github.com/gatewayz/aside/internal/journal"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/loglimit"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/observe"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/scan"
	"github.com/gatewayz/aside/internal/stats"
	"github.com/gatewayz/aside/internal/tags"
)

// Options are what an Invalidator works with.
type Options struct {
	Near          *near.Cache
	Clock         *near.Clock
	Journal       *journal.Journal // nil in memory mode
	Tags          *tags.Registry
	Backoff       *backoff.Table
	Metrics       *stats.Registry
	OnInvalidated func(Event) // may be nil
	Logger        *slog.Logger
	Go            func(f func())  // runs f in the background
	Closed        <-chan struct{} // is closed when the cache is
	ErrClosed     error           // is returned to callers that wait then
	Observer      *observe.Observer
}

// An Invalidator carries out invalidations. It is safe for concurrent use.
type Invalidator struct {
	o Options

	store    *redisstore.Store // nil in memory mode
	sweeper  *scan.Sweeper
	scanner  *scan.Scanner
	notifier *notifier        // nil without a hook
	refusals loglimit.Limiter // of Redis, to carry out an invalidation

	origin         observe.Origin // of the keys and tags in the journal
	patternsOrigin observe.Origin // of the patterns in it
}

// New makes an Invalidator, in memory mode until Connect. It notifies OnInvalidated until the cache is closed.
func New(o Options) *Invalidator {
	v := &Invalidator{o: o}
	if o.OnInvalidated != nil {
		v.notifier = &notifier{hook: o.OnInvalidated, logger: o.Logger, again: o.Go, wake: make(chan struct{}, 1)}
		o.Go(func() { v.notifier.run(o.Closed) })
	}
	return v
}

// Connect gives the Invalidator what it needs for Redis, and sends what is in the journal until ctx ends. Until then it may be called for
// Pushed and Gap alone.
func (v *Invalidator) Connect(ctx context.Context, store *redisstore.Store, sweeper *scan.Sweeper, scanner *scan.Scanner) {
	v.store, v.sweeper, v.scanner = store, sweeper, scanner
	v.o.Go(func() { store.Retry(ctx, v.o.Journal.Wake(), v.sendBatch) })
	v.o.Go(func() { store.Retry(ctx, v.o.Journal.WakePatterns(), v.sendPatterns) })
	v.o.Go(func() { v.keepWatermark(ctx) })
	v.o.Go(func() { v.logWaiting(ctx) })
}

// Reserve reserves room for an invalidation of a caller outside of the program, until end is called. It reports false if there is no room,
// because too many invalidations are pending.
func (v *Invalidator) Reserve(caller string, names ...string) (end func(), ok bool) {
	var rooms []func(caller string, names []string) (end func(), ok bool)
	if v.notifier != nil {
		rooms = append(rooms, v.notifier.reserve)
	}
	if v.store != nil {
		rooms = append(rooms, v.sweeper.Reserve, v.o.Journal.Reserve)
	}
	var reserved []func()
	end = func() {
		for _, end := range reserved {
			end()
		}
	}
	for _, reserve := range rooms {
		one, ok := reserve(caller, names)
		if !ok {
			end()
			return nil, false
		}
		reserved = append(reserved, one)
	}
	return end, true
}

// Remove invalidates keys: it removes their values from memory and from Redis, and prevents that a load in flight is stored. The tags are those
// of the keys. It returns an error for each key too, or nil if none failed.
func (v *Invalidator) Remove(ctx context.Context, caller string, keys, tags []string) (*Ticket, []error) {
	removed, pending, errs := v.remove(ctx, caller, keys, tags)
	if pending == nil {
		v.notify(caller, Event{Keys: keys})
	}
	return v.ticket(removed, pending), errs
}

// Discard is Remove of a key whose new value could not be stored. The program is not notified of it.
func (v *Invalidator) Discard(ctx context.Context, key string, tags []string) error {
	if _, _, errs := v.remove(ctx, "", []string{key}, tags); errs != nil {
		return errs[0]
	}
	return nil
}

func (v *Invalidator) remove(ctx context.Context, caller string, keys, tags []string) (removed int64, pending []*journal.Pending, errs []error) {
	removed = v.deleteHere(keys)
	if v.store == nil {
		return removed, nil, nil
	}
	if v.store.Connecting() {
		v.store.AwaitFirst(ctx, v.o.Closed, append(append([]string(nil), keys...), tags...)...)
	}
	before := v.o.Journal.Now(caller)
	budget, cancel := v.store.Budget(context.WithoutCancel(ctx), 0, len(keys))
	defer cancel()
	removed, errs = v.store.Remove(budget, keys...)
	return removed, v.settleKeys(ctx, caller, before, keys, errs), errs
}

// deleteHere removes keys from memory, and returns how many were there.
func (v *Invalidator) deleteHere(keys []string) (removed int64) {
	for _, key := range keys {
		v.o.Backoff.Forget(key)
		if v.o.Near.Delete(key) {
			removed++
		}
	}
	return removed
}

// settleKeys notes whether Redis has removed keys, and removes them from memory once more. It returns what is to be confirmed yet.
func (v *Invalidator) settleKeys(ctx context.Context, caller string, before journal.Position, keys []string, errs []error) (pending []*journal.Pending) {
	if errs == nil {
		_, pending = v.o.Journal.Confirm(before, keys...)
	} else {
		v.origin.Note(ctx, v.o.Observer)
		pending = v.o.Journal.Enter(caller, keys...)
	}
	for _, key := range keys {
		// The key was deleted from memory before. The second delete guards against this sequence:
		//
		//  1. The key is deleted from memory.
		//  2. A read of the key finds the old value in Redis.
		//  3. Redis removes the value, and pushes that. The push is still on its way.
		//  4. The read keeps the old value in memory.
		//  5. This call returns. Until the push arrives, callers would get the old value.
		v.o.Near.Delete(key)
	}
	return pending
}

// Retire invalidates tags: it gives them their next generations. If tags that the program has named are among them, the sequence is the first
// one. The event is for the program's hook.
//
// Tags are retired in this process before the change in Redis and after it: a read in between may still find the old generations.
func (v *Invalidator) Retire(ctx context.Context, caller string, event Event, tags ...string) *Ticket {
	if v.store == nil {
		return v.retireHere(caller, tags, event)
	}
	v.o.Tags.Retire(tags)
	defer v.o.Tags.Retire(tags)
	v.awaitServers(ctx, tags...)
	before := v.o.Journal.Now(caller)
	budget, cancel := v.store.Budget(context.WithoutCancel(ctx), 0, len(tags))
	defer cancel()
	return v.settleTags(ctx, caller, before, tags, v.o.Tags.Bump(budget, tags...), event)
}

// retireHere is Retire in memory mode.
func (v *Invalidator) retireHere(caller string, tags []string, events ...Event) *Ticket {
	count := journal.NewCount()
	v.o.Tags.RetireAll(tags, &count.Removed, count.Done)
	v.notify(caller, events...)
	return v.ticket(0, nil, count)
}

// settleTags notes whether Redis has given tags their next generations. Where it has, what carries the old ones is swept.
func (v *Invalidator) settleTags(ctx context.Context, caller string, before journal.Position, tags []string, generations []redisstore.Generation, events ...Event) *Ticket {
	confirmed := true
	for _, g := range generations {
		if g.Err != nil {
			confirmed = false
			v.o.Metrics.RedisErrors.Add(1)
		}
	}
	if !confirmed {
		v.origin.Note(ctx, v.o.Observer)
		return v.ticket(0, v.o.Journal.Enter(caller, tags...))
	}
	v.sweeper.From(ctx)
	var own []*journal.Count
	var again []*journal.Pending
	for i, tag := range tags {
		counts, entered := v.o.Journal.Confirm(before, tag)
		if again = append(again, entered...); entered == nil && tag != keyspace.Sequence {
			own = append(own, v.sweeper.Begin(caller, tag, generations[i], counts...)...)
		}
	}
	t := v.ticket(0, again, own...)
	v.notify(caller, events...)
	return t
}

// Match invalidates the keys that match a pattern. It returns when the scans are done, when a scan has failed, or when ctx ends. In the last two
// cases the ticket is not confirmed, and the work goes on in the background. It calls entered, which ends the caller's reservation, as soon as
// the pattern is in the journal: the scans may take long.
func (v *Invalidator) Match(ctx context.Context, caller, text string, g glob.Glob, entered func()) *Ticket {
	if v.store == nil {
		removed := v.deleteMatching(g)
		v.notify(caller, Event{Pattern: text})
		return v.ticket(removed, nil)
	}
	v.awaitServers(ctx)
	v.patternsOrigin.Note(ctx, v.o.Observer)
	pending := v.o.Journal.Enter(caller, keyspace.PatternPrefix+text)
	entered()
	// The pattern is in the journal by now: values that were read before are deleted here, a read in flight is not kept, and a read that
	// begins now does not ask Redis.
	v.deleteMatching(g)
	confirmed, w := false, pending[0]
	if w.Failed() == nil { // no room for the pattern: the journal invalidates everything instead
		return v.ticket(0, pending)
	}
	select {
	case <-w.Confirmed():
		confirmed = true
	case <-w.Failed():
		v.o.Metrics.RedisErrors.Add(1)
	case <-ctx.Done():
	case <-v.o.Closed:
	}
	t := v.ticket(w.Count().Removed.Load(), pending)
	t.Confirmed = confirmed
	return t
}

// deleteMatching removes matching values from memory, and prevents that a load in flight is stored. It returns the number of values.
func (v *Invalidator) deleteMatching(g glob.Glob) (removed int64) {
	removed = v.o.Near.DeleteMatching(g.Match)
	v.o.Backoff.ForgetMatching(g.Match)
	return removed
}

func (v *Invalidator) awaitServers(ctx context.Context, tags ...string) {
	if v.store.Connecting() {
		v.store.AwaitFirst(ctx, v.o.Closed, tags...)
	}
}

// Pushed handles a push from Redis: a key, or the generation of a tag, has changed.
func (v *Invalidator) Pushed(name string) {
	v.o.Metrics.InvalidationMessages.Add(1)
	v.o.Tags.Pushed(name)
	v.o.Near.Push(name)
}

// Gap notes that Redis may not have pushed a change.
func (v *Invalidator) Gap() {
	v.o.Metrics.TrackingLost.Add(1)
	v.o.Tags.Gap()
	v.o.Journal.ConnectionLost()
}

// Idle notes that the last Gap was because this process is idle.
func (v *Invalidator) Idle() { v.o.Metrics.TrackingPaused.Add(1) }
