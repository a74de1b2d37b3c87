package redisstore

import (
	"context"
	"time"
)

// keep connects, and connects anew when a session has come to its end.
func (l *link) keep(ctx context.Context) {
	defer close(l.done)
	defer l.background.Wait()
	defer l.first.end()
	listening := false
	pause := firstRetry
	for {
		s, ok := l.connect(ctx, l.options, true)
		if !ok {
			return
		}
		if !listening && !l.Tracked() && l.subscribe != nil {
			listening = true
			l.background.Go(func() {
				// Not every server takes commands on a connection that has subscribed to something.
				deaf := l.options
				deaf.DisableCache = true
				if own, ok := l.connect(ctx, deaf, false); ok {
					defer own.client.Close()
					l.subscribe(ctx, own.client)
				}
			})
		}
		began := time.Now()
		for s != nil {
			s = l.use(ctx, s)
		}
		l.at.Store(0) // so that a fleet comes together again
		// A session that was lost as soon as it was there may be lost again as soon.
		if time.Since(began) >= steady {
			pause = firstRetry
		}
		if !rest(ctx, pause) {
			return
		}
		pause = min(2*pause, slowestRetry)
	}
}

// use sends callers to a session, and after each loss waits for the server to answer again, until ctx ends or only another
// session can help. It returns the session that takes its place as planned, nil where it was lost.
func (l *link) use(ctx context.Context, s *session) (next *session) {
	inUse, over := context.WithCancel(ctx)
	l.background.Go(func() { l.keepBulk(inUse, &s.bulk) })
	if s.tracked && l.watch != nil {
		l.background.Go(func() { l.watch(inUse, s) })
	}
	l.background.Go(func() { l.clear(inUse, s) })
	l.background.Go(func() { l.examine(inUse, s) })
	renewal := newRenewal(l.options.ConnLifetime)
	defer renewal.Stop()
	defer func() {
		l.session.CompareAndSwap(s, next)
		if next == nil {
			over()
		}
		l.background.Go(func() {
			defer over()
			if next != nil {
				l.drain(ctx)
			}
			s.client.Close() // which waits for a server that hangs
		})
	}()
	for {
		l.failed.Store(0)
		select { // a failure that was still under way when the link went down
		case <-l.lost:
		default:
		}
		l.latest.Store(s)
		l.ups.Add(1) // first: who finds it down by this count knows that it has not been up in between
		l.session.Store(s)
		l.handedOver.Store(false)
		if s.broken.Load() { // since the probe
			l.trip(s, errBroken)
		} else {
			l.grace.begin()
			l.report(State{Up: true, Since: time.Now(), Silent: l.silent.Load()})
		}
		if next = l.lostOrRenewed(ctx, s, renewal); next != nil || ctx.Err() != nil {
			return next
		}
		l.mu.Lock()
		cause := l.cause
		l.mu.Unlock()
		l.report(State{Since: time.Now(), Cause: cause})
		// A client whose connection has broken makes no other one, and where the server did not tell of changes it is asked
		// anew whether it does.
		if classOf(cause) == refused || !s.tracked || s.broken.Load() {
			return nil
		}
		over := false
		ok := retry(ctx, l.down, func() error {
			err := l.probe(ctx, s.client)
			if err == nil {
				err = l.readWatermark(ctx, s.client)
			}
			if over = classOf(err) == refused || s.broken.Load(); over {
				if err != nil {
					l.down(err)
				}
				return nil
			}
			return err
		})
		if !ok || over {
			return nil
		}
	}
}

// drain waits until nobody sends anything any more by a session that another one has replaced: a caller may have taken it just before,
// and have waited for a place since.
func (l *link) drain(ctx context.Context) {
	t := time.NewTimer(l.opTimeout + time.Second)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
