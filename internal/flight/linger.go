package flight

import (
	"slices"
	"time"
)

// A load that nobody waits for any more may go on for a while: callers that wait for less time than a load takes would otherwise have
// it begun and cancelled again and again, and never see its result. Those that come meanwhile join it, so there are never more loads
// than there were keys asked for.
//
// That is worth it only while the load does something. Where it waits itself, for a place or for somebody else's load, it ends as soon
// as nobody waits for it, or there would be as many that wait as there were keys asked for.

// Linger has the load go on for d after its last caller has left, instead of being cancelled at once. It is for who leads the call,
// before Run. Of calls that are run together, the longest time counts.
func (c *Call[K, V]) Linger(d time.Duration) {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	c.linger = d
}

// Rest tells that the load only waits from now on, until Work: it is cancelled when nobody waits for it. A load that works on
// several goroutines rests when all of them do. It is for the load itself.
func (c *Call[K, V]) Rest() {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	t := c.trip
	if t.working--; t.working == 0 && t.wanted == 0 {
		c.group.deserted(t)
	}
}

// Work undoes a Rest, or tells of one more goroutine that works for the load, which ends with a Rest.
func (c *Call[K, V]) Work() {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	c.trip.working++
}

// deserted cancels what is left of a flight that nobody waits for, now or in a while. The caller holds mu.
func (g *Group[K, V]) deserted(t *trip[K, V]) {
	switch {
	case !slices.ContainsFunc(t.calls, func(c *Call[K, V]) bool { return !c.resolved }):
	case t.linger <= 0 || t.working == 0:
		g.abandon(t)
	case t.lingering == nil:
		var mine *time.Timer
		mine = time.AfterFunc(t.linger, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			if t.lingering == mine { // else somebody has come since
				g.abandon(t)
			}
		})
		t.lingering = mine
		if t.tell(true) {
			g.abandon(t)
		}
	}
}

// A Watcher hears when nobody waits for a load any more that goes on, and when somebody does again or the load is cancelled. What it
// returns to the first is whether the load is to be cancelled at once. It is called with the group's lock held.
type Watcher interface{ Deserted(yes bool) (end bool) }

// Watch has w hear of the call's load until Unwatch. It is for the load itself.
func (c *Call[K, V]) Watch(w Watcher) {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	c.trip.watchers = append(c.trip.watchers, w)
	if c.trip.lingering != nil && w.Deserted(true) {
		c.group.abandon(c.trip)
	}
}

// Unwatch undoes a Watch.
func (c *Call[K, V]) Unwatch(w Watcher) {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	c.trip.watchers = slices.DeleteFunc(c.trip.watchers, func(other Watcher) bool { return other == w })
}

// EndDeserted cancels the load if nobody waits for it and w watches it still, and reports whether it has.
func (c *Call[K, V]) EndDeserted(w Watcher) bool {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	if c.trip.lingering == nil || !slices.Contains(c.trip.watchers, w) {
		return false
	}
	c.group.abandon(c.trip)
	return true
}

// tell reports whether a watcher wants the load to be cancelled. The caller holds mu.
func (t *trip[K, V]) tell(deserted bool) (end bool) {
	for _, w := range t.watchers {
		end = w.Deserted(deserted) || end
	}
	return end
}

// revisited notes that somebody waits for the flight again. The caller holds mu.
func (t *trip[K, V]) revisited() {
	if t.lingering != nil {
		t.lingering.Stop()
		t.lingering = nil
		t.tell(false)
	}
}

// abandon cancels what is left of a flight. The caller holds mu.
func (g *Group[K, V]) abandon(t *trip[K, V]) {
	t.revisited()
	for _, c := range t.calls {
		if !c.resolved {
			g.drop(c) // joining a load that is being cancelled would fail a caller who has done nothing wrong
		}
	}
	t.cancel(errAbandoned)
}
