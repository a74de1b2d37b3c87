package aside

import (
	"container/list"
	"context"
	"sync"

	"github.com/gatewayz/aside/internal/flight"
)

// A bulkhead bounds how many loads run at once. Those beyond it wait in their order, up to a number; who comes then is
// refused.
//
// A load that another load waits for goes past it: were all places taken by loads that wait for others in the queue, nothing
// would ever move. So a loader that calls GetOrLoad lends its place to what it waits for.
type bulkhead struct {
	mu      sync.Mutex
	free    int       // guarded by mu
	room    int       // in the queue; guarded by mu
	waiting list.List // of chan struct{}, closed when its place is free; guarded by mu
	spared  list.List // of *spared; guarded by mu

	deserted list.List // of *held, whose load nobody waits for; guarded by mu
	ending   int       // loads that are to give back their place and have not yet; guarded by mu
}

// A held place is that of a load that callers have asked for. When nobody waits for it any more it goes on, but a load that somebody waits
// for comes first: it ends the other one, and has a place when that has come back, since no more than MaxLoads are to run. It takes no
// room in the queue meanwhile. While loads wait for a place, each that nobody waits for any more ends at once.
type held struct {
	bulkhead *bulkhead
	call     *flight.Call[flightKey, outcome]

	at     *list.Element // among the deserted; guarded by the bulkhead's mu
	ending bool          // it is, or is about to be, told to end; guarded by the bulkhead's mu
	told   bool          // it has been; guarded by the bulkhead's mu
}

// hold is for a call whose load has just entered.
func (b *bulkhead) hold(call *flight.Call[flightKey, outcome]) (leave func()) {
	h := &held{bulkhead: b, call: call}
	call.Watch(h)
	return func() {
		call.Unwatch(h) // before the place is somebody else's
		b.mu.Lock()
		defer b.mu.Unlock()
		b.withdraw(h)
		b.handOn()
	}
}

// Deserted is called with the lock of the flights held: what is ended must not be ended under the bulkhead's, see enter.
func (h *held) Deserted(yes bool) (end bool) {
	b := h.bulkhead
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !yes:
		if h.at != nil {
			b.deserted.Remove(h.at)
			h.at = nil
		}
		return false
	case h.ending: // somebody has just taken it from the list, and it was wanted again in between
	case b.waiting.Len() > 0:
		h.ending = true
		b.ending++
	default:
		h.at = b.deserted.PushBack(h)
		return false
	}
	h.told = true
	return true
}

// longestDeserted takes a load from the list that is to be ended, nil if there is none. The caller holds mu.
func (b *bulkhead) longestDeserted() *held {
	first := b.deserted.Front()
	if first == nil {
		return nil
	}
	h := b.deserted.Remove(first).(*held)
	h.at, h.ending = nil, true
	b.ending++
	return h
}

// withdraw is for a place that has come back, or whose load somebody waits for again. The caller holds mu.
func (b *bulkhead) withdraw(h *held) {
	if h.at != nil {
		b.deserted.Remove(h.at)
		h.at = nil
	}
	if h.ending {
		h.ending = false
		b.ending--
	}
}

// A placeless is in the place of held for a load that runs without a place, since another load has lent it its own. It does not go on when
// nobody waits for it. Else MaxLoads would not hold:
//
//  1. the callers of the other load leave, and both go on;
//  2. a load that somebody waits for ends the other one, and has its place;
//  3. the one without a place goes on, and there is one more at each such turn.
type placeless struct{ _ byte } // of a size, so that two have two addresses

func (*placeless) Deserted(bool) (end bool) { return true }

// A spared is a place that spare has given.
type spared struct {
	end   func() // the load that has it
	taken bool   // by a caller's load; guarded by the bulkhead's mu
}

func newBulkhead(places, queue int) *bulkhead { return &bulkhead{free: places, room: queue} }

// enterAtOnce takes a place if one is free.
func (b *bulkhead) enterAtOnce() (ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.free == 0 {
		return false
	}
	b.free--
	return true
}

// enter waits for a place until hurried is closed, then does without one, or until ctx ends. It reports false if there is not
// even room to wait. Where it has a place, its caller has to leave it, or have it held.
func (b *bulkhead) enter(ctx context.Context, hurried <-chan struct{}) (place, ok bool) {
	b.mu.Lock()
	if b.free > 0 {
		b.free--
		b.mu.Unlock()
		return true, true
	}
	select {
	case <-hurried:
		b.mu.Unlock()
		return false, true
	default:
	}
	if first := b.spared.Front(); first != nil {
		s := b.spared.Remove(first).(*spared)
		s.taken = true
		s.end()
		b.mu.Unlock()
		return true, true
	}
	h := b.longestDeserted()
	if h == nil && b.waiting.Len() >= b.room+b.ending {
		b.mu.Unlock()
		return false, false
	}
	mine := make(chan struct{})
	at := b.waiting.PushBack(mine)
	b.mu.Unlock()
	for h != nil && !h.call.EndDeserted(h) { // somebody waits for it again, or it has come back
		b.mu.Lock()
		if h.told {
			b.mu.Unlock()
			break
		}
		b.withdraw(h)
		if h = nil; !isClosed(mine) {
			h = b.longestDeserted()
		}
		refused := h == nil && !isClosed(mine) && b.waiting.Len() > b.room+b.ending
		if refused {
			b.waiting.Remove(at)
		}
		b.mu.Unlock()
		if refused {
			return false, false
		}
	}
	select {
	case <-mine:
		return true, true
	case <-hurried:
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if isClosed(mine) { // at the same moment
		return true, true
	}
	b.waiting.Remove(at)
	return false, true
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// full reports whether a load that came now would have to wait.
func (b *bulkhead) full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.free == 0
}

// spare takes a place for a load that no caller waits for, if one is free. A caller's load that finds none free later takes
// it away by calling end, and does not wait until that load has come back: for that moment one more runs.
func (b *bulkhead) spare(end func()) (leave func(), ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.free == 0 {
		return nil, false
	}
	b.free--
	mine := &spared{end: end}
	place := b.spared.PushBack(mine)
	return func() {
		b.mu.Lock()
		taken := mine.taken
		b.spared.Remove(place)
		b.mu.Unlock()
		if !taken {
			b.leave()
		}
	}, true
}

// leave is hold's for a place that is not held.
func (b *bulkhead) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.handOn()
}

// handOn gives the place to whoever has waited longest. The caller holds mu.
func (b *bulkhead) handOn() {
	if first := b.waiting.Front(); first != nil {
		close(b.waiting.Remove(first).(chan struct{}))
		return
	}
	b.free++
}
