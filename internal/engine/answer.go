package engine

import (
	"context"
	"slices"
	"time"

	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/near"
)

// An Unanswered request is one that memory has no answer to.
type Unanswered struct{ attempt *attempt }

// Look answers one request from memory. Where it reports false, Answer goes on. They are two functions, so that a hit allocates nothing that
// only a load needs.
func (e *Engine) Look(r Request) (out Outcome, u Unanswered, ok bool) {
	a := newAttempt(r)
	out, ok = e.lookHere(a)
	return out, Unanswered{a}, ok
}

// Answer answers one request by a flight that it joins or leads.
func (e *Engine) Answer(ctx context.Context, u Unanswered, load LoadFunc) (out Outcome, err error) {
	a := u.attempt
	if err := e.Check(ctx, a.Key); err != nil {
		return Outcome{}, err
	}
	done := func(_ int, o Outcome, e error) { out, err = o, e }
	for left := []*attempt{a}; len(left) > 0; {
		left = e.round(ctx, left, load, nil, done)
	}
	if err == nil && !a.leader && out.Status != StatusHit {
		out.Reason = "shared a load in flight: " + out.Reason
	}
	return out, err
}

// An answered attempt needs no flight.
type answered struct {
	attempt *attempt
	out     Outcome
	err     error
}

// AnswerMany answers many requests, and calls done for each, with its place among them, as soon as it is answered: not at the same time.
// They share round trips and the call of the loader.
func (e *Engine) AnswerMany(ctx context.Context, requests []Request, load LoadFunc, done func(index int, out Outcome, err error)) {
	var here []answered
	var left []*attempt
	for i, r := range requests {
		a := newAttempt(r)
		a.index = i
		if out, ok := e.lookHere(a); ok {
			here = append(here, answered{a, out, nil})
		} else {
			left = append(left, a)
		}
	}
	for len(left)+len(here) > 0 {
		left, here = e.round(ctx, left, load, here, done), nil
	}
}

// lookHere looks into memory, also for a value that nobody vouches for while Redis is away.
func (e *Engine) lookHere(a *attempt) (Outcome, bool) {
	out, ok := e.readNear(a)
	if !ok {
		out, ok = e.readDegraded(a)
	}
	return out, ok
}

// round joins or leads the flights of attempts, waits for them, and tells of each that is answered: first of those that are already, since a
// codec may be run for that while the flights are under way. It returns those that must go round again, because they joined a load that
// turned out to be too old for them, or waited for the end of one that they do not share.
func (e *Engine) round(ctx context.Context, attempts []*attempt, load LoadFunc, here []answered, done func(int, Outcome, error)) (again []*attempt) {
	var led, joined, busy []*attempt
	var calls []*flight.Call[flightKey, Outcome]
	var ends []<-chan struct{} // of those that are busy
	var timeout time.Duration  // the longest one of all keys, hits included: a batch has one time limit
	waited := 0                // of those that have joined
	// A codec that is run for the answers may end the goroutine, and so may a context. Whoever waits for a flight of this round
	// must not wait for one that never runs.
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
			a.Replace, a.Strong = false, false // two ids with one key: the second shares what the first one begins now
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
			led, calls = append(led, a), append(calls, a.call)
			a.call.Linger(a.Policy.LoadGrace)
		}
	}
	if len(led) > 0 {
		e.flights.Run(ctx, timeout, func(ctx context.Context) { e.leadBatch(ctx, led, load) }, calls...)
	}
	for _, a := range here {
		done(a.attempt.index, a.out, a.err)
	}
	for _, a := range joined {
		out, err := a.wait(ctx, e.Clock)
		waited++
		if err == nil && a.tooLate(out) {
			again = append(again, a)
			continue
		}
		done(a.index, out, err)
	}
	for i, a := range busy {
		if err := e.outwait(ctx, a, ends[i]); err != nil {
			done(a.index, Outcome{}, err)
			continue
		}
		again = append(again, a)
	}
	slices.SortFunc(again, func(a, b *attempt) int { return a.index - b.index })
	return again
}

// join joins the flight of a's key, or leads it. What is under way when a Refresh or a Strong call comes may have read
// the source before: it is not joined. Where that is such a call too, join returns what is closed when it has ended: see outwait.
//
// No code of the program's runs after the flight is led: what ended the goroutine there would leave a flight that never runs.
func (e *Engine) join(ctx context.Context, a *attempt) (ended <-chan struct{}, err error) {
	l := LoadOf(ctx).underWay()
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

// tooLate reports whether a has joined a load, or a read of Redis, that turned out to have a tag which may have been invalidated
// before a came. Nobody could know: a loader names such tags when it has loaded, and what is in Redis when it is read.
func (a *attempt) tooLate(out Outcome) bool {
	return !a.leader && out.late && (out.tagEvents != a.tagEvents.All || out.untracked)
}

// wait waits for a flight. One that was joined may be a batch of policies with more time than this key's.
func (a *attempt) wait(ctx context.Context, clock *near.Clock) (out Outcome, err error) {
	defer a.stopWaiting()
	defer func() {
		if err != nil {
			a.leave(clock)
		}
	}()
	if a.leader && a.waitingSince.IsZero() {
		return a.call.Wait(ctx)
	}
	left := a.Policy.LoadTimeout
	if !a.waitingSince.IsZero() {
		left -= time.Since(a.waitingSince)
	}
	t := time.NewTimer(left)
	defer t.Stop()
	return a.call.WaitFor(ctx, t.C)
}
