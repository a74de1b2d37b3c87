package bulkhead

import "container/list"

// A Place is the place of one load. Its owner reports by Deserted whether a caller waits for the load, and returns the place by Leave.
//
// A deserted load, for which no caller waits any more, goes on until a load with callers needs its place. That load ends the deserted one, and
// gets the place when the deserted load returns, so that never more loads run than there are places. In the meantime it takes no room in the
// queue. While loads wait for a place, each load that is deserted ends at once.
//
// The end function of Enter ends a load: it ends the load of a place if no caller waits for that load and the place has not been left, and
// reports whether it has ended it. It is called without a lock of the bulkhead.
//
// A lent place is the place of a load that bypassed the queue, because a load with a place waits for it. A deserted load with a lent place ends
// at once. Otherwise more loads would run than there are places:
//
//  1. The callers of the outer load leave, and both loads go on.
//  2. A load with callers ends the outer load, and gets its place.
//  3. The load with the lent place goes on. Each such turn adds one more.
type Place struct {
	bulkhead *Bulkhead
	end      func(*Place) bool
	lent     bool

	at     *list.Element // among the deserted; guarded by the bulkhead's mu
	ending bool          // its load is chosen to be ended; guarded by the bulkhead's mu
	ended  bool          // Deserted has said that it ends; guarded by the bulkhead's mu
}

// Deserted reports that no caller waits for the load any more, or that one does again, by turns. For the first it returns whether the load is to
// end at once. Its caller may hold the lock under which loads are ended. So Deserted does not end loads itself, and no load is ended while the
// bulkhead is locked.
func (p *Place) Deserted(yes bool) (end bool) {
	if p.lent {
		return true
	}
	b := p.bulkhead
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !yes:
		if p.at != nil {
			b.deserted.Remove(p.at)
			p.at = nil
		}
		return false
	case p.ending: // Enter has just taken it from the list, and a caller waited for it again in between
	case b.waiting.Len() > 0:
		p.ending = true
		b.ending++
	default:
		p.at = b.deserted.PushBack(p)
		return false
	}
	p.ended = true
	return true
}

// Leave gives the place to the load that has waited longest. Deserted must not be called after it.
func (p *Place) Leave() {
	if p.lent {
		return
	}
	b := p.bulkhead
	b.mu.Lock()
	defer b.mu.Unlock()
	b.withdraw(p)
	b.handOn()
}

// longestDeserted takes the load that is to be ended from the list, or returns nil if there is none. The caller holds mu.
func (b *Bulkhead) longestDeserted() *Place {
	first := b.deserted.Front()
	if first == nil {
		return nil
	}
	p := b.deserted.Remove(first).(*Place)
	p.at, p.ending = nil, true
	b.ending++
	return p
}

// withdraw undoes Deserted: the place is left, or a caller waits for the load again. The caller holds mu.
func (b *Bulkhead) withdraw(p *Place) {
	if p.at != nil {
		b.deserted.Remove(p.at)
		p.at = nil
	}
	if p.ending {
		p.ending = false
		b.ending--
	}
}
