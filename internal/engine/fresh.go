package engine

import (
	"context"
	"time"

	"github.com/gatewayz/aside/internal/flight"
)

// Those that share no load which began before they came: each would have a load of its own, and many of them at once as many. So
// while one such load runs, the others wait for its end, and share the next one.

// Grades of calls: one that asks for less shares what was begun for more.
const (
	gradeStrong  = 1
	gradeRefresh = 2
)

// patience is how long a call waits for the end of a load that it does not share: a share of the load's time. One that hangs
// is not waited for until its time is up.
const patience = 4

// joinFresh is join for a Strong call or a Refresh. One that is not patient leads at once: a call inside a load, which would make
// that load wait for yet another one.
func (e *Engine) joinFresh(a *attempt, patient bool) (call *flight.Call[flightKey, Outcome], led bool, ended <-chan struct{}) {
	if a.ticket == 0 {
		a.ticket = e.flights.Ticket()
	}
	grade := gradeStrong
	if a.Replace {
		grade = gradeRefresh
	}
	patient = patient && (a.waitingSince.IsZero() || a.patienceLeft() > 0)
	return e.flights.JoinFresh(a.flightKey(), a.ticket, grade, patient)
}

func (a *attempt) patienceLeft() time.Duration {
	return a.Policy.LoadTimeout/patience - time.Since(a.waitingSince)
}

// outwait waits until a load has ended that a does not share, or for as long as a's patience lasts. It fails where ctx ends.
func (e *Engine) outwait(ctx context.Context, a *attempt, ended <-chan struct{}) error {
	if a.waitingSince.IsZero() {
		a.waitingSince = time.Now()
	}
	t := time.NewTimer(a.patienceLeft())
	defer t.Stop()
	select {
	case <-ended:
	case <-t.C:
	case <-ctx.Done():
		return flight.EndOf(ctx)
	}
	return nil
}
