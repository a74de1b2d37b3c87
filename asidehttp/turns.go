package asidehttp

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"
)

// mostCounting is how many requests to all handlers of a cache scan keys at once. Sweeps and patterns scan Redis too, and must not wait for many
// requests that only read.
const mostCounting = 2

// mostOfATurn is how long a request scans keys when it is its turn. It is less than a listing, or a dry run by default, waits for its turn, so
// that a waiting request gets its turn in time.
const mostOfATurn = 4 * time.Second

// The errors of a listing that is not complete.
var (
	errNoTurn   = errors.New("too many listings and dry runs at once: no turn in time")
	errTurnOver = fmt.Errorf("not done within %v", mostOfATurn)
)

// turns are the turns of requests that scan keys. Of each bearer key one request at most has or waits for one of the common places, which are
// given in the order of asking. So a key that sends many requests delays only itself.
type turns struct {
	all chan struct{} // holds one for each request that goes over keys

	mu  sync.Mutex
	own map[[sha256.Size]byte]chan struct{} // one for each bearer key that has ever counted; guarded by mu
}

func newTurns() *turns {
	return &turns{all: make(chan struct{}, mostCounting), own: make(map[[sha256.Size]byte]chan struct{})}
}

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

// take waits for a bearer key's turn, until ctx ends. The caller ends the turn by end.
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
