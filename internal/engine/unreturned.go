package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/stats"
)

// A loader may ignore the end of its context, and return late or never. Its callers have had their error at LoadTimeout. Its place in the bulkhead is
// given back at that time too: otherwise a policy whose source hangs would take the places of all other policies. So more loaders than MaxLoads may
// be running. A key or a policy with too many of them is not loaded until some have returned.
const (
	mostUnreturnedOfKey = 2
	unreturnedShare     = 4 // of MaxLoads, for each policy
)

// unreturned counts the loaders that have not returned at their LoadTimeout.
type unreturned struct {
	mu       sync.Mutex
	byKey    map[flightKey]int // guarded by mu
	byPolicy map[*Policy]int   // calls of a loader; guarded by mu
}

// add counts one call of a loader, or with -1 its return.
func (u *unreturned) add(attempts []*attempt, n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.byKey == nil {
		u.byKey, u.byPolicy = make(map[flightKey]int), make(map[*Policy]int)
	}
	policy := attempts[0].Policy
	policy.Counters.Unreturned.Add(int64(n))
	if u.byPolicy[policy] += n; u.byPolicy[policy] == 0 {
		delete(u.byPolicy, policy)
	}
	for _, a := range attempts {
		key := flightKey{key: a.Key, policy: a.Policy}
		if u.byKey[key] += n; u.byKey[key] == 0 {
			delete(u.byKey, key)
		}
	}
}

// tooMany says why a loader is not called: too many have not returned. It is empty where that is not so.
func (u *unreturned) tooMany(attempts []*attempt, maxLoads int) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	policy := attempts[0].Policy
	if n := u.byPolicy[policy]; n >= max(1, maxLoads/unreturnedShare) {
		return fmt.Sprintf("%d loaders of the policy %q have not returned after their LoadTimeout: let them heed the end of their context", n, policy.Name)
	}
	for _, a := range attempts {
		if n := u.byKey[flightKey{key: a.Key, policy: a.Policy}]; n >= mostUnreturnedOfKey {
			return fmt.Sprintf("%d loaders of this key have not returned after their LoadTimeout: let them heed the end of their context", n)
		}
	}
	return ""
}

// A lateReturn counts one call of a loader among the unreturned, from the end of its time until it returns. Both may come at once.
type lateReturn struct {
	engine   *Engine
	attempts []*attempt
	ctx      context.Context // of the load
	before   uint64          // the number of the last failure when the load began
	leave    func()          // leaves the load's place
	load     *Load
	start    int64 // when the loader was called

	mu      sync.Mutex
	over    bool // the loader has returned; guarded by mu
	counted bool // guarded by mu
}

// ContextEnded fails the load, and leaves its place, if its time is up.
func (r *lateReturn) ContextEnded() {
	if !errors.Is(context.Cause(r.ctx), flight.ErrTimeout) {
		return
	}
	for _, a := range r.attempts {
		r.engine.loadFailed(a, flight.ErrTimeout, r.before, 0)
	}
	if r.timeIsUp() {
		r.leave()
		r.engine.countEnd(r.load, r.start, end{stats.EndedTimeout, r.attempts[0], len(r.attempts), flight.ErrTimeout})
	}
}

// timeIsUp reports whether the loader still runs.
func (r *lateReturn) timeIsUp() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return false
	}
	r.counted = true
	r.engine.stuck.add(r.attempts, 1)
	return true
}

func (r *lateReturn) returned() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over = true; r.counted {
		r.engine.stuck.add(r.attempts, -1)
	}
}
