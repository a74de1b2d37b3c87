package flight

// Bypass gives the load of the call priority over other loads. A caller inside another load uses it: that load has a place already and
// must not wait for loads that wait for places.
func (c *Call[K, V]) Bypass() {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	if c.bypass = true; c.run != nil {
		c.run.closeBypass()
	}
}

// closeBypass requires group.mu.
func (r *run[K, V]) closeBypass() {
	if !r.bypassed && r.bypass != nil {
		close(r.bypass)
	}
	r.bypassed = true
}

// Bypassed returns a channel that is closed by the first Bypass of any call of c's run. Only the load itself may use it.
func (c *Call[K, V]) Bypassed() <-chan struct{} {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	r := c.run
	if r.bypass == nil {
		if r.bypass = make(chan struct{}); r.bypassed {
			close(r.bypass)
		}
	}
	return r.bypass
}
