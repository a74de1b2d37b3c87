package sampler

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/loglimit"
	"github.com/gatewayz/aside/internal/observe"
)

var (
	errDiffers   = errors.New("the loader returns a different value")
	errNotCached = errors.New("no longer cached")
	errNotServed = errors.New("redis is unavailable: cached values are served as stale")
	errClosed    = errors.New("closed")
	errUnended   = errors.New("the codec has panicked, or ended the goroutine")
)

// examine checks a sample, and counts the result. It has a place among k.loads.
func (k *Sampler) examine(s *Sample) {
	consistent, err := false, error(errUnended)
	if observer := k.engine.Observer(); observer != nil {
		var op observe.Operation
		s.Context, op = observer.Begin(s.Context, k.engine.OpOf(observe.Check, s.Request))
		defer func() {
			if err == nil && !consistent {
				err = errDiffers
			}
			op.End(observe.End{Err: err})
		}()
	}
	switch consistent, err = k.recheck(s); {
	case err != nil:
		s.counters().Unchecked.Add()
	case !consistent:
		s.counters().Inconsistent.Add(1)
		fallthrough
	default:
		s.counters().Checked.Add(1)
	}
}

// recheck compares the cached value with a fresh load, and if the two differ once more after SettleTime.
func (k *Sampler) recheck(s *Sample) (consistent bool, err error) {
	began := k.engine.Clock.Now()
	ours := true
	defer func() { // also if a codec ends the goroutine
		if ours {
			<-k.loads
		}
	}()
	out, err := k.peek(s)
	if err != nil {
		return false, err
	}
	ours = false // compare leaves it
	if err := k.compare(s, out.Value); err != errDiffers {
		return err == nil, err
	}
	// An invalidation may be on its way, and the loader may have read a replica that lags behind.
	if !k.wait(k.settle) {
		return false, errClosed
	}
	out, err = k.peek(s)
	if err == errNotCached || err == nil && out.LoadedAt > began {
		return true, nil // it was invalidated, replaced, or has expired
	}
	if err != nil {
		return false, err
	}
	if !k.enter(k.loads) {
		return false, errClosed
	}
	if err := k.compare(s, out.Value); err != errDiffers {
		return err == nil, err
	}
	now := k.engine.Clock.Now()
	wrong := Inconsistent{s.Request.Policy.Name, s.Request.Key, time.Duration(now - out.LoadedAt).Round(time.Millisecond)}
	k.found(wrong)
	if suppressed, ok := s.Request.Policy.LogInconsistent(now); ok {
		k.logger.LogAttrs(s.Context, slog.LevelWarn, "aside: inconsistent cached value: its loader returns a different value, and no invalidation was received",
			slog.String("policy", wrong.Policy), slog.String("key", wrong.Key), slog.Duration("age", wrong.Age), loglimit.Suppressed(suppressed))
	}
	return false, nil
}

// peek returns the cached value of a sample, or errNotCached.
func (k *Sampler) peek(s *Sample) (engine.Outcome, error) {
	if k.engine.Closed() {
		return engine.Outcome{}, errClosed
	}
	out, ok := k.engine.PeekAlone(context.Background(), s.Request)
	switch {
	case ok && out.Status == engine.StatusHit:
		return out, nil
	case ok || out.Status == engine.StatusFallback:
		return engine.Outcome{}, errNotServed
	}
	return engine.Outcome{}, errNotCached
}

// compare calls the loader, and compares its value with the cached one: it returns nil if they are equal, and errDiffers if not. It
// leaves its place among k.loads when the loader has returned, which may be long after the load's time was up.
func (k *Sampler) compare(s *Sample, cached any) error {
	return k.engine.LoadAlone(s.Context, s.Request, s.Load, func(value any) error {
		same, err := k.engine.Same(s.Request, cached, value, s.Equal)
		if err == nil && !same {
			err = errDiffers
		}
		return err
	}, func() { <-k.loads })
}
