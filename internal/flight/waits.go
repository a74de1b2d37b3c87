package flight

import (
	"sync"
	"sync/atomic"
)

// The loads that wait for each other form one graph over all groups of the process, because a load of one cache may wait for a load of
// another cache. The nodes are runs. A run waits for another run from when its load has joined one of the other run's calls, until that
// call is resolved or the load has left it.
var waits sync.Mutex // guards the awaits of every run; taken only for calls that are made inside a load

// An awaited is a Call in that graph.
type awaited struct {
	by   atomic.Pointer[waiter] // the run that is to resolve it; nil until Run
	done chan struct{}          // closed when it is resolved
}

// A waiter is a run in that graph.
type waiter struct {
	awaits map[*awaited]int // how many of the load's goroutines wait for each call; guarded by waits
}

// Await notes that the load of c waits for other, until Forgo. It reports false, and notes nothing, if the load of other waits for the
// load of c, directly or through others. Neither load would ever end then. The last load to call Await finds that.
func (c *Call[K, V]) Await(other *Call[K, V]) bool {
	w := c.by.Load()
	if w == nil {
		return true // c has no load yet
	}
	waits.Lock()
	defer waits.Unlock()
	if other.leadsTo(w, make(map[*waiter]bool)) {
		return false
	}
	if w.awaits == nil {
		w.awaits = make(map[*awaited]int)
	}
	w.awaits[&other.awaited]++
	return true
}

// Forgo undoes an Await that reported true.
func (c *Call[K, V]) Forgo(other *Call[K, V]) {
	w := c.by.Load()
	if w == nil {
		return
	}
	waits.Lock()
	defer waits.Unlock()
	if w.awaits[&other.awaited]--; w.awaits[&other.awaited] <= 0 {
		delete(w.awaits, &other.awaited)
	}
}

// leadsTo reports whether a cannot be resolved before w has returned. It requires waits.
func (a *awaited) leadsTo(w *waiter, seen map[*waiter]bool) bool {
	select {
	case <-a.done:
		return false
	default:
	}
	by := a.by.Load()
	if by == nil || seen[by] {
		return false
	}
	if by == w {
		return true
	}
	seen[by] = true
	for next := range by.awaits {
		if next.leadsTo(w, seen) {
			return true
		}
	}
	return false
}
