package aside

import (
	"sync"
	"time"

	"github.com/gatewayz/aside/internal/flight"
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
	over := false
	defer func() {
		if !over { // it was the function that ended the goroutine
			wake(c.told.wake)
			c.background.Go(c.telling)
		}
	}()
	for closed := false; !closed; {
		select {
		case <-c.told.wake:
		case <-c.closes:
			closed = true
		}
		for i, ok := c.told.next(); ok; i, ok = c.told.next() {
			c.tellOne(i)
		}
	}
	over = true
}

// next takes out what is to be told first.
func (t *told) next() (i Invalidation, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.list) == 0 {
		t.list = nil
		return i, false
	}
	i, t.list = t.list[0], t.list[1:]
	return i, true
}

func (c *Cache) tellOne(i Invalidation) {
	defer func() {
		if p := recover(); p != nil {
			c.opts.Logger.Error("aside: Options.OnInvalidated panicked", "panic", flight.Text(p))
		}
	}()
	c.opts.OnInvalidated(i)
}
