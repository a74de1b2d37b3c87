package redisstore

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A program that has just started asks before there is a connection. It is about to be there, and what Redis holds is worth that wait:
// so while the first attempt to connect is under way, a call waits for it, until that has taken firstWait, or the time for one operation
// where that is longer. Once the attempt has failed, or taken longer, Redis is away, and nobody waits. The time for an operation alone
// would not do: when a whole fleet starts at once, a server takes longer to let all of them in, and each process would load for itself.

// firstWait is how long calls wait for a first attempt to connect, from its beginning on.
const firstWait = time.Second

// A first is the first attempt to connect to something. It is over when there is a connection, or the attempt has failed. A nil one
// is over.
type first struct {
	once  sync.Once
	over  chan struct{}
	until time.Time // nobody waits any longer
}

func newFirst(opTimeout time.Duration) *first {
	return &first{over: make(chan struct{}), until: time.Now().Add(max(firstWait, opTimeout))}
}

func (f *first) end() {
	if f != nil {
		f.once.Do(func() { close(f.over) })
	}
}

func (f *first) ended() bool {
	if f == nil {
		return true
	}
	select {
	case <-f.over:
		return true
	default:
		return false
	}
}

// firsts are those of a topology.
type firsts struct {
	found *first      // which servers there are
	over  atomic.Bool // all first attempts
}

// Connecting reports whether the first connections are still being made.
func (s *Store) Connecting() bool {
	if s.firsts.over.Load() {
		return false
	}
	if !s.firsts.found.ended() {
		return true
	}
	for _, l := range s.table.Load().nodes {
		if !l.first.ended() && !l.idle() {
			return true
		}
	}
	s.firsts.over.Store(true)
	return false
}

// AwaitFirst waits while the first connections are being made to the servers of keys, or to all where none is given, until the
// context ends or over is closed.
func (s *Store) AwaitFirst(ctx context.Context, over <-chan struct{}, keys ...string) {
	await := func(f *first) bool {
		if f.ended() {
			return true
		}
		t := time.NewTimer(time.Until(f.until))
		defer t.Stop()
		select {
		case <-f.over:
			return true
		case <-t.C:
		case <-ctx.Done():
		case <-over:
		}
		return false
	}
	if !s.Connecting() || !await(s.firsts.found) {
		return
	}
	t := s.table.Load()
	links := t.nodes
	if len(keys) > 0 {
		links = nil
		for _, key := range keys {
			links = append(links, t.of(s.namespace.name(key)))
		}
	}
	for _, l := range links {
		if l != nil && !l.idle() && !await(l.first) {
			return
		}
	}
}
