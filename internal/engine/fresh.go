package engine

import (
	"context"
	"time"

	"github.com/gatewayz/aside/internal/flight"
)

// A Strong call or a Refresh does not share a load that began before the call. If each such call led a load of its own, many calls at once
// would be as many loads. So while one such load runs, the others wait for its end, and share the next one.

// Grades of calls: a call shares loads of its own grade and of higher ones.
const (
	gradeStrong  = 1
	gradeRefresh = 2
)

// A call waits for the end of a load that it does not share for LoadTimeout/patience: a load that hangs is not waited for until its time is
// up.
const patience = 4

// joinFresh is join for a Strong call or a Refresh. A call that is not patient leads at once: it is made inside a load, which would have to
// wait for yet another load.
func (e *Engine) joinFresh(a *attempt, patient bool) (call *flight.Call[flightKey, Outcome], leader bool, ended <-chan struct{}) {
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

// awaitEnd waits for the end of a load that a does not share, for as long as a is patient. It fails if ctx ends.
func (e *Engine) awaitEnd(ctx context.Context, a *attempt, ended <-chan struct{}) error {
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
