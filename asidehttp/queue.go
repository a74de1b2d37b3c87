package asidehttp

import (
	"container/heap"
	"container/list"
	"iter"
	"slices"
	"time"
)

const (
	mostWithin   = 256     // tags that stand for others and have room beyond the queue
	nameBytes    = 1 << 10 // for each target that the queue has room for
	leastBytes   = 1 << 20
	failedAtMost = 4 // one request in so many is for a target that has failed, while there are others
)

// A delivery is a target that waits or is being sent.
type delivery struct {
	target   Target
	asked    time.Time // its last invalidation
	due      time.Time
	failed   time.Time // the last time
	attempts int
}

// A queue holds the waiting targets. New targets are kept apart from those that have failed, so that targets which the front end refuses do not
// delay others. Each scope, the Within of its targets, has a lane of its own, and the lanes take turns: a scope may have thousands of refused
// targets.
type queue struct {
	most, mostBytes int
	bytes           int
	byTarget        map[Target]*delivery
	lanes           map[string]*lane // of each scope of which something waits
	fresh, ready    *list.List       // lanes with targets that were never tried, and that are due again, the one whose turn is next first
	failed          byDue            // not due yet, or not known to be
	turn            int
}

// A lane holds the targets of one scope that are to be sent now. Failed targets that are not due yet are in the queue's heap; the lane counts
// them.
type lane struct {
	within           string
	waiting          int
	turn             int
	fresh, ready     *list.List    // the oldest first
	atFresh, atReady *list.Element // the lane's places in the queue; nil without such targets
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

func (q *queue) full(t Target) bool {
	return len(q.byTarget) >= q.most || q.bytes+t.size() > q.mostBytes
}

// fullBeyond is full for targets that may use the additional places.
func (q *queue) fullBeyond(t Target) bool {
	return len(q.byTarget) >= q.most+mostWithin || q.bytes+t.size() > q.mostBytes+mostWithin<<10
}

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

// forget removes a target from everything but its lane or the heap.
func (q *queue) forget(d *delivery) {
	delete(q.byTarget, d.target.what())
	q.bytes -= d.target.size()
	l := q.lanes[d.target.Within]
	if l.waiting--; l.waiting == 0 {
		delete(q.lanes, l.within)
	}
}

// due is when the next target is due. The queue is not empty.
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

// take removes the next target, from the lane whose turn it is. One turn in a few is for a failed target that is due, even if there are new
// ones; while the front end fails, only in lanes that have no new ones.
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

// takeFresh removes a new target from a lane, whose next turn then comes after all others. While the front end fails, it takes the oldest and the
// newest target by turns: if the front end refuses many targets, each refusal doubles the pause, and a target behind them would wait for all.
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

// takeReady removes a failed target that is due from a lane, whose next turn then comes after all others.
func (q *queue) takeReady(l *lane) *delivery {
	d := l.ready.Remove(l.ready.Front()).(*delivery)
	l.atReady = rotate(q.ready, l.atReady, l.ready.Len() > 0)
	return d
}

// rotate moves a lane behind all others, or removes an empty one, and returns its place.
func rotate(lanes *list.List, at *list.Element, stays bool) *list.Element {
	if stays {
		lanes.MoveToBack(at)
		return at
	}
	lanes.Remove(at)
	return nil
}

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

// hurry makes all failed targets due now. The heap stays in order, since all are equal.
func (q *queue) hurry() {
	for _, d := range q.failed {
		d.due = time.Time{}
	}
}

func (q *queue) all() iter.Seq[*delivery] {
	return func(yield func(*delivery) bool) {
		for _, d := range q.byTarget {
			if !yield(d) {
				return
			}
		}
	}
}

// byDue is a heap of deliveries.
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
