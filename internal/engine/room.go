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
