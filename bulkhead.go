package aside

import (
	"container/list"
	"context"
	"sync"
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
}

// A spared is a place that spare has given.
type spared struct {
	end   func() // the load that has it
	taken bool   // by a caller's load; guarded by the bulkhead's mu
}

func newBulkhead(places, queue int) *bulkhead { return &bulkhead{free: places, room: queue} }

// enterAtOnce takes a place if one is free.
func (b *bulkhead) enterAtOnce() (leave func(), ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.free == 0 {
		return nil, false
	}
	b.free--
	return b.leave, true
}

// enter waits for a place until hurried is closed, then does without one, or until ctx ends. It reports false if there is not
// even room to wait. Where ctx has ended there is nothing to leave but leave may be called all the same.
func (b *bulkhead) enter(ctx context.Context, hurried <-chan struct{}) (leave func(), ok bool) {
	b.mu.Lock()
	if b.free > 0 {
		b.free--
		b.mu.Unlock()
		return b.leave, true
	}
	select {
	case <-hurried:
		b.mu.Unlock()
		return func() {}, true
	default:
	}
	if first := b.spared.Front(); first != nil {
		s := b.spared.Remove(first).(*spared)
		s.taken = true
		s.end()
		b.mu.Unlock()
		return b.leave, true
	}
	if b.waiting.Len() >= b.room {
		b.mu.Unlock()
		return nil, false
	}
	mine := make(chan struct{})
	place := b.waiting.PushBack(mine)
	b.mu.Unlock()
	select {
	case <-mine:
		return b.leave, true
	case <-hurried:
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-mine: // at the same moment
		return b.leave, true
	default:
		b.waiting.Remove(place)
		return func() {}, true
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

// leave hands the place to whoever has waited longest.
func (b *bulkhead) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if first := b.waiting.Front(); first != nil {
		close(b.waiting.Remove(first).(chan struct{}))
		return
	}
	b.free++
}
