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
	size int            // of the texts in it; guarded by mu
}

const (
	mostUntold     = 65536
	mostUntoldSize = 128 << 20
)

// sizeOf estimates the memory that an invalidation takes.
func sizeOf(i Invalidation) int {
	const header = 16 // of a string
	size := 128 + len(i.Category) + len(i.Pattern)
	for _, name := range i.Keys {
		size += header + len(name)
	}
	for _, name := range i.Tags {
		size += header + len(name)
	}
	return size
}

// behind reports whether so much waits that those outside of the program have to wait too: see admit.
func (t *told) behind() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.list) > mostUntold/4 || t.size > mostUntoldSize/8
}

// tell notes that something is confirmed.
func (c *Cache) tell(list ...Invalidation) {
	if c.opts.OnInvalidated == nil {
		return
	}
	t, more := &c.told, 0
	for _, i := range list {
		more += sizeOf(i)
	}
	t.mu.Lock()
	if now := time.Now(); len(t.list)+len(list) > mostUntold || t.size+more > mostUntoldSize {
		t.list = append(t.list[:0:0], Invalidation{All: true, At: now})
		t.size = sizeOf(t.list[0])
	} else {
		for _, i := range list {
			i.At = now
			t.list = append(t.list, i)
		}
		t.size += more
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
		t.list, t.size = nil, 0
		return i, false
	}
	i, t.list = t.list[0], t.list[1:]
	t.size -= sizeOf(i)
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
