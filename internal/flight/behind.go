package flight

import "time"

// A load in the background has no caller: nobody waits for its result, since each has got an older value. It is deserted from its beginning,
// and goes on for its linger time. Callers that need the new value join it as they join any other load.

// Lead leads a call of key for a load in the background. It reports false if there is a call already that callers may join, or if the group is
// closed. The leader must hand the call to Run or Forsake it, and calls neither Wait nor Leave.
func (g *Group[K, V]) Lead(key K) (call *Call[K, V], ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c, found := g.calls[key]; found && c.open() || g.closed != nil {
		return nil, false
	}
	call, ok = g.join(key)
	call.waiters--
	call.behind = true
	return call, ok
}

// Optional reports whether the load may have begun although there is a value that most callers are content with: in the background, or by
// JoinFresh.
func (c *Call[K, V]) Optional() bool {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	return c.behind || c.grade > 0
}

// LeaveBehind ends the part of a caller that has got an older value. The load goes on as if the caller still waited: callers that come later get
// its result. Without that, of a source that is slower than its callers are patient, no load would ever end. Both happen under one lock:
//
//  1. The last two callers of a load leave with an older value.
//  2. The first of them declares that the load is to go on. The second one leaves.
//  3. The first one leaves, and the load is cancelled.
func (c *Call[K, V]) LeaveBehind() {
	g := c.group
	g.mu.Lock()
	if c.run != nil && c.run.queued {
		g.mu.Unlock()
		c.Leave()
		return
	}
	defer g.mu.Unlock()
	if !c.wanted {
		c.wanted = true // and its part does not end
		return
	}
	c.waiters--
}

// Queue is Rest of a load that waits for a place. It ends the part of LeaveBehind: loads that only wait, and that nobody waits for, must not take the
// room of others in the queue. Dequeue ends it, as Work ends a Rest.
func (c *Call[K, V]) Queue() {
	g := c.group
	g.mu.Lock()
	c.run.queued = true
	for _, of := range c.run.calls {
		if !of.wanted {
			continue
		}
		of.wanted = false
		if of.waiters--; of.waiters == 0 && !of.resolved {
			c.run.waiting--
		}
	}
	g.mu.Unlock()
	c.Rest()
}

// Dequeue undoes Queue.
func (c *Call[K, V]) Dequeue() {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	c.run.queued = false
	c.run.working++
}

// Settled returns a channel that is closed when the call has its result.
func (c *Call[K, V]) Settled() <-chan struct{} { return c.done }

// Age returns how long ago the load of the call began; 0 if it has not.
func (c *Call[K, V]) Age() time.Duration {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	if c.run == nil {
		return 0
	}
	return time.Since(c.run.began)
}

// GiveUp ends a call for which no caller waits, without a result. It reports false if a caller waits: the load then has to go on.
//
//  1. A load in the background finds that it is not to load.
//  2. A caller that needs a new value joins it.
//  3. The load ends. The caller must not get an error for that.
//
// So both happen under the lock under which callers join.
func (c *Call[K, V]) GiveUp() bool {
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.waiters > 0 && !c.resolved {
		return false
	}
	if !c.resolved {
		c.settle(*new(V), ErrUnresolved)
	}
	g.forget(c)
	return true
}
