package redisstore

import (
	"context"
	"math"
	"math/rand/v2"
	"time"
)

// Connections may have a limited life (ClientOption.ConnLifetime): some networks drop older ones, and a name may stand for another
// server by then. rueidis would close them under the commands of callers, and the link would be down until there is another. So
// rueidis is told of no limit: another session is made while the one before is in use, takes its place, and nobody waits.

// newRenewal fires when a session that begins now has lived for nearly as long as it may: never, without a limit. It varies, so
// that a fleet that was started together does not connect together.
func newRenewal(life time.Duration) *time.Timer {
	if life <= 0 {
		return time.NewTimer(math.MaxInt64)
	}
	return time.NewTimer(life - rand.N(life/10+1))
}

// lostOrRenewed waits until the session in use is lost, or ctx ends, and returns nil; or until there is another one to take its
// place as planned.
func (l *link) lostOrRenewed(ctx context.Context, s *session, renewal *time.Timer) *session {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.lost:
			return nil
		case <-s.silence:
			l.report(State{Up: true, Silent: l.silent.Load()})
			continue
		case <-renewal.C:
		}
		if next, err := l.try(ctx, l.options, true); err == nil {
			return next
		}
		renewal.Reset(slowRefused) // the one in use is as good as it was
	}
}
