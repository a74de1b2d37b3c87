package asidehttp

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"
)

// mostCounting is how many requests to all handlers of a cache scan keys at once. Requests that only read must not delay cleanups and pattern
// invalidations, which scan Redis too.
const mostCounting = 2

// mostOfATurn is how long a turn lasts. A listing, and by default a dry run, waits longer than that for its turn. So a waiting request gets its
// turn in time.
const mostOfATurn = 4 * time.Second

// Why a count is not complete.
var (
	errNoTurn   = errors.New("too many listings and dry runs at once: no turn in time")
	errTurnOver = fmt.Errorf("not done within %v", mostOfATurn)
)

// turns are the turns of requests that scan keys. mostCounting requests have a turn at once, and others get theirs in the order of asking. Each
// bearer key has or waits for one turn at most. So a key that sends many requests delays only itself.
type turns struct {
	all chan struct{} // one element for each request that has a turn

	mu  sync.Mutex
	own map[[sha256.Size]byte]chan struct{} // by bearer key: one element while a request of the key has or waits for a turn; guarded by mu
}

func newTurns() *turns {
	return &turns{all: make(chan struct{}, mostCounting), own: make(map[[sha256.Size]byte]chan struct{})}
}

// of returns the channel of a bearer key.
func (t *turns) of(key [sha256.Size]byte) chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.own[key]
	if own == nil {
		own = make(chan struct{}, 1)
		t.own[key] = own
	}
	return own
}

// take waits for a bearer key's turn until ctx ends. The caller calls end after its turn.
func (t *turns) take(ctx context.Context, key [sha256.Size]byte) (end func(), err error) {
	own := t.of(key)
	select {
	case own <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case t.all <- struct{}{}:
		return func() { <-t.all; <-own }, nil
	case <-ctx.Done():
		<-own
		return nil, ctx.Err()
	}
}
