package redisstore

import (
	"context"
	"time"

	"github.com/redis/rueidis"
)

// What goes over many keys is sent in small portions, with pauses between them, and on its own account: callers wait for one
// portion at most, a server is busy with it for less than half of its time, however many go over keys at once, and a portion
// that fails or takes long says nothing to the breaker.
const (
	portionSize = 32 // commands in one round trip
	portionTime = 2 * time.Second
	burst       = time.Millisecond // of portions without a pause between them
)

// portions takes the turns of those who send portions to one server.
type portions struct {
	turn chan struct{} // holds one, of whom sends a portion
	busy time.Duration // that portions have taken since the last rest; guarded by turn
}

// portion sends one portion when it is its turn, and rests after some of them for as long as they have taken. The turn is given
// back after the rest: else many would have the server work while one of them rests.
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
		return err // who repeats it pauses before, and others need not wait for that
	}
	t := time.NewTimer(rest)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	return err
}

// slowly sends a command for each name in portions.
func (s *Store) inPortions(ctx context.Context, names []string, build func(rueidis.Client, int) rueidis.Completed) []rueidis.RedisResult {
	return s.each(ctx, batch{names: names, plain: build, most: portionSize, inPortions: true, bulk: true})
}

// runSlowly is run, in portions.
func (s *Store) runInPortions(ctx context.Context, calls []call) []rueidis.RedisResult {
	return s.runAs(ctx, calls, batch{most: portionSize, inPortions: true, bulk: true})
}
