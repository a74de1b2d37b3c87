package aside

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
func (c *Cache) joinFresh(s *slot, patient bool) (call *flight.Call[flightKey, outcome], led bool, ended <-chan struct{}) {
	if s.ticket == 0 {
		s.ticket = c.flights.Ticket()
	}
	grade := gradeStrong
	if s.supersede {
		grade = gradeRefresh
	}
	patient = patient && (s.waitingSince.IsZero() || s.patienceLeft() > 0)
	return c.flights.JoinFresh(s.flightKey(), s.ticket, grade, patient)
}

func (s *slot) patienceLeft() time.Duration {
	return s.plan.loadTimeout/patience - time.Since(s.waitingSince)
}

// outwait waits until a load has ended that s does not share, or for as long as s's patience lasts. It fails where ctx ends.
func (c *Cache) outwait(ctx context.Context, s *slot, ended <-chan struct{}) error {
	if s.waitingSince.IsZero() {
		s.waitingSince = time.Now()
	}
	t := time.NewTimer(s.patienceLeft())
	defer t.Stop()
	select {
	case <-ended:
	case <-t.C:
	case <-ctx.Done():
		return flight.EndOf(ctx)
	}
	return nil
}
