package flight

import (
	"context"
	"errors"
	"sync"
	"time"
)

// A loadContext is the context of a load. It has the values of another one, and ends with an error of its own: at its deadline, or when the
// load ends or is cancelled. It makes contexts of the standard library for those only who wait for its end, which is mostly the loader. A load
// that finds its value in Redis needs none.
type loadContext struct {
	values   context.Context
	deadline time.Time

	mu    sync.Mutex
	made  context.Context         // nil until somebody waits for the end; guarded by mu
	end   context.CancelCauseFunc // ends made; guarded by mu
	stop  context.CancelFunc      // stops its timer; guarded by mu
	cause error                   // why the load was ended other than by the timer of made; guarded by mu

	enders enders // guarded by mu
}

func (c *loadContext) Deadline() (time.Time, bool) { return c.deadline, true }

func (c *loadContext) Done() <-chan struct{} { return c.standard().Done() }

func (c *loadContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.made != nil:
		return c.made.Err()
	case c.cause == nil:
		return nil
	case errors.Is(c.cause, ErrTimeout):
		return context.DeadlineExceeded
	}
	return context.Canceled
}

func (c *loadContext) Value(key any) any {
	if _, ok := key.(*int); ok { // by such a key the standard library finds the context whose end ends a derived one, and the cause
		return c.standard().Value(key)
	}
	return c.values.Value(key)
}

// Cause is context.Cause of c.
func (c *loadContext) Cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made != nil {
		return context.Cause(c.made)
	}
	return c.cause
}

func (c *loadContext) standard() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made == nil {
		parent := context.WithoutCancel(c.values)
		c.stop = func() {}
		if c.cause == nil || errors.Is(c.cause, ErrTimeout) { // otherwise it has ended already, whatever the time is now
			parent, c.stop = context.WithDeadlineCause(parent, c.deadline, ErrTimeout)
		}
		if c.made, c.end = context.WithCancelCause(parent); c.cause != nil {
			c.end(c.cause)
			c.stop()
		}
	}
	return c.made
}

// cancel ends the context for a reason other than its deadline.
func (c *loadContext) cancel(cause error) {
	c.mu.Lock()
	if c.cause == nil {
		c.cause = cause
	}
	end, stop := c.end, c.stop
	c.mu.Unlock()
	if end != nil {
		end(cause)
		stop()
	}
	c.notifyEnders()
}

// expire ends the context at its deadline. Where the standard library's has a timer too, it waits for that: the error has to be the same.
func (c *loadContext) expire() {
	c.mu.Lock()
	made := c.made
	if made == nil && c.cause == nil {
		c.cause = ErrTimeout
	}
	c.mu.Unlock()
	if made != nil {
		<-made.Done()
	}
	c.notifyEnders()
}
