package redisstore

import (
	"context"
	"time"

	"github.com/redis/rueidis"
)

// Scans and bulk removals are sent in small portions, with pauses between them. A caller waits for one portion at most. A server
// spends less than half of its time on portions, however many goroutines send them. A portion that fails or takes long does not
// count for the breaker.
const (
	portionSize = 32 // commands in one round trip
	portionTime = 2 * time.Second
	burst       = time.Millisecond // of portions without a pause
)

// portions serialize the portions that are sent to one server.
type portions struct {
	turn chan struct{} // holds one element while a portion is sent
	busy time.Duration // time that portions have taken since the last pause; guarded by turn
}

// portion sends one portion when it is its turn. After some portions it pauses for as long as they have taken. The turn ends after
// the pause: otherwise the server would work for another sender during the pause of one.
func (l *link) portion(ctx context.Context, send func(context.Context) error) error {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	limited, cancel := context.WithTimeout(ctx, portionTime)
	defer cancel()
	sent := time.Now()
	err := send(limited)
	if l.busy += time.Since(sent); l.busy < burst {
		return err
	}
	rest := l.busy
	l.busy = 0
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
	return s.each(ctx, batch{names: names, plain: build, most: portionSize, inPortions: true, bulk: true})
}

// runInPortions is run, in portions.
func (s *Store) runInPortions(ctx context.Context, calls []call) []rueidis.RedisResult {
	return s.runAs(ctx, calls, batch{most: portionSize, inPortions: true, bulk: true})
}
