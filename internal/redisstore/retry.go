package redisstore

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// Retry calls once whenever it is woken and Redis is up, until ctx ends. once sends some of what waits to be sent. It reports
// whether there was anything to send, and whether Redis has confirmed all of that. While there is something to send, Retry calls
// once again: at once if all was confirmed, else after a pause.
func (s *Store) Retry(ctx context.Context, wake <-chan struct{}, once func(context.Context) (some, all bool)) {
	const soonest, latest, longest = 10 * time.Millisecond, time.Second, 5 * time.Second
	for pause := soonest; ; {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
		for ctx.Err() == nil {
			began := time.Now()
			some, all := apart(ctx, once)
			if !some {
				break
			}
			if all {
				pause = soonest
				continue
			}
			// A task that takes long and fails, such as a pattern with a key that the user may not use, must not keep Redis busy.
			rest := max(jittered(pause), min(4*time.Since(began), longest))
			pause = min(2*pause, latest)
			if !s.Up() { // Up costs nothing
				rest, pause = jittered(soonest), soonest
			}
			t := time.NewTimer(rest)
			select {
			case <-ctx.Done():
			case <-t.C:
			}
			t.Stop()
		}
	}
}

// apart calls once on a goroutine of its own. The program's Observer may end it: then there was something to send, and Redis has not confirmed it.
func apart(ctx context.Context, once func(context.Context) (some, all bool)) (some, all bool) {
	some = true
	var one sync.WaitGroup
	one.Go(func() { some, all = once(ctx) })
	one.Wait()
	return some, all
}

// jittered spreads a pause over half to one and a half of itself.
func jittered(pause time.Duration) time.Duration { return pause/2 + rand.N(pause) }

// sleep waits for about as long as pause, and reports false when ctx ended first. The time varies, so that a fleet that has lost
// its server at once does not reconnect at once.
func sleep(ctx context.Context, pause time.Duration) bool {
	t := time.NewTimer(jittered(pause))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// retry repeats try, with growing pauses, until it succeeds. It calls failed with each error, and reports false when ctx ended
// first.
func retry(ctx context.Context, failed func(error), try func() error) bool {
	pause := firstRetry
	for {
		err := try()
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		failed(err)
		slowest := slowestRetry
		if needsSomebody(err) {
			slowest = slowRefused
		}
		if !sleep(ctx, pause) {
			return false
		}
		pause = min(2*pause, slowest)
	}
}
