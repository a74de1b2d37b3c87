package asidehttp

import (
	"container/heap"
	"container/list"
	"iter"
	"slices"
	"time"
)

const (
	mostWithin   = 256     // additional places, for tags that stand for many targets
	nameBytes    = 1 << 10 // for each target that the queue has room for
	leastBytes   = 1 << 20 // bytes that a small queue has room for
	failedAtMost = 4       // while both kinds wait, one request in so many is for a target that has failed
)

// A delivery is a target that waits or is being sent.
type delivery struct {
	target   Target
	asked    time.Time // the time of its last invalidation
	due      time.Time // the time of its next request; past for a new target
	failed   time.Time // the time of its last failure
	attempts int
}

// A queue holds the waiting targets, and chooses the next one. It separates new targets from failed ones, so that targets which the front end
// refuses do not delay others. It has a lane for each scope, which is the Within of its targets. The lanes take turns, since a scope may have
// thousands of refused targets.
type queue struct {
	most, mostBytes int
	bytes           int
	byTarget        map[Target]*delivery
	lanes           map[string]*lane // by scope, of the scopes with waiting targets
	fresh, ready    *list.List       // the lanes with new targets, and with failed targets that are due; the next turn is first
	failed          byDue            // the failed targets that awaken has not moved into their lanes
	turn            int              // counts the calls of take
}

// A lane holds the targets of one scope that may be sent now. Failed targets that are not due are in the heap of the queue.
type lane struct {
	within           string
	waiting          int           // the targets of the scope, those in the heap included
	turn             int           // counts the calls of takeFresh
	fresh, ready     *list.List    // new targets, and failed targets that are due; the oldest is first
	atFresh, atReady *list.Element // the places of the lane in fresh and ready of the queue; nil if the lane has no such targets
}

func newQueue(most int) queue {
	return queue{
		most: most, mostBytes: max(min(most, 1<<20)*nameBytes, leastBytes),
		byTarget: make(map[Target]*delivery), lanes: make(map[string]*lane), fresh: list.New(), ready: list.New(),
	}
}

func (q *queue) len() int { return len(q.byTarget) }

// find returns the delivery of a waiting target, or nil.
func (q *queue) find(t Target) *delivery { return q.byTarget[t.what()] }

// full reports whether there is no place for a target.
func (q *queue) full(t Target) bool {
	return len(q.byTarget) >= q.most || q.bytes+t.size() > q.mostBytes
}

// fullBeyond reports whether the additional places are full too.
func (q *queue) fullBeyond(t Target) bool {
	return len(q.byTarget) >= q.most+mostWithin || q.bytes+t.size() > q.mostBytes+mostWithin<<10
}

// push adds a target that does not wait yet: a new one to its lane, a failed one to the heap.
func (q *queue) push(d *delivery) {
	q.byTarget[d.target.what()] = d
	q.bytes += d.target.size()
	l := q.lanes[d.target.Within]
	if l == nil {
		l = &lane{within: d.target.Within, fresh: list.New(), ready: list.New()}
		q.lanes[l.within] = l
	}
	l.waiting++
	if d.attempts > 0 {
		heap.Push(&q.failed, d)
		return
	}
	l.fresh.PushBack(d)
	if l.atFresh == nil {
		l.atFresh = q.fresh.PushBack(l)
	}
}

// forget removes a target from the counts and tables. The caller removes it from its lane or the heap.
func (q *queue) forget(d *delivery) {
	delete(q.byTarget, d.target.what())
	q.bytes -= d.target.size()
	l := q.lanes[d.target.Within]
	if l.waiting--; l.waiting == 0 {
		delete(q.lanes, l.within)
	}
}

// due is when the next target is due: in the past if one may be sent now. The queue must not be empty.
func (q *queue) due() time.Time {
	if q.fresh.Len() > 0 || q.ready.Len() > 0 {
		return time.Time{}
	}
	return q.failed[0].due
}

// awaken moves failed targets that are due into their lanes.
func (q *queue) awaken(now time.Time) {
	for len(q.failed) > 0 && !q.failed[0].due.After(now) {
		d := heap.Pop(&q.failed).(*delivery)
		l := q.lanes[d.target.Within]
		l.ready.PushBack(d)
		if l.atReady == nil {
			l.atReady = q.ready.PushBack(l)
		}
	}
}

// take removes the next target, from the lane whose turn it is. One turn in failedAtMost is for a failed target that is due, even if new targets
// wait. While the front end fails, such a turn is only for lanes without new targets.
func (q *queue) take(now time.Time, failing bool) *delivery {
	q.awaken(now)
	q.turn++
	next := q.ready.Front()
	if q.fresh.Len() > 0 {
		if q.turn%failedAtMost != 0 {
			next = nil
		}
		for next != nil && failing && next.Value.(*lane).atFresh != nil {
			next = next.Next()
		}
	}
	var d *delivery
	if next != nil {
		d = q.takeReady(next.Value.(*lane))
	} else {
		d = q.takeFresh(q.fresh.Front().Value.(*lane), failing)
	}
	q.forget(d)
	return d
}

// takeFresh removes a new target from a lane, and puts the lane behind all others. While the front end fails, it takes the oldest and the newest
// target by turns. If the front end refuses many old targets, each refusal doubles the pause, and a new target would wait for all of them.
func (q *queue) takeFresh(l *lane, failing bool) *delivery {
	l.turn++
	place := l.fresh.Front()
	if failing && l.turn%2 == 0 {
		place = l.fresh.Back()
	}
	d := l.fresh.Remove(place).(*delivery)
	l.atFresh = rotate(q.fresh, l.atFresh, l.fresh.Len() > 0)
	return d
}

// takeReady removes a failed target that is due from a lane, and puts the lane behind all others.
func (q *queue) takeReady(l *lane) *delivery {
	d := l.ready.Remove(l.ready.Front()).(*delivery)
	l.atReady = rotate(q.ready, l.atReady, l.ready.Len() > 0)
	return d
}

// rotate puts a lane behind all others if it stays, and else removes it. It returns the place of the lane.
func rotate(lanes *list.List, at *list.Element, stays bool) *list.Element {
	if stays {
		lanes.MoveToBack(at)
		return at
	}
	lanes.Remove(at)
	return nil
}

// holdsWithin reports whether targets within a tag wait.
func (q *queue) holdsWithin(tag string) bool { return tag != "" && q.lanes[tag] != nil }

// takeWithin removes all waiting targets within a tag, and returns their number.
func (q *queue) takeWithin(tag string) (n int) {
	if !q.holdsWithin(tag) {
		return 0
	}
	l := q.lanes[tag]
	n = l.waiting
	for _, part := range []*list.List{l.fresh, l.ready} {
		for place := part.Front(); place != nil; place = place.Next() {
			q.forget(place.Value.(*delivery))
		}
	}
	if l.atFresh != nil {
		q.fresh.Remove(l.atFresh)
	}
	if l.atReady != nil {
		q.ready.Remove(l.atReady)
	}
	if l.waiting == 0 {
		return n
	}
	q.failed = slices.DeleteFunc(q.failed, func(d *delivery) bool {
		gone := d.target.Within == tag
		if gone {
			q.forget(d)
		}
		return gone
	})
	heap.Init(&q.failed)
	return n
}

// hurry makes all targets in the heap due now. The heap stays in order, since all its targets are equal then.
func (q *queue) hurry() {
	for _, d := range q.failed {
		d.due = time.Time{}
	}
}

// all iterates over the waiting targets.
func (q *queue) all() iter.Seq[*delivery] {
	return func(yield func(*delivery) bool) {
		for _, d := range q.byTarget {
			if !yield(d) {
				return
			}
		}
	}
}

// byDue is a heap of deliveries. The one that is due first is on top.
type byDue []*delivery

func (q byDue) Len() int           { return len(q) }
func (q byDue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q byDue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *byDue) Push(d any)        { *q = append(*q, d.(*delivery)) }
func (q *byDue) Pop() any {
	last := len(*q) - 1
	d := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return d
}
