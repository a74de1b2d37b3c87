// Package bulkhead bounds how many loads run at once.
package bulkhead

import (
	"container/list"
	"context"
	"sync"
)

// A Bulkhead has a number of places for loads. A load that finds no place free waits in a queue, which is first in, first out.
// A load that finds the queue full is refused.
//
// A load that another load waits for bypasses the queue. Otherwise all places could be taken by loads that wait for loads in the queue,
// and nothing would ever move. So a loader that calls the cache lends its place to the load that it waits for.
//
// Work in the background borrows places that are free, and is preempted.
type Bulkhead struct {
	places int

	mu       sync.Mutex
	free     int       // places; guarded by mu
	queue    int       // how many loads may wait; guarded by mu
	waiting  list.List // of chan struct{}, each closed when its load has a place; guarded by mu
	borrowed list.List // of *borrowed; guarded by mu

	deserted list.List // of *Place, whose load nobody waits for; guarded by mu
	ending   int       // loads that were cancelled and have not left their place yet; guarded by mu
}

// A borrowed place is one that Borrow has given.
type borrowed struct {
	preempt func()
	taken   bool // by a load that a caller waits for; guarded by the bulkhead's mu
}

// New makes a bulkhead in which places loads run at once, and queue loads wait.
func New(places, queue int) *Bulkhead { return &Bulkhead{places: places, free: places, queue: queue} }

// TryEnter takes a place if one is free, and returns nil otherwise. For end see Place.
func (b *Bulkhead) TryEnter(end func(*Place) bool) *Place { return b.tryEnter(0, end) }

// TryEnterBehind is TryEnter for a load that nobody waits for. It takes a place only while more than half of all places are free, so that many
// such loads at once leave places for the others.
func (b *Bulkhead) TryEnterBehind(end func(*Place) bool) *Place { return b.tryEnter(b.places/2, end) }

// tryEnter takes a place if more than spare are free.
func (b *Bulkhead) tryEnter(spare int, end func(*Place) bool) *Place {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.free <= spare {
		return nil
	}
	b.free--
	return &Place{bulkhead: b, end: end}
}

// Enter waits for a place. It stops to wait when bypass is closed, or when ctx ends: the load then has a lent place, and none of its own. Enter
// reports false if the queue is full. For end see Place.
func (b *Bulkhead) Enter(ctx context.Context, bypass <-chan struct{}, end func(*Place) bool) (p *Place, ok bool) {
	own, ok := b.enter(ctx, bypass)
	if !ok {
		return nil, false
	}
	return &Place{bulkhead: b, end: end, lent: !own}, true
}

func (b *Bulkhead) enter(ctx context.Context, bypass <-chan struct{}) (own, ok bool) {
	b.mu.Lock()
	if b.free > 0 {
		b.free--
		b.mu.Unlock()
		return true, true
	}
	select {
	case <-bypass:
		b.mu.Unlock()
		return false, true
	default:
	}
	if first := b.borrowed.Front(); first != nil {
		taken := b.borrowed.Remove(first).(*borrowed)
		taken.taken = true
		taken.preempt()
		b.mu.Unlock()
		return true, true
	}
	p := b.longestDeserted()
	if p == nil && b.waiting.Len() >= b.queue+b.ending {
		b.mu.Unlock()
		return false, false
	}
	mine := make(chan struct{})
	at := b.waiting.PushBack(mine)
	b.mu.Unlock()
	for p != nil && !p.end(p) { // a caller waits for its load again, or the place was left
		b.mu.Lock()
		if p.ended {
			b.mu.Unlock()
			break
		}
		b.withdraw(p)
		if p = nil; !isClosed(mine) {
			p = b.longestDeserted()
		}
		refused := p == nil && !isClosed(mine) && b.waiting.Len() > b.queue+b.ending
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
	case <-bypass:
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

// Usage returns how many places are taken, and how many loads wait for one.
func (b *Bulkhead) Usage() (running, queued int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.places - b.free, b.waiting.Len()
}

// Full reports whether a new load would have to wait.
func (b *Bulkhead) Full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.free == 0
}

// Borrow takes a place for a load that no caller waits for, if one is free. When a caller's load finds no place free later, it takes
// this one and calls preempt. It does not wait until the borrower returns, so for that moment one load more runs. preempt must
// return at once: the bulkhead is locked while it runs.
func (b *Bulkhead) Borrow(preempt func()) (leave func(), ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.free == 0 {
		return nil, false
	}
	b.free--
	mine := &borrowed{preempt: preempt}
	at := b.borrowed.PushBack(mine)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if !mine.taken {
			b.borrowed.Remove(at)
			b.handOn()
		}
	}, true
}

// handOn gives a place to the load that has waited longest. The caller holds mu.
func (b *Bulkhead) handOn() {
	if first := b.waiting.Front(); first != nil {
		close(b.waiting.Remove(first).(chan struct{}))
		return
	}
	b.free++
}
