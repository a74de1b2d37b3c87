package bulkhead

import "container/list"

// A Place is that of a load. Its owner reports by Deserted whether anybody waits for the load, and returns the place by Leave.
//
// A load that nobody waits for any more goes on, but a load that somebody waits for comes first. It ends the deserted load, and has the
// place when the deserted load has come back, since no more loads are to run than there are places. It takes no room in the queue
// meanwhile. While loads wait for a place, each load that is deserted ends at once.
//
// A load is ended by the function that Enter was given: it ends the load of a place if nobody waits for that load and the place has not
// been left, and reports whether it has. It is called with no lock of the bulkhead's held.
//
// A lent place is that of a load that bypassed the queue, because a load that has a place waits for it. When nobody waits for such a load,
// it ends at once. Otherwise more loads would run than there are places:
//
//  1. The callers of the other load leave, and both loads go on.
//  2. A load that somebody waits for ends the other load, and has its place.
//  3. The load without a place of its own goes on. There is one more at each such turn.
type Place struct {
	bulkhead *Bulkhead
	end      func(*Place) bool
	lent     bool

	at     *list.Element // among the deserted; guarded by the bulkhead's mu
	ending bool          // its load is chosen to be ended; guarded by the bulkhead's mu
	ended  bool          // Deserted has said that it ends; guarded by the bulkhead's mu
}

// Deserted reports that nobody waits for the load any more, or that somebody does again, in turns. To the first it returns whether the
// load is to end at once. Its caller may hold the lock under which loads are ended. So Deserted ends none itself, and none is ended while the
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
	case p.ending: // Enter has just taken it from the list, and somebody waited for it again in between
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

// Leave gives the place to the load that has waited longest. Nobody may call Deserted any more.
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

// withdraw takes back that a load is deserted or ends: its place is given back, or somebody waits for it again. The caller holds mu.
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
