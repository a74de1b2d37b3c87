package invalidate

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/quota"
)

// An Event says what was invalidated: keys, or one of the others.
type Event struct {
	Keys     []string
	Category string
	Pattern  string
	Tags     []string // as the program has named them
	All      bool
	At       time.Time // when it was confirmed
}

// size estimates the memory that an event takes.
func (e Event) size() int {
	const header = 16 // of a string
	size := 128 + len(e.Category) + len(e.Pattern)
	for _, name := range e.Keys {
		size += header + len(name)
	}
	for _, name := range e.Tags {
		size += header + len(name)
	}
	return size
}

// A notifier calls the program's hook with events, in their order.
type notifier struct {
	hook   func(Event)
	logger *slog.Logger
	again  func(f func()) // runs f in the background
	wake   chan struct{}

	mu      sync.Mutex
	waiting []notification // guarded by mu
	size    int            // of the texts in it; guarded by mu
	calling bool           // the hook runs; guarded by mu
	sending int            // how many replays run, which may have confirmed events that they have yet to queue; guarded by mu
	told    chan struct{}  // see Notified; nil while nobody waits for it; guarded by mu

	outside quota.Shares // of callers outside of the program
}

// A notification is an event that waits, in the share of its caller until the hook is called.
type notification struct {
	Event
	caller string
}

func (n notification) use() quota.Use { return quota.Use{Entries: 1, Bytes: n.Event.size()} }

const (
	mostWaiting     = 65536
	mostWaitingSize = 128 << 20
)

// mostOutside is the part of these of all callers outside of the program together. With what they have in the journal, of which the hook
// is notified when it is confirmed, it leaves some to the program.
var mostOutside = quota.Use{Entries: mostWaiting / 4, Bytes: mostWaitingSize / 4}

// reserve reserves room for an invalidation of a caller.
func (n *notifier) reserve(caller string, names []string) (end func(), ok bool) {
	return n.outside.Reserve(mostOutside, caller, notification{Event{Keys: names}, caller}.use())
}

// notify queues the events of confirmed invalidations.
func (v *Invalidator) notify(caller string, events ...Event) {
	if v.notifier == nil {
		return
	}
	for _, e := range events {
		v.notifier.add(caller, e)
	}
}

func (n *notifier) add(caller string, e Event) {
	next := notification{e, caller}
	next.At = time.Now()
	n.mu.Lock()
	if len(n.waiting)+1 > mostWaiting || n.size+e.size() > mostWaitingSize {
		for _, w := range n.waiting {
			n.outside.Release(w.caller, w.use())
		}
		n.waiting, n.size = nil, 0
		next = notification{Event: Event{All: true, At: next.At}}
	}
	n.waiting = append(n.waiting, next)
	n.size += next.Event.size()
	n.outside.Take(next.caller, next.use())
	n.mu.Unlock()
	n.awake()
}

func (n *notifier) awake() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// run calls the hook until the cache is closed and no event waits.
func (n *notifier) run(closed <-chan struct{}) {
	over := false
	defer func() {
		if !over { // the hook has ended the goroutine
			n.awake()
			n.again(func() { n.run(closed) })
		}
	}()
	for ended := false; !ended; {
		select {
		case <-n.wake:
		case <-closed:
			ended = true
		}
		for e, ok := n.next(); ok; e, ok = n.next() {
			n.call(e)
		}
	}
	over = true
}

// next takes out the first event.
func (n *notifier) next() (e Event, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calling = len(n.waiting) > 0
	if !n.calling {
		n.waiting, n.size = nil, 0
		n.tell()
		return e, false
	}
	first := n.waiting[0]
	n.waiting[0], n.waiting = notification{}, n.waiting[1:]
	n.size -= first.Event.size()
	n.outside.Release(first.caller, first.use())
	return first.Event, true
}

// quiet reports whether the hook was called for each event so far. The lock is held.
func (n *notifier) quiet() bool { return len(n.waiting) == 0 && !n.calling && n.sending == 0 }

// tell wakes those that wait until it is quiet. The lock is held.
func (n *notifier) tell() {
	if n.told != nil && n.quiet() {
		close(n.told)
		n.told = nil
	}
}

// replay notes that a replay runs, until end is called. In between, it confirms invalidations before it queues their events.
func (v *Invalidator) replay() (end func()) {
	n := v.notifier
	if n == nil {
		return func() {}
	}
	add := func(by int) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.sending += by
		n.tell()
	}
	add(1)
	return func() { add(-1) }
}

// Notified waits until the hook has returned from each event so far, or until ctx ends: it returns ctx's error then.
func (v *Invalidator) Notified(ctx context.Context) error {
	n := v.notifier
	if n == nil {
		return nil
	}
	n.mu.Lock()
	if n.quiet() {
		n.mu.Unlock()
		return nil
	}
	if n.told == nil {
		n.told = make(chan struct{})
	}
	told := n.told
	n.mu.Unlock()
	select {
	case <-told:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *notifier) call(e Event) {
	defer func() {
		if p := recover(); p != nil {
			n.logger.LogAttrs(context.Background(), slog.LevelError, "aside: Options.OnInvalidated panicked", slog.String("error", flight.Text(p)))
		}
	}()
	n.hook(e)
}
