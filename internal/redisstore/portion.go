package redisstore

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// Scans and bulk removals are sent in small portions, with pauses between them. A caller waits for one portion at most. A server
// spends less than half of its time on portions, however many goroutines send them. A portion that fails or takes long does not
// count for the breaker.
const (
	portionSize = 32 // commands in one round trip
	portionTime = 2 * time.Second
	burst       = time.Millisecond // of work without a pause
)

// portions serialize the portions that are sent to one server.
type portions struct {
	turn chan struct{} // holds one element while a portion is sent
	owed time.Duration // how much longer the server has worked on portions than rested from them; guarded by turn

	sweepSize atomic.Int32 // how many values the next portion of a sweep has; 0 before the first one
}

// portion sends one portion when it is its turn. send returns how long the server has worked on it, negative if that is not known: then it
// may have worked all the time. While replies and requests are on their way, the server rests from portions. When it has worked for longer
// than it has rested, there is a pause. The turn ends after the pause: otherwise the server would work for another sender during the
// pause of one.
func (l *link) portion(ctx context.Context, send func(context.Context) (worked time.Duration, err error)) error {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	limited, cancel := context.WithTimeout(ctx, portionTime)
	defer cancel()
	sent := time.Now()
	worked, err := send(limited)
	took := time.Since(sent)
	if worked < 0 || worked > took {
		worked = took
	}
	rest := max(0, l.owed+worked-(took-worked))
	l.owed = rest
	if rest < burst {
		return err
	}
	l.owed = 0
	if err != nil || limited.Err() != nil {
		return err // the caller pauses before it tries again, and others need not wait for that
	}
	t := time.NewTimer(rest)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	return err
}

// inPortions sends a command for each name, in portions.
func (s *Store) inPortions(ctx context.Context, names []string, build func(rueidis.Client, int) rueidis.Completed) []rueidis.RedisResult {
	return s.each(ctx, batch{content: content{names: names, plain: build}, most: portionSize, inPortions: true, bulk: true})
}

// runInPortions is run, in portions of so many calls at most. It also returns how long the servers have worked on them.
func (s *Store) runInPortions(ctx context.Context, calls []call, most int) ([]rueidis.RedisResult, time.Duration) {
	var worked atomic.Int64
	results := s.runAs(ctx, batch{content: content{calls: calls}, most: most, inPortions: true, bulk: true, worked: &worked})
	return results, time.Duration(worked.Load())
}
