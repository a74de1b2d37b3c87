package asidehttp

import (
	"runtime"
	"sync"
	"weak"

	"github.com/gatewayz/aside"
)

// shared is what all handlers of one cache have in common: a client, and those who look on, get no more for asking two of them. What a
// client has taken counts for the handlers that allow as much: what comes back at the rate of a wide one would be more than a narrow one
// allows, and what a wide one gives would be too much for it for a long time.
type shared struct {
	turns *turns
	noted *noted

	mu      sync.Mutex
	buckets map[allowance]*buckets // guarded by mu
}

// An allowance is what the options of a handler say of its limit.
type allowance struct{ rate, burst float64 }

func newShared() *shared {
	return &shared{turns: newTurns(), noted: new(noted), buckets: make(map[allowance]*buckets)}
}

func (s *shared) bucketsOf(a allowance) *buckets {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[a]
	if b == nil {
		b = newBuckets()
		s.buckets[a] = b
	}
	return b
}

// sharedBy finds what the handlers of a cache share. It keeps no cache alive.
var sharedBy = struct {
	mu      sync.Mutex
	byCache map[weak.Pointer[aside.Cache]]*shared // guarded by mu
}{byCache: make(map[weak.Pointer[aside.Cache]]*shared)}

func sharedOf(c *aside.Cache) *shared {
	if c == nil {
		return newShared()
	}
	id := weak.Make(c)
	sharedBy.mu.Lock()
	defer sharedBy.mu.Unlock()
	s := sharedBy.byCache[id]
	if s == nil {
		s = newShared()
		sharedBy.byCache[id] = s
		runtime.AddCleanup(c, forgetShared, id)
	}
	return s
}

func forgetShared(id weak.Pointer[aside.Cache]) {
	sharedBy.mu.Lock()
	defer sharedBy.mu.Unlock()
	delete(sharedBy.byCache, id)
}
