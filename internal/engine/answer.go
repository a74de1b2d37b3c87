package engine

import (
	"context"
	"slices"
	"time"

	"github.com/gatewayz/aside/internal/flight"
)

// An Unanswered request is one that memory has no answer to.
type Unanswered struct{ attempt *attempt }

// Look answers one request from memory. Where it reports false, Answer goes on; where the value is to be loaded anew, Refresh does. They are
// several functions, so that a hit allocates nothing that only a load needs. LookAgeing comes first.
func (e *Engine) Look(r Request) (out Outcome, u Unanswered, ok bool) {
	a := newAttempt(r)
	out, ok = e.lookHere(a)
	a.out.old = out.old
	return out, Unanswered{a}, ok
}

// RefreshDue reports whether the request was answered by a value that is to be loaded anew: see Refresh.
func (u Unanswered) RefreshDue() bool { return u.attempt != nil && u.attempt.out.old != nil }

// Refresh loads the value of a request anew in the background.
func (e *Engine) Refresh(ctx context.Context, u Unanswered, load LoadFunc) {
	e.refreshBehind(ctx, u.attempt.alone(), load)
}

// Answer answers one request by a flight that it joins or leads.
func (e *Engine) Answer(ctx context.Context, u Unanswered, load LoadFunc) (out Outcome, err error) {
	if e.opts.Observer != nil {
		return e.answerObserved(ctx, u.attempt, load)
	}
	out, _, err = e.answer(ctx, u.attempt, load)
	return out, err
}

// answer is Answer that nobody is told of. It also returns the attempt of the last round.
func (e *Engine) answer(ctx context.Context, a *attempt, load LoadFunc) (out Outcome, last *attempt, err error) {
	if err := e.Check(ctx, a.Key); err != nil {
		return Outcome{}, a, err
	}
	done := func(_ *attempt, o Outcome, e error) { out, err = o, e }
	for left := a.alone(); len(left) > 0; {
		a = left[0]
		left = e.round(ctx, left, 0, load, nil, done)
	}
	if err == nil && !a.leader && out.Status != StatusHit && out.Status != StatusStale {
		out.Reason = ReasonSharedLoad + ": " + out.Reason
	}
	return out, a, err
}

// An answered attempt is one that needs no flight.
type answered struct {
	attempt *attempt
	out     Outcome
	err     error
}

// AnswerMany answers many requests, which share round trips and one call of the loader. It calls done for each request as soon as that is
// answered, with the request's index, one call at a time. here reports whether memory had the answer at once. The time limit of the load is the longest of limit and the policies' own.
func (e *Engine) AnswerMany(ctx context.Context, requests []Request, limit time.Duration, load LoadFunc, done func(index int, out Outcome, here bool, err error)) {
	each := func(a *attempt, out Outcome, err error) { done(a.index, out, a.here(err), err) }
	var here []answered
	var left, due []*attempt
	room := some[attempt]{left: len(requests)}
	for i, r := range requests {
		a := room.next()
		a.begin(r)
		a.index = i
		if out, ok := e.lookHere(a); ok {
			here = append(here, answered{a, out, nil})
			if a.out.old = out.old; out.old != nil {
				due = append(due, a)
			}
		} else {
			left = append(left, a)
		}
	}
	if e.opts.Observer != nil && len(left) > 0 {
		var b *observedBatch
		ctx, b = e.beginBatch(ctx, left)
		defer b.end()
		each = func(a *attempt, out Outcome, err error) {
			err = e.opts.ErrorOf(err, a.Key)
			b.note(a, out, err)
			done(a.index, out, a.here(err), err)
		}
	}
	if len(due) > 0 {
		e.refreshBehind(ctx, due, load)
	}
	for len(left)+len(here) > 0 {
		left, here = e.round(ctx, left, limit, load, here, each), nil
	}
}

// here reports whether memory had the answer at once: the attempt has joined no flight.
func (a *attempt) here(err error) bool { return err == nil && a.call == nil }

// lookHere looks into memory, while Redis is unavailable also for a stale value.
func (e *Engine) lookHere(a *attempt) (Outcome, bool) {
	if a.Bypass {
		return Outcome{}, false
	}
	out, ok := e.readNear(a)
	if !ok {
		out, ok = e.readAgeing(a, true)
	}
	if !ok {
		out, ok = e.readDegraded(a)
	}
	return out, ok
}

// round joins or leads the flights of attempts, waits for the flights, and calls done for each answered attempt. It starts with here, the
// attempts that are answered already: done may run a codec, and does so while the flights run. It returns the attempts that need another
// round: those that joined a load which turned out to be too old for them, and those that waited for the end of a load that they do not
// share. The flights' time limit is timeout or more: the longest of all keys, hits included, since a batch has one time limit.
func (e *Engine) round(ctx context.Context, attempts []*attempt, timeout time.Duration, load LoadFunc, here []answered, done func(*attempt, Outcome, error)) (again []*attempt) {
	var leading, due []*attempt
	joined := listOf(attempts)
	var busy []*attempt                          // another flight runs that they do not share
	var calls []*flight.Call[flightKey, Outcome] // of leading
	if len(attempts) == 1 {                      // not where attempts are: the flight is another goroutine
		leading, calls = attempts[0].led.attempts[:0], attempts[0].led.calls[:0]
	}
	var ends []<-chan struct{} // closed when those flights end
	waited := 0                // how many of joined have got their result
	// A codec that done runs may end this goroutine, and so may a method of the caller's context. Other callers must not wait for a flight
	// that then never runs.
	defer func() {
		for _, a := range joined[waited:] {
			if a.leader {
				a.call.Forsake(flight.ErrGoexit)
			}
			a.stopWaiting()
			a.call.Leave()
		}
	}()
	var ours map[flightKey]bool
	if len(attempts) > 1 {
		ours = make(map[flightKey]bool)
	}
	for _, a := range here {
		timeout = max(timeout, a.attempt.Policy.LoadTimeout)
	}
	for _, a := range attempts {
		timeout = max(timeout, a.Policy.LoadTimeout)
		if ours[a.flightKey()] {
			a.Replace, a.Strong = false, false // two ids with one key: the second one shares the load that the first one begins now
		}
		ended, err := e.join(ctx, a)
		switch {
		case err != nil:
			here = append(here, answered{a, Outcome{}, err})
			continue
		case ended != nil:
			busy, ends = append(busy, a), append(ends, ended)
			continue
		}
		joined = append(joined, a)
		if a.leader {
			if ours != nil {
				ours[a.flightKey()] = true
			}
			leading, calls = append(leading, a), append(calls, a.call)
			a.call.Linger(a.Policy.LoadGrace)
		}
	}
	if len(leading) > 0 {
		e.flights.Run(ctx, timeout, func(ctx context.Context) { e.leadBatch(ctx, leading, load) }, calls...)
	}
	for _, a := range here {
		done(a.attempt, a.out, a.err)
	}
	for _, a := range joined {
		out, err := e.wait(ctx, a)
		waited++
		if err == nil && a.joinedOutdated(out) {
			again = append(again, a)
			continue
		}
		if err == nil && a.tooOld(out, e.Clock.Now()) { // Redis had it: others may have it, and this caller needs a load
			next := a.again()
			next.Strong, next.waitingSince = true, a.waitingSince
			again = append(again, next)
			continue
		}
		if err == nil && a.leader && out.old != nil && e.claim(a.Key, out.old) {
			again := newAttempt(a.Request) // the flight may still use a
			again.index, again.out.old = a.index, out.old
			due = append(due, again)
		}
		done(a, out, err)
	}
	if len(due) > 0 {
		e.refreshBehind(ctx, due, load) // Redis had values that are to be loaded anew
	}
	for i, a := range busy {
		if err := e.awaitEnd(ctx, a, ends[i]); err != nil {
			done(a, Outcome{}, err)
			continue
		}
		again = append(again, a)
	}
	slices.SortFunc(again, func(a, b *attempt) int { return a.index - b.index })
	return again
}

// join joins the flight of a's key, or leads a new one. A Refresh or a Strong call does not join a flight that runs already, since that may
// have read the source before the call. Where that flight belongs to such a call too, join returns a channel that is closed when the flight
// ends: see awaitEnd.
//
// No code of the program runs once the flight is led. If that code ended the goroutine, the flight would never run.
func (e *Engine) join(ctx context.Context, a *attempt) (ended <-chan struct{}, err error) {
	l := LoadOf(ctx).running()
	a.tagEvents = e.tags.Events()
	if a.Replace || a.Strong {
		if a.call, a.leader, ended = e.joinFresh(a, l == nil); ended != nil {
			return ended, nil
		}
	} else {
		a.call, a.leader = e.flights.Join(a.flightKey())
	}
	if a.leader {
		a.caller = ctx
	}
	return nil, e.noteWaiting(l, a)
}

// joinedOutdated reports whether a has joined a load, or a read of Redis, whose value has a tag that may have been invalidated before a
// came. The tag is known only at the end: a loader names it when it has loaded, and a value in Redis when it is read.
func (a *attempt) joinedOutdated(out Outcome) bool {
	return !a.leader && out.late && (out.tagEvents != a.tagEvents.All || out.untracked)
}

// wait waits for the result of a's flight. A joined flight may be a batch whose policies have a longer LoadTimeout, so the wait is bounded by
// a's own. Where there is an older value, it ends with that when the load fails or takes too long.
func (e *Engine) wait(ctx context.Context, a *attempt) (out Outcome, err error) {
	defer a.stopWaiting()
	defer func() {
		if err != nil {
			a.noteCallerLeft(e.Clock)
		}
	}()
	since := a.waitingSince
	if since.IsZero() {
		since = time.Now()
	}
	if out, ok := e.readBeside(ctx, a); ok {
		a.call.Leave()
		return out, nil
	}
	if out, ok := e.waitSoftly(ctx, a); ok {
		return out, nil
	}
	if a.leader && a.waitingSince.IsZero() {
		out, err = a.call.Wait(ctx)
	} else {
		t := e.timers.start(a.Policy.LoadTimeout - time.Since(since))
		defer e.timers.stop(t)
		out, err = a.call.WaitFor(ctx, t.C)
	}
	if err != nil && ctx.Err() == nil {
		if old, ok := e.insteadOf(ctx, a, err); ok {
			return old, nil
		}
	}
	return out, err
}
