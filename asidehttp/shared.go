package asidehttp

import (
	"context"
	"runtime"
	"sync"
	"weak"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp/internal/history"
)

// shared is the state that all handlers of one cache share, so that a client gets no larger allowance by using two of them. Handlers share buckets
// only if they have the same rate and burst. A bucket of a higher rate would allow too much at a handler with a lower rate.
type shared struct {
	turns *turns
	noted *noted

	warmings warmings

	mu      sync.Mutex
	buckets map[allowance]*buckets // guarded by mu
	history *history.History       // of the dashboards, nil without one; guarded by mu
}

// An allowance is the rate and the burst of a handler's options.
type allowance struct{ rate, burst float64 }

func newShared() *shared {
	return &shared{turns: newTurns(), noted: new(noted), buckets: make(map[allowance]*buckets)}
}

// bucketsOf returns the buckets of all handlers with one allowance.
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

// historyOf returns the history of a cache's counters, which begins with its first dashboard and ends with the cache. It keeps no cache alive.
func (s *shared) historyOf(c *aside.Cache) *history.History {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.history == nil {
		cache := weak.Make(c)
		s.history = history.New(func() (m aside.Metrics, ok bool) {
			c := cache.Value()
			if _, err := c.Invalidate(context.Background()); err != nil { // without keys: reports only whether the cache is usable
				return m, false
			}
			return c.Metrics(), true
		})
	}
	return s.history
}

// sharedBy finds the shared state of a cache's handlers. It keeps no cache alive.
var sharedBy = struct {
	mu      sync.Mutex
	byCache map[weak.Pointer[aside.Cache]]*shared // guarded by mu
}{byCache: make(map[weak.Pointer[aside.Cache]]*shared)}

// sharedOf returns the shared state of a cache's handlers. A nil cache has a new one each time.
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
