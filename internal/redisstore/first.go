package redisstore

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A program that has just started calls before there is a connection. The connection will soon be made, and the values in Redis are
// worth that wait. So a call waits while the first attempt to connect is in progress, until the attempt has made no progress for
// firstWait, or for the limit of one operation where that is longer. Once the attempt has failed, or makes no progress, Redis is
// unavailable, and no call waits. The limit of an operation alone would not do: when a whole fleet starts at once, a server takes
// longer to accept all of it, and each process would load for itself.

const (
	firstWait  = time.Second // how long calls wait for a first attempt to connect, since its start or last progress
	firstSteps = 3           // calls wait no longer than so many times firstWait
)

// A first is the first attempt to connect to something. It is over when there is a connection, or the attempt has failed. A nil
// first is over.
type first struct {
	once   sync.Once
	over   chan struct{}
	wait   time.Duration
	latest time.Time
	until  atomic.Pointer[time.Time] // when waiting calls give up
}

func newFirst(opTimeout time.Duration) *first {
	wait := max(firstWait, opTimeout)
	f := &first{over: make(chan struct{}), wait: wait, latest: time.Now().Add(max(firstSteps*firstWait, wait))}
	f.step()
	return f
}

// step notes that the attempt has made progress.
func (f *first) step() {
	if f == nil {
		return
	}
	until := time.Now().Add(f.wait)
	if until.After(f.latest) {
		until = f.latest
	}
	f.until.Store(&until)
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

// firsts are the first attempts of a topology.
type firsts struct {
	found *first      // to find out which servers there are
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
		if !l.first.ended() && !l.hasNoSlots() {
			return true
		}
	}
	s.firsts.over.Store(true)
	return false
}

// AwaitFirst waits while the first connections are being made to the servers of keys, or without keys to all servers, until ctx
// ends or over is closed.
func (s *Store) AwaitFirst(ctx context.Context, over <-chan struct{}, keys ...string) {
	await := func(f *first) bool {
		for !f.ended() {
			left := time.Until(*f.until.Load())
			if left <= 0 {
				return false
			}
			t := time.NewTimer(left)
			select {
			case <-f.over:
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return false
			case <-over:
				t.Stop()
				return false
			}
			t.Stop()
		}
		return true
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
		if l != nil && !l.hasNoSlots() && !await(l.first) {
			return
		}
	}
}
