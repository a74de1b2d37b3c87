package aside

import (
	"cmp"
	"slices"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/quota"
)

// A confirmation is an invalidation that Redis has confirmed. It stays in the share of its caller until it is written down in Redis how
// far the confirmed ones go: a server that does not know of more of them than are remembered has everything invalidated.
type confirmation struct {
	name, caller string
	number       uint64 // among all that were ever confirmed
}

const (
	mostRecent      = 2 * 32768      // confirmed ones that are remembered: what mostOutside says, and as many of the program's own
	mostRecentBytes = 2 * (16 << 20) // of their names
)

// remember is called with the lock held.
func (j *journal) remember(caller, name string) {
	j.count++
	j.recent = append(j.recent, confirmation{name, caller, j.count})
	j.bytes += len(name)
	j.outside.Take(caller, quota.Of(name))
	for len(j.recent) > mostRecent || j.bytes > mostRecentBytes {
		j.forgotten = j.recent[0].number
		j.forget(j.recent[:1])
		j.recent = j.recent[1:]
	}
}

// forget is called with the lock held, by whoever takes these out of those that are remembered.
func (j *journal) forget(list []confirmation) {
	for _, c := range list {
		j.bytes -= len(c.name)
		if c.number > j.marked {
			j.outside.Release(c.caller, quota.Of(c.name))
		}
	}
	clear(list)
}

// after is the place of the first confirmation that a mark does not include. The lock is held.
func (j *journal) after(mark uint64) int {
	i, _ := slices.BinarySearchFunc(j.recent, mark, func(c confirmation, mark uint64) int {
		if c.number <= mark {
			return -1
		}
		return 1
	})
	return i
}

// found is told how many of the confirmed invalidations a server knows of that is about to be used. One that was replaced, or
// came back with what it had saved, may have forgotten the others: they are entered again, and everything is where it is not
// remembered any more which they are.
//
// What is entered again is not remembered beside that. It is once it is confirmed again, under a later number than any server knows of. A
// connection that breaks again and again would else take twice as much of what is remembered each time.
func (j *journal) found(mark uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if mark < j.forgotten {
		j.enterLocked("", []string{keyspace.All})
		return
	}
	i := j.after(mark)
	again := slices.Clone(j.recent[i:])
	j.forget(j.recent[i:])
	j.recent = j.recent[:i]
	for _, c := range again {
		j.enterLocked(cmp.Or(c.caller, resent), []string{c.name})
	}
}

// wrote notes that Redis has written down how many invalidations are confirmed.
func (j *journal) wrote(mark uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if mark <= j.marked {
		return
	}
	for _, c := range j.recent[j.after(j.marked):j.after(mark)] {
		j.outside.Release(c.caller, quota.Of(c.name))
	}
	j.marked = mark
}
