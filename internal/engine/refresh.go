package engine

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/gatewayz/aside/internal/bulkhead"
	"github.com/gatewayz/aside/internal/causes"
	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/loglimit"
	"github.com/gatewayz/aside/internal/observe"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// How long a load in the background that was not begun, or that failed, is put off; all are jittered.
const (
	retryNoPlace   = 250 * time.Millisecond // too many loads run
	retryElsewhere = time.Second            // another process loads the value, or Redis is slow
	retryFailed    = time.Second
)

// refreshBehind loads values anew behind the backs of the callers of due, who have got the cached ones. It returns at once. A key that is being
// loaded already is left out. A loader that is such a caller does not wait for it, so it is not made inside that loader's load.
func (e *Engine) refreshBehind(ctx context.Context, due []*attempt, load LoadFunc) {
	var leading []*attempt
	var calls []*flight.Call[flightKey, Outcome]
	var timeout time.Duration
	for _, d := range due {
		a := newAttempt(d.Request)
		a.index, a.old, a.tagEvents = d.index, d.out.old, e.tags.Events()
		call, ok := e.flights.Lead(a.flightKey())
		if !ok {
			continue
		}
		a.call, a.leader = call, true
		call.Linger(a.Policy.LoadTimeout)
		timeout = max(timeout, a.Policy.LoadTimeout)
		leading, calls = append(leading, a), append(calls, call)
	}
	if len(leading) > 0 {
		e.flights.Run(outsideLoads(ctx), timeout, func(ctx context.Context) { e.refresh(ctx, leading, load) }, calls...)
	}
}

// refresh is lead for a load in the background. It never waits, neither for a place nor for another process's load:
//
//  1. place: a load that finds too few places free is put off.
//  2. read: the heads of the values are read. So Redis notifies this process of changes, and shows whether another process has replaced a value.
//  3. lease: the one process of the fleet that gets it loads.
//  4. load, share and fill, as in lead.
//
// The place comes first: a lease must not be held by a load that cannot run. A key that is not loaded here is given up, unless a caller has
// joined its flight in the meantime. Such a caller needs a new value, and its key goes along the load path from the beginning.
func (e *Engine) refresh(ctx context.Context, attempts []*attempt, load LoadFunc) {
	if e.opts.Observer != nil {
		var op observe.Operation
		ctx, op = e.opts.Observer.Begin(ctx, e.opOf(observe.Refresh, attempts[0], len(attempts)))
		defer func() { op.End(e.endOfRefresh(ctx, attempts)) }()
	}
	var joined []*attempt
	giveUp := func(a *attempt, retry time.Duration) {
		a.Policy.Counters.RefreshesSkipped.Add(1)
		e.retryIn(a.Key, a.old, retry)
		if !a.call.GiveUp() {
			again := a.restarted()
			joined = append(joined, again)
		}
	}
	defer func() {
		if len(joined) > 0 {
			e.lead(ctx, joined, load)
		}
	}()

	var pending []*attempt
	for _, a := range attempts {
		if left, err := e.failures.HeldBack(a.Key, a.Policy.Owner); err != nil {
			giveUp(a, left)
			continue
		}
		pending = append(pending, a)
	}
	if len(pending) == 0 {
		return
	}
	call := pending[0].call
	if e.stuck.tooMany(pending, e.opts.MaxLoads) != "" {
		for _, a := range pending {
			giveUp(a, retryFailed)
		}
		return
	}
	place := e.loads.TryEnterBehind(func(p *bulkhead.Place) bool { return call.EndDeserted(p) })
	if place == nil {
		for _, a := range pending {
			giveUp(a, retryNoPlace)
		}
		return
	}
	call.Watch(place)
	leave := leaveOnce(call, place)
	defer leave()

	m := e.prepare(pending)
	defer endFences(m, pending)
	changed := make(chan struct{}, 1)
	for _, a := range pending {
		e.takeFences(a, m, changed)
	}
	mine := pending
	if e.Store == nil {
		e.captureLocal(m, pending)
	} else {
		mine = e.askToRefresh(ctx, m, pending, giveUp)
	}
	defer func() { e.refreshed(ctx, mine) }() // also where the loader ends the goroutine
	e.loadAndShare(ctx, m, mine, load, func(context.Context, []*attempt) (func(), bool) { return leave, true })
}

// refreshed looks at the results of a load in the background. Like Loads, RefreshErrors counts calls of the loader.
func (e *Engine) refreshed(ctx context.Context, attempts []*attempt) {
	cause, counted := context.Cause(ctx), false
	for _, a := range attempts {
		err := cmp.Or(a.refused, a.Err) // a value that cannot be stored is no better than none: the older one lives on
		switch {
		case err == nil || a.refused == nil && a.NotFound:
		case a.refused == nil && cause != nil && !errors.Is(cause, flight.ErrTimeout): // a load with callers has taken its place, or the cache is closed
			a.Policy.Counters.RefreshesSkipped.Add(1)
			e.retryIn(a.Key, a.old, retryNoPlace)
		default:
			if !counted {
				attempts[0].Policy.Counters.RefreshErrors.Add(1)
				counted = true
			}
			e.refreshFailed(ctx, a, err)
		}
	}
}

// refreshFailed logs a load in the background that failed: no caller sees its error.
func (e *Engine) refreshFailed(ctx context.Context, a *attempt, err error) {
	if suppressed, ok := a.Policy.logs.refreshes.Allow(e.Clock.Now()); ok {
		e.opts.Logger.LogAttrs(ctx, slog.LevelWarn, "aside: value could not be loaded anew, its callers get the older one",
			slog.String("policy", a.Policy.Name), slog.String("key", a.Key), slog.String("error", cut(causes.Text(err), longestPanic)), loglimit.Suppressed(suppressed))
	}
	if a.pause == 0 {
		a.pause = e.pauseAfterFailure(a)
	}
	e.retryIn(a.Key, a.old, a.pause)
}

// logLateLoad logs a load that takes so long for its TTL that the next load in the background is put off: see near.Plan.RetryAt.
func (e *Engine) logLateLoad(ctx context.Context, a *attempt, ttl time.Duration) {
	if a.out.Value == nil || a.took <= ttl/2 || a.windows.Ahead == 0 && a.windows.Stale == 0 {
		return
	}
	if suppressed, ok := a.Policy.logs.late.Allow(e.Clock.Now()); ok {
		e.opts.Logger.LogAttrs(ctx, slog.LevelWarn, "aside: loads of a policy take longer than half of their TTL, so their values are loaded anew later than the policy says: set a longer TTL",
			slog.String("policy", a.Policy.Name), slog.String("key", a.Key), slog.Duration("took", a.took), slog.Duration("ttl", ttl), loglimit.Suppressed(suppressed))
	}
}

// A value whose load has failed is served, so there is time. The next load begins after ten times the backoff that callers would have, and so soon
// that there are some more before anybody waits.
const (
	timesBackoff = 10
	moreTries    = 3
)

func (e *Engine) pauseAfterFailure(a *attempt) time.Duration {
	if a.retryAfter > 0 {
		return a.retryAfter
	}
	left, _ := e.failures.HeldBack(a.Key, a.Policy.Owner)
	if a.refused != nil {
		left = e.opts.MaxBackoff // the next value is likely to be refused too
	}
	pause := max(retryFailed, timesBackoff*min(left, Longest/timesBackoff))
	times, now := a.old.Times(), e.Clock.Now()
	rest := times.StaleUntil - now
	if rest <= 0 {
		rest = times.DeadUntil - now
	}
	return max(min(pause, time.Duration(rest)/moreTries), time.Millisecond)
}

// askToRefresh reads the heads of values and takes leases. It returns the attempts to load here, and gives up the others.
func (e *Engine) askToRefresh(ctx context.Context, m *tags.Snapshot, attempts []*attempt, giveUp func(*attempt, time.Duration)) (mine []*attempt) {
	budget, cancel := e.detachedBudget(ctx, attempts...)
	defer cancel()
	var pending []*attempt
	for _, a := range e.readStore(budget, m, attempts, shareHit) {
		switch {
		case a.superseded:
			giveUp(a, retryElsewhere) // who asks next gets it
		case a.quarantined || a.status == StatusFallback && !e.unavailable(a):
			giveUp(a, retryElsewhere)
		default:
			pending = append(pending, a) // with Redis away it is loaded, and kept in memory
		}
	}
	if len(pending) == 0 {
		return nil
	}
	granted, held, _ := e.takeLeases(budget, m, pending)
	for _, a := range held {
		giveUp(a, retryElsewhere)
	}
	for _, a := range granted {
		if a.storable && !a.leased() || a.status == StatusFallback && !e.unavailable(a) {
			giveUp(a, retryElsewhere)
			continue
		}
		mine = append(mine, a)
	}
	return mine
}

// headAlone reports whether a's value in Redis is not read, but only compared with the one that is to be replaced.
func (a *attempt) headAlone() bool {
	return a.old != nil && wire.Nonce(a.old.Plan.Nonce) != wire.Nonce{}
}

// stillHolds reports whether Redis holds the value that a is to replace.
func (a *attempt) stillHolds(head []byte) bool {
	nonce, ok := wire.HeadNonce(head)
	return ok && nonce == wire.Nonce(a.old.Plan.Nonce)
}
