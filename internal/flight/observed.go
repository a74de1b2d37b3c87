package flight

import "context"

// LoadOn notes the context that a load of the call runs on, for those that have joined the call: see Loading.
func (c *Call[K, V]) LoadOn(ctx context.Context) {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	c.loadBy = ctx
}

// Loading returns the context of LoadOn, nil without one.
func (c *Call[K, V]) Loading() context.Context {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	return c.loadBy
}

// Callers is how many callers wait for the call, or have got its result.
func (c *Call[K, V]) Callers() int {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	if c.wanted { // the part of a caller that has left: see LeaveBehind
		return c.waiters - 1
	}
	return c.waiters
}
