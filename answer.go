package aside

import (
	"context"
	"slices"
	"time"

	"github.com/gatewayz/aside/internal/flight"
)

// answer answers one request: from memory, or by a flight that it joins or leads.
func (c *Cache) answer(ctx context.Context, s *slot, load loadFunc) (out outcome, err error) {
	out, ok := c.lookHere(s)
	if ok {
		return out, nil
	}
	if err := c.reentrant(ctx, s.key); err != nil {
		return outcome{}, err
	}
	done := func(_ *slot, o outcome, e error) { out, err = o, e }
	for left := []*slot{s}; len(left) > 0; {
		left = c.round(ctx, left, load, nil, done)
	}
	if err == nil && !s.led && out.status != StatusHit {
		out.reason = "shared a load in flight: " + out.reason
	}
	return out, err
}

// An answered slot needs no flight.
type answered struct {
	slot *slot
	out  outcome
	err  error
}

// answerMany answers many requests, and tells of each as soon as it is answered. They share round trips and the call of the loader.
func (c *Cache) answerMany(ctx context.Context, slots []*slot, load loadFunc, done func(*slot, outcome, error)) {
	var here []answered
	var left []*slot
	for _, s := range slots {
		if out, ok := c.lookHere(s); ok {
			here = append(here, answered{s, out, nil})
		} else {
			left = append(left, s)
		}
	}
	for len(left)+len(here) > 0 {
		left, here = c.round(ctx, left, load, here, done), nil
	}
}

// lookHere looks into memory, also for a value that nobody vouches for while Redis is away.
func (c *Cache) lookHere(s *slot) (outcome, bool) {
	out, ok := c.readNear(s)
	if !ok {
		out, ok = c.readDegraded(s)
	}
	return out, ok
}

// round joins or leads the flights of slots, waits for them, and tells of each that is answered: first of those that are already, since a
// codec may be run for that while the flights are under way. It returns those that must go round again, because they joined a load that
// turned out to be too old for them, or waited for the end of one that they do not share.
func (c *Cache) round(ctx context.Context, slots []*slot, load loadFunc, here []answered, done func(*slot, outcome, error)) (again []*slot) {
	var led, joined, busy []*slot
	var calls []*flight.Call[flightKey, outcome]
	var ends []<-chan struct{} // of those that are busy
	var timeout time.Duration
	waited := 0 // of those that have joined
	// A codec that is run for the answers may end the goroutine, and so may a context. Whoever waits for a flight of this round
	// must not wait for one that never runs.
	defer func() {
		for _, s := range joined[waited:] {
			if s.led {
				s.call.Forsake(flight.ErrGoexit)
			}
			s.forgo()
			s.call.Leave()
		}
	}()
	var ours map[flightKey]bool
	if len(slots) > 1 {
		ours = make(map[flightKey]bool)
	}
	for _, s := range slots {
		if ours[s.flightKey()] {
			s.supersede, s.strong = false, false // two ids with one key: the second shares what the first one begins now
		}
		ended, err := c.join(ctx, s)
		switch {
		case err != nil:
			here = append(here, answered{s, outcome{}, err})
			continue
		case ended != nil:
			busy, ends = append(busy, s), append(ends, ended)
			continue
		}
		joined = append(joined, s)
		if s.led {
			if ours != nil {
				ours[s.flightKey()] = true
			}
			led, calls = append(led, s), append(calls, s.call)
			timeout = max(timeout, s.plan.loadTimeout)
			s.call.Linger(s.plan.loadGrace)
		}
	}
	if len(led) > 0 {
		c.flights.Run(ctx, timeout, func(ctx context.Context) { c.leadBatch(ctx, led, load) }, calls...)
	}
	for _, a := range here {
		done(a.slot, a.out, a.err)
	}
	for _, s := range joined {
		out, err := s.wait(ctx, c.clock)
		waited++
		switch {
		case err != nil:
			err = flightError(err, s.key)
		case s.tooLate(out):
			again = append(again, s)
			continue
		}
		done(s, out, err)
	}
	for i, s := range busy {
		if err := c.outwait(ctx, s, ends[i]); err != nil {
			done(s, outcome{}, err)
			continue
		}
		again = append(again, s)
	}
	slices.SortFunc(again, func(s, t *slot) int { return s.index - t.index })
	return again
}
