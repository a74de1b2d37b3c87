// Package journal keeps the invalidations that Redis has not confirmed, and the last ones that it has confirmed. It does no
// I/O: package invalidate takes the entries to send from it, and reports which of them are confirmed.
package journal

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/quota"
)

// A Journal keeps each invalidation until Redis confirms it, the last one of each key, tag and pattern. A name in the journal is in
// quarantine: this process does not read it from Redis, where the value may still be the one from before.
//
// A read in flight when a name is entered does no harm: its fences are broken after the name was entered.
type Journal struct {
	waiting atomic.Int64 // how many entries there are
	wakes   wakes

	mu       sync.Mutex
	entries  map[string]*unconfirmed // by key, tag, or name of a pattern; guarded by mu
	patterns map[string]Pattern      // those entries that are patterns; guarded by mu
	last     uint64                  // the number of the last invalidation; guarded by mu
	sent     uint64                  // the number of the last one that was in a batch; guarded by mu
	epoch    uint64                  // how often a connection was lost; guarded by mu
	recent   recent                  // the last confirmed invalidations; guarded by mu
	own      quota.Use               // of the program, by entries; guarded by mu

	outside quota.Shares // of the other callers
}

// wakes are the channels that wake the goroutines which send the journal's entries. Each has room for one.
type wakes struct{ entries, patterns, watermark chan struct{} }

// A Position is a point in the journal, taken before invalidations are sent. It says which entries are among them, and in which
// connection epoch they were sent. Its caller is the one in whose share they are entered, if they have to be.
type Position struct {
	number, epoch uint64
	caller        string
}

const (
	mostUnconfirmed      = 65536    // entries of the program itself; beyond that, everything is invalidated
	mostPatterns         = 256      // of them; each is compared with every key that is read
	mostUnconfirmedBytes = 64 << 20 // of their names
	batchSize            = 1000     // entries in one round trip
)

// New makes an empty journal.
func New() *Journal {
	return &Journal{
		wakes:   wakes{make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1)},
		entries: make(map[string]*unconfirmed), patterns: make(map[string]Pattern),
	}
}

// Wake wakes the goroutine that sends keys and tags: see Batch.
func (j *Journal) Wake() <-chan struct{} { return j.wakes.entries }

// WakePatterns wakes the goroutine that carries out patterns: see Patterns.
func (j *Journal) WakePatterns() <-chan struct{} { return j.wakes.patterns }

// Contains reports whether a key or tag is in quarantine. A nil journal contains nothing.
func (j *Journal) Contains(name string) bool {
	if j == nil || j.waiting.Load() == 0 {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.entries[name] != nil {
		return true
	}
	if len(j.patterns) > 0 && !strings.HasPrefix(name, "%") {
		for _, p := range j.patterns {
			if p.Matches(name) {
				return true
			}
		}
	}
	return false
}

// Enter puts names into quarantine for a caller, and returns a Pending for each, which says when it is confirmed. The caller has reserved room
// for the names, unless it is the program itself, which is the empty caller.
func (j *Journal) Enter(caller string, names ...string) []*Pending {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.enter(caller, names)
}

// enter is called with the lock held.
func (j *Journal) enter(caller string, names []string) (list []*Pending) {
	for _, name := range names {
		j.last++
		if all := j.entries[keyspace.All]; all != nil && all.overflow {
			name = keyspace.All // everything is invalidated once more, this name included
		}
		e := j.entries[name]
		if e == nil || caller == "" && e.caller != "" {
			if caller == "" && j.full(name) {
				return append(list, j.overflow())
			}
			if e == nil {
				e = &unconfirmed{since: time.Now()}
				j.entries[name] = e
				if text, isPattern := strings.CutPrefix(name, keyspace.PatternPrefix); isPattern {
					j.patterns[name] = newPattern(name, text)
				}
			} else { // from now on it counts for the program
				j.account(e.caller, name, -1)
			}
			e.caller = caller
			j.account(caller, name, 1)
		}
		e.number = j.last
		if w := e.wait(name, j.sent); len(list) == 0 || list[len(list)-1] != w { // several names can be one entry for everything, which counts once
			list = append(list, w)
		}
	}
	j.changed()
	return list
}

// overflow replaces all names by one entry for everything, because there is no room for them. Until that entry is confirmed, further names are
// entered as everything too, since an outage may be long. Callers that wait for the first scan of a pattern are released, since there will be
// none.
func (j *Journal) overflow() *Pending {
	all := &unconfirmed{number: j.last, overflow: true, since: time.Now()}
	own := all.wait(keyspace.All, j.last)
	all.waiters = nil
	for _, e := range j.entries {
		if e.since.Before(all.since) {
			all.since = e.since
		}
		for _, w := range e.waiters {
			w.number = j.last
			w.Fail()
			all.waiters = append(all.waiters, w)
		}
	}
	all.waiters = append(all.waiters, own) // the last Pending, which later names share
	for name, e := range j.entries {
		j.drop(name, e)
	}
	j.entries[keyspace.All] = all
	j.account(all.caller, keyspace.All, 1)
	j.changed()
	return own
}

// changed is called with the lock held.
func (j *Journal) changed() {
	j.waiting.Store(int64(len(j.entries)))
	if len(j.entries) > len(j.patterns) {
		wake(j.wakes.entries)
	}
	if len(j.patterns) > 0 {
		wake(j.wakes.patterns)
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Confirm notes that Redis has confirmed the invalidations of names that were entered up to a position, and remembers them. It returns
// the counts that wait for them.
//
// If a connection was lost since that position, Confirm enters the names again instead, and returns their Pendings: the last replies of a
// server before it fails are about the writes that its successor is least likely to have.
func (j *Journal) Confirm(upTo Position, names ...string) (counts []*Count, again []*Pending) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if upTo.epoch != j.epoch {
		return nil, j.enter(upTo.caller, names)
	}
	for _, name := range names {
		caller, e := upTo.caller, j.entries[name]
		if e == nil && caller == Resent {
			continue // another invalidation of the name was confirmed in the meantime
		}
		if e != nil {
			for len(e.waiters) > 0 && e.waiters[0].number <= upTo.number {
				close(e.waiters[0].confirmed)
				if c := e.waiters[0].count; c != nil {
					counts = append(counts, c)
				}
				e.waiters = e.waiters[1:]
			}
			if e.number > upTo.number {
				continue // it is sent again, and remembered when that is confirmed
			}
			if caller == Resent {
				caller = e.caller
			}
			j.drop(name, e)
		}
		j.remember(caller, name)
	}
	j.waiting.Store(int64(len(j.entries)))
	wake(j.wakes.watermark)
	return counts, nil
}

// Now returns the current position, for invalidations of a caller.
func (j *Journal) Now(caller string) Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Position{j.last, j.epoch, caller}
}

// Epoch is the connection epoch: how often a connection was lost.
func (j *Journal) Epoch() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.epoch
}

// ConnectionLost begins the next epoch: a connection is lost, and perhaps the server too, with its last confirmed writes.
func (j *Journal) ConnectionLost() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.epoch++
}

// HasBatch reports whether there are keys or tags to send.
func (j *Journal) HasBatch() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.entries) > len(j.patterns)
}

// Batch returns keys and tags to send now, and the position. Tags are sorted; if one of them is named by the program, the sequence comes first.
// The keys have no order.
func (j *Journal) Batch() (tags, keys []string, upTo Position) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for name := range j.entries {
		switch {
		case len(tags)+len(keys) >= batchSize:
		case strings.HasPrefix(name, keyspace.PatternPrefix):
		case strings.HasPrefix(name, "%"): // no key of a policy begins with one
			tags = append(tags, name)
		default:
			keys = append(keys, name)
		}
	}
	slices.Sort(tags)
	if slices.ContainsFunc(tags, keyspace.IsNamed) {
		tags = slices.DeleteFunc(tags, func(tag string) bool { return tag == keyspace.Sequence })
		tags = append([]string{keyspace.Sequence}, tags...)
	}
	j.sent = j.last
	return tags, keys, Position{j.last, j.epoch, Resent}
}

// Patterns returns the patterns to carry out now, and the position.
func (j *Journal) Patterns() (list []Pattern, upTo Position) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for name, p := range j.patterns {
		p.waiters = slices.Clone(j.entries[name].waiters)
		list = append(list, p)
	}
	j.sent = j.last
	return list, Position{j.last, j.epoch, Resent}
}
