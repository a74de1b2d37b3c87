package engine

import (
	"cmp"
	"context"
	"errors"
	"runtime/debug"
	"slices"
	"time"

	"github.com/gatewayz/aside/internal/bulkhead"
	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/tags"
)

// loadAndShare calls the loader once for attempts, gives each result to all who wait for it, and stores it where that is
// allowed. However the loader ends, no lease outlives it.
func (e *Engine) loadAndShare(ctx context.Context, m *tags.Snapshot, attempts []*attempt, load LoadFunc) {
	if len(attempts) == 0 {
		return
	}
	slices.SortStableFunc(attempts, func(a, b *attempt) int { return a.index - b.index }) // as the loader is promised them
	if ctx.Err() != nil {                                                                 // nobody waits any more
		e.release(attempts...)
		return
	}
	// Until the values are stored: encoding and sending them can take longer than a lease lives.
	leases := e.holdLeases(ctx, attempts)
	defer close(leases.Stored)
	done := false
	defer func() {
		if !done { // runtime.Goexit
			e.release(attempts...)
		}
	}()

	parent := parentOf(ctx) // before there is a place that nobody would leave
	leave, ok := e.place(ctx, attempts[0].call)
	switch {
	case !ok:
		e.overloaded(attempts)
	case ctx.Err() != nil: // while it waited for its place
		leave()
		ok = false
	}
	if !ok {
		close(leases.Loaded)
		e.release(attempts...)
		done = true
		return
	}
	// Of what is loaded without Redis, no reply has armed the fences; but it may well tell of a change while the load runs.
	for _, a := range attempts {
		if a.status == StatusFallback && !a.leased() {
			a.fence.Await()
			m.Await(a.Tags)
		}
	}
	l := &Load{engine: e, attempts: attempts, parent: parent}
	start, took := func() (int64, time.Duration) {
		defer leave()
		return e.callLoader(ctx, l, load)
	}()
	close(leases.Loaded)

	var store, unstored []*attempt
	for _, i := range smallFirst(attempts) {
		a, d := attempts[i], l.decision(i)
		a.out = Outcome{
			Value: a.Value, Status: a.status, Tier: TierOrigin, Reason: a.reason, LoadedAt: start, FreshUntil: start,
			late: len(d.tags) > 0, tagEvents: a.tagEvents.All,
		}
		ttl := cmp.Or(d.ttl, a.TTL)
		a.ownTTL = ttl != a.Policy.TTL
		ttl = shortened(ttl, a.Policy.Jitter)
		switch {
		case a.NotFound:
			a.out.Value, a.out.Absent = nil, a.Err
			a.Err, ttl, a.ownTTL = nil, a.Policy.NegativeTTL, false
		case a.Err == nil && a.Policy.Private:
			a.Err = a.encodeOwn(e.limits())
		}
		if a.Err != nil {
			unstored = append(unstored, a)
			a.call.Resolve(Outcome{}, loadError(ctx, a.Err))
			continue
		}
		a.lateNames = d.tags
		if a.out.late {
			a.out.untracked = e.lateTagsUntracked(m, a)
			a.setJoinable(e, m)
		}
		kept := d.store && ttl > 0
		switch {
		case !kept:
		case e.Store == nil:
			a.out.FreshUntil += int64(ttl)
			kept = e.insertLoaded(ctx, m, a) == nil
		case a.leased():
			a.out.FreshUntil += int64(ttl)
			store = append(store, a)
			if a.Replace {
				e.Near.Discard(a.Key, start) // until the new value is in its place, those who come get it from here
			}
		default: // without a lease nothing is stored in Redis, and what a Refresh was to replace must go
			kept = !a.Replace
			if kept {
				e.keepWithoutLease(m, a, start, ttl)
			}
			if a.timedOut {
				defer e.learnSize(a) // when the callers have their values
			}
		}
		if !kept {
			unstored = append(unstored, a)
			if a.Replace {
				// The value that the caller wanted replaced must not come back.
				e.removeOld(ctx, a)
			}
		}
		if !a.leased() || !kept {
			a.call.Forget() // those who wait share it, and nobody else
		}
		a.call.Resolve(a.out, nil)
	}
	e.release(unstored...)
	for _, part := range e.parts(store) {
		e.fill(m, part, took)
	}
	done = true
}

// place takes a place in the bulkhead for the loader of a call. A load that waits for its place ends when nobody waits for it.
func (e *Engine) place(ctx context.Context, call *flight.Call[flightKey, Outcome]) (leave func(), ok bool) {
	end := func(p *bulkhead.Place) bool { return call.EndDeserted(p) }
	p := e.loads.TryEnter(end)
	if p == nil {
		p, ok = func() (*bulkhead.Place, bool) {
			call.Rest()
			defer call.Work()
			return e.loads.Enter(ctx, call.Bypassed(), end)
		}()
		if !ok {
			return func() {}, false
		}
	}
	call.Watch(p)
	return func() {
		call.Unwatch(p) // before the place is somebody else's
		p.Leave()
	}, true
}

// overloaded refuses loads for which there is no room.
func (e *Engine) overloaded(attempts []*attempt) {
	for _, a := range attempts {
		a.Policy.Counters.Overloads.Add(1)
		a.call.Resolve(Outcome{}, &Error{
			Code: CodeOverloaded, Key: a.Key,
			Message: "too many loads run and wait: raise Options.MaxLoads where the source can take more, or call less",
		})
	}
}

// callLoader calls the loader, counts how it ends, and turns a panic into the error of its attempts: other keys of the flight
// may be in other hands. runtime.Goexit goes on, and ends the flight.
func (e *Engine) callLoader(ctx context.Context, l *Load, load LoadFunc) (start int64, took time.Duration) {
	counts := l.attempts[0].Policy.Counters
	counts.Loads.Add(1)
	before := e.failures.Last()
	// A loader may ignore the end of its time, and come back late or never: its callers have failed by then.
	settled := context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), flight.ErrTimeout) {
			for _, a := range l.attempts {
				e.loadFailed(a, flight.ErrTimeout, before)
			}
		}
	})
	start = e.Clock.Now()
	defer func() {
		l.end()
		took = time.Duration(e.Clock.Now() - start)
		counts.LoadTime.Add(int64(took))
		if p := recover(); p != nil {
			for _, a := range l.attempts {
				a.Loaded = Loaded{Err: soundPanic(&flight.PanicError{Value: p, Stack: debug.Stack()})}
			}
		}
		for i, a := range l.attempts {
			if a.Err != nil && !a.NotFound {
				continue
			}
			if err := a.refusedTags(l.decision(i).tags); err != nil {
				a.Err, a.NotFound = err, false
			}
		}
		e.logPanics(l.attempts)
		if !settled() || ctx.Err() != nil && !errors.Is(context.Cause(ctx), flight.ErrTimeout) {
			return // counted above, or nobody waited any more: the loader can hear of that before settled does
		}
		for _, a := range l.attempts {
			if a.Err != nil && !a.NotFound {
				e.loadFailed(a, a.Err, before)
			} else {
				e.failures.ForgetOwn(a.Key, a.Policy.Owner)
			}
		}
	}()
	indexes := make([]int, len(l.attempts))
	for i, a := range l.attempts {
		indexes[i], a.Err = a.index, flight.ErrGoexit // which stands unless the loader says otherwise
	}
	InLoader(func() {
		load(context.WithValue(ctx, loadKey{}, l), indexes, func(index int, g Loaded) {
			at, _ := slices.BinarySearchFunc(l.attempts, index, func(a *attempt, index int) int { return a.index - index })
			l.attempts[at].Loaded = g
		})
	})
	return start, took
}

// loadError is what the callers of a failed load get. A loader that came back because its time was up is reported as such,
// whatever its own error was.
func loadError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, flight.ErrTimeout) && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		return cause
	}
	return err
}

const (
	longestPanic = 1 << 10 // bytes of the text of a panic in the log
	longestStack = 8 << 10 // of its stack: what is cut off is who has called the cache's own code
)

// logPanics logs the first panic among the results of a loader, where one is due. Its callers get an error each, in which the stack
// is easily lost.
func (e *Engine) logPanics(attempts []*attempt) {
	for _, a := range attempts {
		if p, ok := a.Err.(*flight.PanicError); ok {
			if e.panicLog.Allow(e.Clock.Now()) {
				e.opts.Logger.Error("aside: a loader panicked; its callers get an error", "policy", a.Policy.Name, "key", a.Key,
					"panic", cut(p.Error(), longestPanic), "stack", cut(string(p.Stack), longestStack))
			}
			return
		}
	}
}

func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return text[:most] + "…"
}
