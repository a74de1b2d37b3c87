package redisstore

import (
	"context"
	"time"
)

// keep connects, and connects again when a session has ended.
func (l *link) keep(ctx context.Context) {
	defer close(l.done)
	defer l.background.Wait()
	defer l.first.end()
	listening := false
	pause := firstRetry
	for {
		s, ok := l.connect(ctx, l.options, purpose{first: true})
		if !ok {
			return
		}
		if !listening && !l.Tracked() && l.subscribe != nil {
			listening = true
			l.background.Go(func() {
				// Not every server accepts commands on a connection with a subscription.
				opt := l.options
				opt.DisableCache = true
				if own, ok := l.connect(ctx, opt, purpose{}); ok {
					defer own.client.Close()
					l.subscribe(ctx, own.client)
				}
			})
		}
		began := time.Now()
		for s != nil {
			s = l.use(ctx, s)
		}
		l.at.Store(0) // so that all processes of a fleet choose the same address again
		// A session that was lost soon after it was made may be lost as soon again.
		if time.Since(began) >= steady {
			pause = firstRetry
		}
		if !sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, slowestRetry)
	}
}

// use sends callers to a session, and after each loss waits for the server to answer again, until ctx ends or only another session
// can help. It returns the session that replaces this one as planned, nil where it was lost.
func (l *link) use(ctx context.Context, s *session) (next *session) {
	inUse, over := context.WithCancel(ctx)
	l.background.Go(func() { l.keepBulk(inUse, s) })
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
			s.client.Close() // this waits for a server that hangs
		})
	}()
	for {
		l.failed.Store(0)
		select { // drop a failure that was still in progress when the link went down
		case <-l.lost:
		default:
		}
		l.latest.Store(s)
		l.ups.Add(1) // before session is set: a caller that finds the link down at this count knows that it was not up in between
		l.session.Store(s)
		l.handedOver.Store(false)
		if s.broken.Load() { // it has broken since the probe
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
		// A client whose connection has broken makes no other one. A server that did not track may track now, which only a new
		// session finds out.
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

// drain waits until no caller uses a session that another one has replaced. A caller may have taken the old one just before, and
// may have waited for a place since.
func (l *link) drain(ctx context.Context) {
	t := time.NewTimer(l.opTimeout + time.Second)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
