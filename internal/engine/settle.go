package engine

import (
	"context"
	"fmt"
)

// What follows is for tests of programs: package asidetest.

// Forget makes an engine in memory mode store nothing from now on, so that each call is a miss. It is called before the engine is used.
func (e *Engine) Forget() { e.forgetful = true }

// Settle waits until the engine has nothing under way, or until ctx ends: loads with the storing of their values, loads in the background, invalidations
// that Redis has not confirmed, and the program's hook for those that it has. It returns an error that says what is left. Checks of consistency,
// and the cleanup behind invalidations of tags, are not waited for.
func (e *Engine) Settle(ctx context.Context) error {
	for {
		if e.flights.Idle(ctx) != nil {
			running, queued := e.loads.Usage()
			return fmt.Errorf("loads or the storing of their values have not ended (%d loaders run, %d loads are queued)", running, queued)
		}
		e.Drain(ctx)
		if u := e.journal.Usage(); u.Unconfirmed > 0 {
			return fmt.Errorf("redis has not confirmed %d invalidations", u.Unconfirmed)
		}
		if e.Invalidator.Notified(ctx) != nil {
			return fmt.Errorf("OnInvalidated has not returned, or was not called for each invalidation yet")
		}
		if e.flights.Quiet() && e.journal.Usage().Unconfirmed == 0 { // the hook may have begun something
			return nil
		}
	}
}

// Hear waits until this process has taken notice of the changes that Redis had to notify it of when Hear was called. It does not wait for a server that
// is not in use.
func (e *Engine) Hear(ctx context.Context) error {
	if e.Store == nil {
		return nil
	}
	return e.Store.Hear(ctx)
}
