package engine

import (
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// A loadRoom has room for what the load of one attempt needs, in one allocation. A hit has none.
type loadRoom struct {
	request  [1]redisstore.Request
	captured [3]tags.Carried
	tags     [3]wire.Tag
	index    [1]int
}

func (a *attempt) room() *loadRoom {
	if a.loading == nil {
		a.loading = new(loadRoom)
	}
	return a.loading
}

// capture captures the generations of a's tags before a load.
func (a *attempt) capture(m *tags.Snapshot) (complete bool) {
	if a.captured.Tags == nil {
		a.captured.Tags = a.room().captured[:0]
	}
	return m.Capture(&a.captured, a.Tags)
}

// listOf returns an empty list for some of attempts, in their order. The list for one attempt takes no memory: its place is that of attempts, where
// the attempt is already. So it is for the goroutine that attempts belong to.
func listOf(attempts []*attempt) []*attempt {
	if len(attempts) == 1 {
		return attempts[:0]
	}
	return make([]*attempt, 0, len(attempts))
}

// A flightRoom has room for what each flight needs, in one allocation.
type flightRoom struct {
	states    tags.Snapshot
	joinables joinables // of the first attempt
}

// prepare gives attempts what their flight needs, and returns the states of its tags.
func (e *Engine) prepare(attempts []*attempt) *tags.Snapshot {
	room := new(flightRoom)
	others := some[joinables]{left: len(attempts) - 1}
	for i, a := range attempts {
		if a.joinables = &room.joinables; i > 0 {
			a.joinables = others.next()
		}
	}
	return e.tags.SnapshotIn(&room.states)
}

// some makes what the attempts of a batch need, for some of them in one allocation. One that is still in use keeps those beside it in memory.
type some[T any] struct {
	left int // how many are still to be made
	room []T
}

const atOnce = 15 // attempts: they take less than 16 KiB

func (m *some[T]) next() *T {
	if len(m.room) == 0 {
		m.room = make([]T, min(m.left, atOnce))
	}
	one := &m.room[0]
	m.left, m.room = m.left-1, m.room[1:]
	return one
}
