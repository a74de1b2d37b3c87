package aside

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/redisstore"
)

// A journal keeps the invalidations that Redis has not confirmed, the last one of each key and tag, until it has. What is in
// it is in quarantine: this process does not read it from Redis, where it may still be as it was before.
//
// A read that is under way when something is entered is no danger: whoever enters it breaks the key's fences afterwards.
type journal struct {
	waiting atomic.Int64 // how many entries there are
	wake    chan struct{}

	mu      sync.Mutex
	entries map[string]*unconfirmed // by key or tag; guarded by mu
	last    uint64                  // the number of the last invalidation; guarded by mu
	losses  uint64                  // how often a connection was lost; guarded by mu
	recent  []confirmed             // the oldest first; guarded by mu
}

// An unconfirmed entry stands for one or more invalidations of one key or tag.
type unconfirmed struct {
	number uint64          // of the last one
	done   []chan struct{} // closed when it is confirmed
}

// A moment is taken before invalidations are sent: which of those that wait are among them, and what was lost by then.
type moment struct{ number, losses uint64 }

// A confirmed invalidation is remembered for a while: a server that fails over, or comes back with what it had saved, may
// have forgotten it.
type confirmed struct {
	name string
	at   time.Time
}

const (
	mostUnconfirmed = 65536            // entries; beyond that, everything is invalidated
	mostRecent      = 4096             // confirmed ones
	recentFor       = 10 * time.Second // before a connection was lost
	replayAtOnce    = 1000             // entries in one round trip
)

func newJournal() *journal {
	return &journal{wake: make(chan struct{}, 1), entries: make(map[string]*unconfirmed)}
}

// holds reports whether a key or tag is in quarantine.
func (j *journal) holds(name string) bool {
	if j == nil || j.waiting.Load() == 0 {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.entries[name] != nil
}

// enter puts names into quarantine, and returns what is closed when all of them are confirmed.
func (j *journal) enter(names ...string) []chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.enterLocked(names)
}

func (j *journal) enterLocked(names []string) (done []chan struct{}) {
	for _, name := range names {
		j.last++
		e := j.entries[name]
		if e == nil {
			if len(j.entries) >= mostUnconfirmed {
				return append(done, j.overflow()...)
			}
			e = &unconfirmed{done: []chan struct{}{make(chan struct{})}}
			j.entries[name] = e
		}
		e.number = j.last
		done = append(done, e.done[0])
	}
	j.changed()
	return done
}

// overflow puts everything into quarantine in place of what there is no room for. Only that is then to be confirmed.
func (j *journal) overflow() []chan struct{} {
	all := &unconfirmed{number: j.last, done: []chan struct{}{make(chan struct{})}}
	for _, e := range j.entries {
		all.done = append(all.done, e.done...)
	}
	clear(j.entries)
	j.entries[tagAll] = all
	j.changed()
	return all.done[:1]
}

// changed is called with the lock held.
func (j *journal) changed() {
	j.waiting.Store(int64(len(j.entries)))
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// confirm notes that Redis has carried out the invalidations of names that were entered up to a moment, and remembers them.
// Where a connection was lost since that moment, it enters them again instead, and returns what is closed when they are
// confirmed: what a server answers last before it fails is what its successor is least likely to know.
func (j *journal) confirm(upTo moment, names ...string) (unconfirmed []chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if upTo.losses != j.losses {
		return j.enterLocked(names)
	}
	now := time.Now()
	for _, name := range names {
		if e := j.entries[name]; e != nil && e.number <= upTo.number {
			delete(j.entries, name)
			for _, done := range e.done {
				close(done)
			}
		}
		j.recent = append(j.recent, confirmed{name, now})
	}
	if n := len(j.recent); n > 2*mostRecent {
		j.recent = slices.Clone(j.recent[n-mostRecent:])
	}
	j.waiting.Store(int64(len(j.entries)))
	return nil
}

// now is the present moment.
func (j *journal) now() moment {
	j.mu.Lock()
	defer j.mu.Unlock()
	return moment{j.last, j.losses}
}

// doubt enters again what was confirmed of late: the connection is lost, and with it perhaps the server that knew of it.
func (j *journal) doubt() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.losses++
	oldest := time.Now().Add(-recentFor)
	var names []string
	for _, c := range j.recent[max(0, len(j.recent)-mostRecent):] {
		if c.at.After(oldest) {
			names = append(names, c.name)
		}
	}
	j.recent = nil
	if len(names) > 0 {
		j.enterLocked(names)
	}
}

// pending are the entries to send now, and the moment: tags first, and of those the
// sequence, then the others in no order.
func (j *journal) pending() (tags, keys []string, upTo moment) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for name := range j.entries {
		switch {
		case len(tags)+len(keys) >= replayAtOnce:
		case strings.HasPrefix(name, "%"): // no key of a policy begins with one
			tags = append(tags, name)
		default:
			keys = append(keys, name)
		}
	}
	slices.Sort(tags)
	if i := slices.IndexFunc(tags, func(tag string) bool { return strings.HasPrefix(tag, tagNamed) }); i >= 0 {
		tags = slices.DeleteFunc(tags, func(tag string) bool { return tag == tagSequence })
		tags = append([]string{tagSequence}, tags...)
	}
	return tags, keys, moment{j.last, j.losses}
}

// replay sends what Redis has not confirmed, as soon as there is something and Redis is there, until ctx ends.
func (c *Cache) replay(ctx context.Context) {
	const soonest, latest = 10 * time.Millisecond, time.Second
	for pause := soonest; ; {
		select {
		case <-ctx.Done():
			return
		case <-c.journal.wake:
		}
		for c.journal.waiting.Load() > 0 {
			if c.store.Up() && c.replayOnce(ctx) {
				pause = soonest
				continue
			}
			t := time.NewTimer(jittered(pause))
			select {
			case <-ctx.Done():
				t.Stop()
				return
			case <-t.C:
			}
			if pause = min(2*pause, latest); !c.store.Up() {
				pause = soonest // asking whether it is up costs nothing
			}
		}
	}
}

// replayOnce sends one round of entries and reports whether all of it was confirmed.
func (c *Cache) replayOnce(ctx context.Context) bool {
	tags, keys, upTo := c.journal.pending()
	ctx, cancel := c.store.Budget(ctx, 0, len(tags)+len(keys))
	defer cancel()
	all := true
	if len(tags) > 0 {
		bumped := make([]redisstore.Tag, len(tags))
		for i, tag := range tags {
			bumped[i] = tagOf(tag)
		}
		for i, g := range c.store.Bump(ctx, bumped...) {
			all = g.Err == nil && c.journal.confirm(upTo, tags[i]) == nil && all
		}
	}
	if len(keys) > 0 {
		_, errs := c.store.Remove(ctx, keys...)
		done := succeeded(keys, errs)
		all = c.journal.confirm(upTo, done...) == nil && len(done) == len(keys) && all
	}
	return all
}

// succeeded are those keys that have no error.
func succeeded(keys []string, errs []error) (done []string) {
	if errs == nil {
		return keys
	}
	for i, key := range keys {
		if errs[i] == nil {
			done = append(done, key)
		}
	}
	return done
}
