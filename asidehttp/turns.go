package asidehttp

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"
)

// mostCounting is how many requests to all handlers of a cache go over keys at once. They share what Redis has time for with the
// sweeps and the patterns that are carried out, which must not wait for everybody who looks on.
const mostCounting = 2

// mostOfATurn is how long a request goes over keys when it is its turn. It is less than a listing, or a dry run by default, waits for its turn:
// those who have the places give them back before the others have waited in vain.
const mostOfATurn = 4 * time.Second

// What a listing says that is not complete.
var (
	errNoTurn   = errors.New("others with a key list and count: it was not its turn in time")
	errTurnOver = fmt.Errorf("not done within %v", mostOfATurn)
)

// turns are whose turn it is to go over keys. A bearer key has one place at a time, so that whoever asks most holds up nobody but
// himself: of each bearer key one request at most waits for a common place, and those are given in the order of asking.
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

// take waits until it is a bearer key's turn, until ctx ends. Who has got one gives it back by end.
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
