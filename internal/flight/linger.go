package flight

import (
	"slices"
	"time"
)

// A load may go on for a while after its last caller has left. Suppose that all callers of a key wait for less time than a load takes. If
// the load were cancelled each time, it would begin again and again, and no caller would ever see its result. Callers that come
// during the linger time join the load. So there are never more loads than keys that were asked for.
//
// The linger time applies only while the load works. A load may itself wait, for a place or for another load. It then ends as soon as no
// caller waits for it. Otherwise there could be as many waiting loads as keys that were asked for.

// Linger makes the load go on for d after its last caller has left. Without it, the load is cancelled at once. The leader calls Linger
// before Run. The longest time counts among calls that run together.
func (c *Call[K, V]) Linger(d time.Duration) {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	c.linger = d
}

// Rest declares that the load only waits from now on, until Work. A resting load is cancelled when no caller waits for it. A load that
// works on several goroutines rests when all of them do. Only the load itself may call Rest.
func (c *Call[K, V]) Rest() {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	r := c.run
	if r.working--; r.working == 0 && r.waiting == 0 {
		c.group.deserted(r)
	}
}

// Work undoes a Rest. It also adds a goroutine that works for the load, which ends with a Rest.
func (c *Call[K, V]) Work() {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	c.run.working++
}

// deserted cancels a run that no caller waits for, at once or after its linger time. It requires mu.
func (g *Group[K, V]) deserted(r *run[K, V]) {
	switch {
	case !slices.ContainsFunc(r.calls, func(c *Call[K, V]) bool { return !c.resolved }):
	case r.linger <= 0 || r.working == 0:
		g.abandon(r)
	case r.lingering == nil:
		var mine *time.Timer
		mine = time.AfterFunc(r.linger, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			if r.lingering == mine { // otherwise a caller has joined since
				g.abandon(r)
			}
		})
		r.lingering = mine
		if r.notifyWatchers(true) {
			g.abandon(r)
		}
	}
}

// A Watcher is notified when a load starts to linger, and when a caller joins it again or the load is cancelled. It answers the first
// notification with whether to cancel the load at once. Deserted is called with the group's lock held.
type Watcher interface{ Deserted(yes bool) (end bool) }

// watching are those that Watch notifies. They are guarded by group.mu.
type watching struct {
	watchers []Watcher
	few      [1]Watcher // room for watchers
}

// Watch notifies w about the call's load until Unwatch. Only the load itself may call Watch.
func (c *Call[K, V]) Watch(w Watcher) {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	if c.run.watchers == nil {
		c.run.watchers = c.run.few[:0]
	}
	c.run.watchers = append(c.run.watchers, w)
	if c.run.lingering != nil && w.Deserted(true) {
		c.group.abandon(c.run)
	}
}

// Unwatch undoes a Watch.
func (c *Call[K, V]) Unwatch(w Watcher) {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	c.run.watchers = slices.DeleteFunc(c.run.watchers, func(other Watcher) bool { return other == w })
}

// EndDeserted cancels the load if it lingers and w still watches it. It reports whether it did.
func (c *Call[K, V]) EndDeserted(w Watcher) bool {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	if c.run.lingering == nil || !slices.Contains(c.run.watchers, w) {
		return false
	}
	c.group.abandon(c.run)
	return true
}

// notifyWatchers reports whether a watcher wants the load to be cancelled. It requires group.mu.
func (r *run[K, V]) notifyWatchers(deserted bool) (end bool) {
	for _, w := range r.watchers {
		end = w.Deserted(deserted) || end
	}
	return end
}

// rejoined ends the linger time. It requires group.mu.
func (r *run[K, V]) rejoined() {
	if r.lingering != nil {
		r.lingering.Stop()
		r.lingering = nil
		r.notifyWatchers(false)
	}
}

// abandon cancels a run. It requires mu.
func (g *Group[K, V]) abandon(r *run[K, V]) {
	r.rejoined()
	for _, c := range r.calls {
		if !c.resolved {
			g.forget(c) // a caller that joined a load that is being cancelled would fail for no reason of its own
		}
	}
	r.ctx.cancel(errAbandoned)
}
