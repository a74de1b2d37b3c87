package aside

import (
	"sync"
	"time"
)

// An Invalidation tells Options.OnInvalidated what was invalidated: keys, or one of the others.
type Invalidation struct {
	Keys     []string  // as Key.String gives them
	Category string    // that was invalidated as a whole
	Pattern  string    // as Pattern.String gives it
	Tags     []string  // as they were given to InvalidateTags
	All      bool      // everything
	At       time.Time // when it was confirmed
}

// told hands invalidations to Options.OnInvalidated.
type told struct {
	wake chan struct{}
	mu   sync.Mutex
	list []Invalidation // guarded by mu
}

const mostUntold = 65536

// tell notes that something is confirmed.
func (c *Cache) tell(list ...Invalidation) {
	if c.opts.OnInvalidated == nil {
		return
	}
	t := &c.told
	t.mu.Lock()
	if now := time.Now(); len(t.list)+len(list) > mostUntold {
		t.list = append(t.list[:0:0], Invalidation{All: true, At: now})
	} else {
		for _, i := range list {
			i.At = now
			t.list = append(t.list, i)
		}
	}
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// telling tells of what is confirmed until the cache is closed and everything is told.
func (c *Cache) telling() {
	for closed := false; !closed; {
		select {
		case <-c.told.wake:
		case <-c.closes:
			closed = true
		}
		c.told.mu.Lock()
		list := c.told.list
		c.told.list = nil
		c.told.mu.Unlock()
		for _, i := range list {
			c.tellOne(i)
		}
	}
}

func (c *Cache) tellOne(i Invalidation) {
	defer func() {
		if p := recover(); p != nil {
			c.opts.Logger.Error("aside: Options.OnInvalidated panicked", "panic", p)
		}
	}()
	c.opts.OnInvalidated(i)
}
