package flight

import "slices"

// An Ender is notified of the end of a load's context, as by context.AfterFunc: once, on a goroutine of its own. It needs no context of the
// standard library, and takes no memory.
type Ender interface{ ContextEnded() }

// NotifyEnd notifies e when the context of the call's load ends, at once if it has ended. The load is under way.
func (c *Call[K, V]) NotifyEnd(e Ender) { c.loadContext().notifyEnd(e) }

// IgnoreEnd undoes NotifyEnd. It reports false if e was notified, or is about to be.
func (c *Call[K, V]) IgnoreEnd(e Ender) bool { return c.loadContext().ignoreEnd(e) }

func (c *Call[K, V]) loadContext() *loadContext {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	return c.run.ctx
}

// enders are those that are to be notified of the end of a context.
type enders struct {
	list []Ender
	few  [2]Ender // room for list
	over bool     // they were notified
}

func (c *loadContext) notifyEnd(e Ender) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.enders.over {
		go e.ContextEnded()
		return
	}
	if c.enders.list == nil {
		c.enders.list = c.enders.few[:0]
	}
	c.enders.list = append(c.enders.list, e)
}

func (c *loadContext) ignoreEnd(e Ender) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := slices.Index(c.enders.list, e)
	if at < 0 {
		return false
	}
	c.enders.list = slices.Delete(c.enders.list, at, at+1)
	return true
}

// notifyEnders is called when the context has ended.
func (c *loadContext) notifyEnders() {
	c.mu.Lock()
	list := c.enders.list
	c.enders.list, c.enders.over = nil, true
	c.mu.Unlock()
	for _, e := range list {
		go e.ContextEnded()
	}
}
