package asidehttp

import (
	"runtime"
	"sync"
	"weak"

	"github.com/gatewayz/aside"
)

// shared is what all handlers of one cache have in common: a client, and those who look on, get no more for asking two of them.
type shared struct {
	turns   *turns
	buckets *buckets
}

func newShared() *shared { return &shared{turns: newTurns(), buckets: newBuckets()} }

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
