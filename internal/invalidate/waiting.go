package invalidate

import (
	"context"
	"log/slog"
	"time"
)

// How long an invalidation has waited for Redis when that is logged, and how long until it is logged again.
const (
	waitLogged = 10 * time.Second
	waitPause  = time.Minute
)

// logWaiting logs that invalidations wait for Redis, until ctx ends: other processes may serve older values, and if this process ends now, the
// invalidations are lost.
func (v *Invalidator) logWaiting(ctx context.Context) {
	t := time.NewTimer(waitLogged)
	defer t.Stop()
	var logged time.Time // zero if the invalidations that wait were not logged yet
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		next, u := waitLogged, v.o.Journal.Usage()
		switch {
		case u.Unconfirmed == 0:
			logged = time.Time{}
		case u.Oldest < waitLogged:
			next = waitLogged - u.Oldest
		case logged.IsZero() || time.Since(logged) >= waitPause:
			v.o.Logger.LogAttrs(ctx, slog.LevelWarn, "aside: invalidations wait for redis", slog.Duration("oldest", u.Oldest), slog.Int("count", u.Unconfirmed))
			logged = time.Now()
		}
		t.Reset(next)
	}
}
