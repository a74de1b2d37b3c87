package journal

import (
	"cmp"
	"slices"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/quota"
)

// recent has the last confirmed invalidations. The watermark is the number of the last one; it is recorded in Redis.
type recent struct {
	list      []confirmation // the last ones, the oldest first
	bytes     int            // of their names
	watermark uint64         // the number of the last one: how many were ever confirmed
	forgotten uint64         // the number of the last one that is not in the list any more
	recorded  uint64         // the watermark that is recorded in Redis
}

// A confirmation is an invalidation that Redis has confirmed. It stays in the share of its caller until a watermark that includes it is
// recorded in Redis: if a server has lost more of them than are remembered, everything is invalidated.
type confirmation struct {
	name, caller string
	number       uint64 // among all that were ever confirmed
}

const (
	mostRecent      = 2 * 32768      // confirmed ones that are remembered: mostOutside, and as many of the program
	mostRecentBytes = 2 * (16 << 20) // of their names
)

// remember is called with the lock held.
func (j *Journal) remember(caller, name string) {
	r := &j.recent
	r.watermark++
	r.list = append(r.list, confirmation{name, caller, r.watermark})
	r.bytes += len(name)
	j.outside.Take(caller, quota.Of(name))
	for len(r.list) > mostRecent || r.bytes > mostRecentBytes {
		r.forgotten = r.list[0].number
		j.forget(r.list[:1])
		r.list = r.list[1:]
	}
}

// forget ends the shares of confirmations that leave the list. It is called with the lock held.
func (j *Journal) forget(list []confirmation) {
	for _, c := range list {
		j.recent.bytes -= len(c.name)
		if c.number > j.recent.recorded {
			j.outside.Release(c.caller, quota.Of(c.name))
		}
	}
	clear(list)
}

// after is the place of the first confirmation that a watermark does not include.
func (r *recent) after(watermark uint64) int {
	i, _ := slices.BinarySearchFunc(r.list, watermark, func(c confirmation, watermark uint64) int {
		if c.number <= watermark {
			return -1
		}
		return 1
	})
	return i
}

// Recover takes the watermark of a server that is about to be used. A server that was replaced, or restarted from a saved state, may have lost
// the invalidations after its watermark: they are entered again. If they are not remembered any more, everything is entered.
//
// A confirmation that is entered again leaves the list. It is remembered when it is confirmed again, with a new number. Otherwise a connection
// that breaks again and again would double the list each time.
func (j *Journal) Recover(watermark uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r := &j.recent
	if watermark < r.forgotten {
		j.enter("", []string{keyspace.All})
		return
	}
	i := r.after(watermark)
	again := slices.Clone(r.list[i:])
	j.forget(r.list[i:])
	r.list = r.list[:i]
	for _, c := range again {
		j.enter(cmp.Or(c.caller, Resent), []string{c.name})
	}
}

// Watermark is how many invalidations Redis has confirmed.
func (j *Journal) Watermark() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.recent.watermark
}

// WakeWatermark wakes the goroutine that records the watermark in Redis.
func (j *Journal) WakeWatermark() <-chan struct{} { return j.wakes.watermark }

// Recorded notes that a watermark is recorded in Redis.
func (j *Journal) Recorded(watermark uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r := &j.recent
	if watermark <= r.recorded {
		return
	}
	for _, c := range r.list[r.after(r.recorded):r.after(watermark)] {
		j.outside.Release(c.caller, quota.Of(c.name))
	}
	r.recorded = watermark
}

// NotRecorded wakes that goroutine again, after a failure.
func (j *Journal) NotRecorded() { wake(j.wakes.watermark) }
