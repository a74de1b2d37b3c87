package flight

import (
	"sync"
	"sync/atomic"
)

// Who waits for whom is one graph over all groups of the process, since a load of one cache may wait for that of another. Its
// nodes are trips. A trip waits for another one from when its load has joined one of the other's calls, until that call is
// resolved or the load has left it.
var waits sync.Mutex // guards the awaits of every trip; taken only for calls that are made inside a load

// An awaited is what a Call is in that graph.
type awaited struct {
	by   atomic.Pointer[waiter] // who is to resolve it; nil until Run
	done chan struct{}          // closed when it is resolved
}

// A waiter is what a trip is in it.
type waiter struct {
	awaits map[*awaited]int // with how many of the load's goroutines wait for each; guarded by waits
}

// Await notes that the load which is to resolve c waits for other, until Forgo. Where other's load waits for c's, itself or
// through others, neither would ever end: then it reports false and notes nothing. Whichever of the loads comes last finds that.
func (c *Call[K, V]) Await(other *Call[K, V]) bool {
	w := c.by.Load()
	if w == nil {
		return true // it is not in a load
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

// Forgo undoes an Await that has reported true.
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

// leadsTo reports whether a can only be resolved once w has come back. The caller holds waits.
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
