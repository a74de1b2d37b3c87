package redisstore

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"time"
)

// Connections may have a limited life (ClientOption.ConnLifetime): some networks drop older ones, and a host name may resolve to
// another server by then. rueidis would close a connection with commands of callers in progress, and the link would be down until
// there is a new one. So rueidis gets no limit. Instead, a new session is made while the old one is in use, and replaces it without a
// wait.

// newRenewal fires when a session that begins now has nearly reached its limit; never, without a limit. The time varies, so that a
// fleet that was started at once does not reconnect at once.
func newRenewal(life time.Duration) *time.Timer {
	if life <= 0 {
		return time.NewTimer(math.MaxInt64)
	}
	return time.NewTimer(life - rand.N(life/10+1))
}

// lostOrRenewed waits until the session in use is lost, or ctx ends, and returns nil. Or it returns the session that replaces it
// as planned.
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
		next, err := l.try(ctx, l.options, purpose{first: true, beside: s})
		switch {
		case err == nil:
			return next
		case errors.Is(err, errReplaced): // calls in progress would go to the one primary, and those that follow to the other
			s.leave(l)
		}
		renewal.Reset(slowRefused) // after another failure the session in use is still sound
	}
}
