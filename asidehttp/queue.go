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

// A queue holds the targets that wait. Those that were never tried are apart from those that have failed: a front end that refuses
// some is not to be late for the others.
type queue struct {
	most, mostBytes int
	bytes           int
	byTarget        map[Target]*delivery
	within          map[string]int // how many targets wait within each tag
	fresh           *list.List     // never tried, the oldest first
	failed          byDue
	turn            int
}

func newQueue(most int) queue {
	return queue{
		most: most, mostBytes: max(min(most, 1<<20)*nameBytes, leastBytes),
		byTarget: make(map[Target]*delivery), within: make(map[string]int), fresh: list.New(),
	}
}

// what is the target by which the front end knows it.
func (t Target) what() Target { return Target{Tag: t.Tag, Path: t.Path} }

func (t Target) size() int { return len(t.Tag) + len(t.Path) + len(t.Within) }

func (q *queue) len() int { return len(q.byTarget) }

// find returns the target that waits, or nil.
func (q *queue) find(t Target) *delivery { return q.byTarget[t.what()] }

func (q *queue) full(t Target) bool {
	return len(q.byTarget) >= q.most || q.bytes+t.size() > q.mostBytes
}

// fullBeyond is full for what may use the places beyond.
func (q *queue) fullBeyond(t Target) bool {
	return len(q.byTarget) >= q.most+mostWithin || q.bytes+t.size() > q.mostBytes+mostWithin<<10
}

func (q *queue) push(d *delivery) {
	q.byTarget[d.target.what()] = d
	q.bytes += d.target.size()
	if d.target.Within != "" {
		q.within[d.target.Within]++
	}
	if d.attempts == 0 {
		d.place = q.fresh.PushBack(d)
		return
	}
	d.place = nil
	heap.Push(&q.failed, d)
}

// forget takes a target out of all but its place.
func (q *queue) forget(d *delivery) {
	delete(q.byTarget, d.target.what())
	q.bytes -= d.target.size()
	if w := d.target.Within; w != "" {
		if q.within[w]--; q.within[w] == 0 {
			delete(q.within, w)
		}
	}
}

// due is when the next target is to be tried, of those that there are.
func (q *queue) due() time.Time {
	if q.fresh.Len() > 0 {
		return q.fresh.Front().Value.(*delivery).due
	}
	return q.failed[0].due
}

// take takes out what is to be tried now. While the front end fails, that is one that has not failed, if there is one, by turns the
// oldest and the newest: of many that the front end refuses, each in a row has it asked ever more slowly, and whoever comes behind them
// would wait for all.
func (q *queue) take(now time.Time, failing bool) *delivery {
	q.turn++
	place := q.fresh.Front()
	again := len(q.failed) > 0 && !q.failed[0].due.After(now)
	if place == nil || again && !failing && q.turn%failedAtMost == 0 {
		d := heap.Pop(&q.failed).(*delivery)
		q.forget(d)
		return d
	}
	if failing && q.turn%2 == 0 {
		place = q.fresh.Back()
	}
	d := q.fresh.Remove(place).(*delivery)
	q.forget(d)
	return d
}

func (q *queue) holdsWithin(tag string) bool { return q.within[tag] > 0 }

// takeWithin takes out all that wait within a tag, and returns how many there were.
func (q *queue) takeWithin(tag string) (n int) {
	if n = q.within[tag]; n == 0 {
		return 0
	}
	for place := q.fresh.Front(); place != nil; {
		next := place.Next()
		if d := place.Value.(*delivery); d.target.Within == tag {
			q.fresh.Remove(place)
			q.forget(d)
		}
		place = next
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
