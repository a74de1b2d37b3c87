package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gatewayz/aside/internal/bulkhead"
	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/tags"
)

// loadAndShare calls the loader once for attempts, shares each result with all waiting callers, and stores it where that is allowed:
// admit, call, decide, share, fill. However the loader ends, no lease outlives the load.
// admit takes the place in the bulkhead: see Engine.admit.
func (e *Engine) loadAndShare(ctx context.Context, m *tags.Snapshot, attempts []*attempt, load LoadFunc, admit func(context.Context, []*attempt) (leave func(), ok bool)) {
	if len(attempts) == 0 {
		return
	}
	slices.SortStableFunc(attempts, func(a, b *attempt) int { return a.index - b.index }) // the order that loaders are promised
	if ctx.Err() != nil {                                                                 // nobody waits any more
		e.release(attempts...)
		return
	}
	// The leases are held until the values are stored: to encode and send them can take longer than a lease lives.
	leases := e.holdLeases(attempts)
	defer leases.Stored()
	attempts[0].call.NotifyEnd(leases)
	defer attempts[0].call.IgnoreEnd(leases)
	done := false
	defer func() {
		if !done { // runtime.Goexit
			e.release(attempts...)
		}
	}()

	parent := parentOf(ctx) // runs the program's code, so it comes before a place is taken: a Goexit there would keep the place
	leave, ok := admit(ctx, attempts)
	if !ok {
		leases.Loaded()
		e.release(attempts...)
		done = true
		return
	}
	awaitPushes(m, attempts)
	l := &Load{engine: e, attempts: attempts, parent: parent}
	start := e.call(ctx, l, load, leave)
	leases.Loaded()

	var store, unstored []*attempt
	for _, i := range smallFirst(attempts) {
		a := attempts[i]
		to, ttl := e.decide(m, a, l.decision(i), start)
		if to != nowhere {
			e.logLateLoad(ctx, a, ttl)
		}
		kept := e.share(ctx, m, a, to, ttl)
		switch {
		case !kept:
			if a.pause = 0; a.old != nil && a.Err != nil && ctx.Err() == nil {
				a.pause = e.pauseAfterFailure(a)
			}
			unstored = append(unstored, a)
		case to == underLease:
			store = append(store, a)
		}
		if to == withoutLease && a.timedOut {
			defer e.learnSize(a) // once the callers have their values
		}
	}
	e.release(unstored...)
	e.fillParts(ctx, m, store)
	done = true
}

// admit takes a place in the bulkhead for the loader of attempts, and returns the function that leaves it. It reports false if there is no
// room, for which attempts get an error, or if nobody waits for the load any more.
func (e *Engine) admit(ctx context.Context, attempts []*attempt) (leave func(), ok bool) {
	if why := e.stuck.tooMany(attempts, e.opts.MaxLoads); why != "" {
		e.overloaded(attempts, why)
		return nil, false
	}
	leave, ok = e.enter(ctx, attempts[0].call)
	switch {
	case !ok:
		e.overloaded(attempts, fmt.Sprintf("load queue full (MaxLoads=%d, MaxQueuedLoads=%d)", e.opts.MaxLoads, e.opts.MaxQueuedLoads))
	case ctx.Err() != nil: // the callers left while the load was queued
		leave()
		ok = false
	}
	return leave, ok
}

// enter takes a place in the bulkhead for the loader of a call. A queued load ends when nobody waits for it.
func (e *Engine) enter(ctx context.Context, call *flight.Call[flightKey, Outcome]) (leave func(), ok bool) {
	end := func(p *bulkhead.Place) bool { return call.EndDeserted(p) }
	p := e.loads.TryEnter(end)
	if p == nil {
		p, ok = func() (*bulkhead.Place, bool) {
			call.Queue()
			defer call.Dequeue()
			return e.loads.Enter(ctx, call.Bypassed(), end)
		}()
		if !ok {
			return func() {}, false
		}
	}
	call.Watch(p)
	return leaveOnce(call, p), true
}

// leaveOnce returns a function that gives a place back the first time it is called: when the loader returns, or when its time is up.
func leaveOnce(call *flight.Call[flightKey, Outcome], p *bulkhead.Place) func() {
	var once sync.Once
	return func() {
		once.Do(func() {
			call.Unwatch(p) // before another load can take the place
			p.Leave()
		})
	}
}

// overloaded refuses attempts: there are no places for them.
func (e *Engine) overloaded(attempts []*attempt, why string) {
	e.logOverload(attempts[0], why)
	for _, a := range attempts {
		a.Policy.Counters.Overloads.Add(1)
		a.call.Resolve(a.missed(), &Error{Code: CodeOverloaded, Key: a.Key, Message: why})
	}
}

// awaitPushes makes the fences of loads that began without Redis notice its pushes. No reply of Redis has armed these fences, but Redis may
// push a change while the load runs.
func awaitPushes(m *tags.Snapshot, attempts []*attempt) {
	for _, a := range attempts {
		if (a.status == StatusFallback || a.Place == PlaceMemory) && !a.leased() {
			a.fence.Await()
			m.Await(a.Tags)
		}
	}
}

// A destination says where the value of a load is stored.
type destination int

const (
	nowhere      destination = iota // an error, or a value that the loader or its TTL keeps from being cached
	inMemory                        // the only place in memory mode
	underLease                      // Redis, by fill
	withoutLease                    // memory, while Redis does not take it: see keepWithoutLease
)

// decide makes the outcome of what the loader has returned for a, and says where that is stored, and for how long.
func (e *Engine) decide(m *tags.Snapshot, a *attempt, d decision, start int64) (to destination, ttl time.Duration) {
	a.out = Outcome{
		Value: a.Value, Status: a.status, Tier: TierOrigin, Reason: a.reason, LoadedAt: start, FreshUntil: start,
		LoadTime: a.took, lateTags: lateTags{late: len(d.tags) > 0, tagEvents: a.tagEvents.All},
	}
	a.etag = d.etag
	if a.NotModified {
		a.Policy.Counters.NotModified.Add(1)
		if a.inherit() {
			a.out.late = true
			d.noStore = d.noStore || a.overTags(d.tags) // the next load has no previous value, and the tags of its own alone
		}
	}
	a.out.ETag = a.etag
	ttl = cmp.Or(d.ttl, a.TTL)
	a.ownTTL = ttl != a.Policy.TTL
	ttl = shortened(ttl, a.Policy.Jitter)
	switch {
	case a.NotFound:
		a.out.Value, a.out.Absent = nil, a.Err
		a.Err, ttl, a.ownTTL, a.etag, a.out.ETag = nil, a.Policy.NegativeTTL, false, "", ""
	case a.Err == nil && a.Policy.CloneOnRead && !a.NotModified:
		a.Err = a.encodeOwn(e.limits())
	}
	if a.Err != nil {
		return nowhere, 0
	}
	a.lateNames = d.tags
	if a.out.late {
		a.out.untracked = !a.Bypass && e.lateTagsUntracked(m, a)
		a.setJoinable(e, m)
	}
	switch {
	case a.Bypass || d.noStore || ttl <= 0 || e.forgetful, e.Store == nil && a.Place == PlaceRedis:
		return nowhere, 0
	case e.Store == nil:
		return inMemory, ttl
	case a.leased():
		return underLease, ttl
	}
	return withoutLease, ttl
}

// share gives the outcome of a load to all waiting callers of its key. What memory is to hold is there before they get it. It reports
// whether the value is stored, or is to be stored under its lease.
func (e *Engine) share(ctx context.Context, m *tags.Snapshot, a *attempt, to destination, ttl time.Duration) (kept bool) {
	if a.Err != nil {
		a.call.Resolve(a.missed(), loadError(ctx, a.Err))
		return false
	}
	start := a.out.LoadedAt
	if !a.leased() && !a.Bypass {
		a.fence.Overtake() // loads that have outlived their time; where there is a lease, they have lost theirs
	}
	switch to {
	case inMemory:
		a.out.FreshUntil += int64(ttl)
		kept = e.insertLoaded(ctx, m, a) == nil
	case underLease:
		a.out.FreshUntil += int64(ttl)
		a.loadedUntil(a.out.FreshUntil)
		kept = true
		if a.Replace {
			e.Near.Discard(a.Key, start) // until the new value is in memory, later callers get it from the flight
		}
	case withoutLease: // a Refresh cannot replace the value in Redis without a lease, so that value is removed
		if kept = !a.Replace; kept {
			e.keepWithoutLease(m, a, start, ttl)
		}
	}
	switch {
	case kept:
	case a.Replace:
		e.removeOld(ctx, a) // the value that the caller wanted replaced must not come back
	case to == nowhere:
		e.endOld(ctx, a)
	}
	if !a.leased() || !kept {
		a.call.Forget() // callers that come later do not share it
	}
	out := a.out
	if to == underLease && e.overtaken(m, a) {
		out.FreshUntil, out.Overtaken = out.LoadedAt, true // the fill will be refused
	}
	a.call.Resolve(out, nil)
	return kept
}

// overtaken reports whether the key, or a tag, of a leased load has changed since the load began, as far as this process has heard. Of changes of tags it
// has heard if it has made them, and if the loader has named tags, of any.
func (e *Engine) overtaken(m *tags.Snapshot, a *attempt) bool {
	for _, tag := range a.Tags {
		if m.State(tag).InvalidatedHere() {
			return true
		}
	}
	return a.fence.Broken() || a.lost.Load() || len(a.lateNames) > 0 && e.tags.Events().All != a.tagEvents.All
}
