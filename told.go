package aside

import (
	"sync"
	"time"

	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/quota"
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
	list []untold // guarded by mu
	size int      // of the texts in it; guarded by mu

	outside quota.Shares // of callers outside of the program
}

// An untold is what is to be told, and in whose share it is until then.
type untold struct {
	Invalidation
	caller string
}

func (u untold) use() quota.Use { return quota.Use{Entries: 1, Bytes: sizeOf(u.Invalidation)} }

const (
	mostUntold     = 65536
	mostUntoldSize = 128 << 20
)

// mostUntoldOutside is the part of these of all callers outside of the program together. With what they have in the journal, which is told
// when it is confirmed, it leaves some to the program.
var mostUntoldOutside = quota.Use{Entries: mostUntold / 4, Bytes: mostUntoldSize / 4}

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

// reserve sets room aside for what a caller is about to invalidate.
func (t *told) reserve(caller string, names []string) (end func(), ok bool) {
	return t.outside.Reserve(mostUntoldOutside, caller, untold{Invalidation{Keys: names}, caller}.use())
}

// tell notes that something is confirmed that a caller has invalidated.
func (c *Cache) tell(caller string, i Invalidation) {
	if c.opts.OnInvalidated == nil {
		return
	}
	t, next := &c.told, untold{i, caller}
	next.At = time.Now()
	t.mu.Lock()
	if len(t.list)+1 > mostUntold || t.size+sizeOf(i) > mostUntoldSize {
		for _, waits := range t.list {
			t.outside.Release(waits.caller, waits.use())
		}
		t.list, t.size = nil, 0
		next = untold{Invalidation: Invalidation{All: true, At: next.At}}
	}
	t.list = append(t.list, next)
	t.size += sizeOf(next.Invalidation)
	t.outside.Take(next.caller, next.use())
	t.mu.Unlock()
	wake(t.wake)
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
	first := t.list[0]
	t.list[0], t.list = untold{}, t.list[1:]
	t.size -= sizeOf(first.Invalidation)
	t.outside.Release(first.caller, first.use())
	return first.Invalidation, true
}

func (c *Cache) tellOne(i Invalidation) {
	defer func() {
		if p := recover(); p != nil {
			c.opts.Logger.Error("aside: Options.OnInvalidated panicked", "panic", flight.Text(p))
		}
	}()
	c.opts.OnInvalidated(i)
}
