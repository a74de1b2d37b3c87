package aside

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"

	"github.com/gatewayz/aside/internal/redisstore"
)

// A journal keeps the invalidations that Redis has not confirmed, the last one of each key, tag and pattern, until it has. What is
// in it is in quarantine: this process does not read it from Redis, where it may still be as it was before.
//
// A read that is under way when something is entered is no danger: whoever enters it breaks the key's fences afterwards.
type journal struct {
	waiting      atomic.Int64  // how many entries there are
	wake         chan struct{} // for keys and tags
	wakePatterns chan struct{}

	mu        sync.Mutex
	entries   map[string]*unconfirmed // by key, tag, or name of a pattern; guarded by mu
	patterns  map[string]Pattern      // of those entries that are one; guarded by mu
	last      uint64                  // the number of the last invalidation; guarded by mu
	sent      uint64                  // the number of the last one that was tried to send; guarded by mu
	losses    uint64                  // how often a connection was lost; guarded by mu
	count     uint64                  // of the confirmed ones, all that there ever were; guarded by mu
	recent    []confirmation          // the last of those, the oldest first; guarded by mu
	bytes     int                     // of recent; guarded by mu
	forgotten uint64                  // the number of the last one that is not remembered any more; guarded by mu
	marked    uint64                  // how many confirmed ones are written down in Redis; guarded by mu
	own       use                     // of the program, by what waits; guarded by mu

	outside room // of the other callers

	marks chan struct{} // wakes who writes down the count
}

// An unconfirmed entry stands for one or more invalidations of one key, tag or pattern.
type unconfirmed struct {
	number  uint64     // of the last one
	waiters []*pending // the oldest first
	others  bool       // it is everything, in place of names for which there was no room
	caller  string     // in whose share it is: see use
}

// A pending is what those wait for who have invalidated one name between two tries to send it.
type pending struct {
	number    uint64        // of the last of them
	confirmed chan struct{} // closed when Redis has carried it out
	failed    chan struct{} // closed by fail when a try has failed; nil but for a pattern
	failing   sync.Once
	tally     *tally // nil for a key
}

// A moment is taken before invalidations are sent: which of those that wait are among them, and what was lost by then. The caller is
// in whose share they are entered, if they have to be.
type moment struct {
	number, losses uint64
	caller         string
}

const (
	mostUnconfirmed      = 65536    // entries of the program itself; beyond that, everything is invalidated
	mostPatterns         = 256      // of them; each is compared with every key that is read
	mostUnconfirmedBytes = 64 << 20 // of their names
	replayAtOnce         = 1000     // entries in one round trip
)

func newJournal() *journal {
	return &journal{
		marks: make(chan struct{}, 1), wake: make(chan struct{}, 1), wakePatterns: make(chan struct{}, 1),
		entries: make(map[string]*unconfirmed), patterns: make(map[string]Pattern),
	}
}

// holds reports whether a key or tag is in quarantine.
func (j *journal) holds(name string) bool {
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
			if p.matches(name) {
				return true
			}
		}
	}
	return false
}

// enter puts names into quarantine, and returns what is told when they are confirmed.
func (j *journal) enter(names ...string) []*pending { return j.enterFor("", names...) }

// enterFor is enter on behalf of a caller, who has reserved room for the names, unless that is the program itself.
func (j *journal) enterFor(caller string, names ...string) []*pending {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.enterLocked(caller, names)
}

func (j *journal) enterLocked(caller string, names []string) (list []*pending) {
	for _, name := range names {
		j.last++
		if all := j.entries[keyspace.All]; all != nil && all.others {
			name = keyspace.All // which is to be confirmed anew, and stands for what there was no room for as it does for this
		}
		e := j.entries[name]
		if e == nil || caller == "" && e.caller != "" {
			if caller == "" && j.full(name) {
				return append(list, j.overflow())
			}
			if e == nil {
				e = &unconfirmed{}
				j.entries[name] = e
				if text, isPattern := strings.CutPrefix(name, keyspace.PatternPrefix); isPattern {
					j.patterns[name] = newPattern(text)
				}
			} else { // it is the program's too from now on
				j.account(e.caller, name, -1)
			}
			e.caller = caller
			j.account(caller, name, 1)
		}
		e.number = j.last
		if w := e.wait(name, j.sent); len(list) == 0 || list[len(list)-1] != w { // else it is everything again, which counts once
			list = append(list, w)
		}
	}
	j.changed()
	return list
}

// wait returns what is told of the entry's last invalidation. What was sent already, up to a number, may be confirmed before.
func (e *unconfirmed) wait(name string, sent uint64) *pending {
	const most = 8 // where each try fails, and another invalidation comes after each
	n := len(e.waiters)
	if n > 0 && (e.waiters[n-1].number > sent || n >= most) {
		e.waiters[n-1].number = e.number
		return e.waiters[n-1]
	}
	w := &pending{number: e.number, confirmed: make(chan struct{})}
	if strings.HasPrefix(name, "%") && name != keyspace.Sequence {
		w.tally = newTally()
	}
	if strings.HasPrefix(name, keyspace.PatternPrefix) {
		w.failed = make(chan struct{})
	}
	e.waiters = append(e.waiters, w)
	return w
}

func (w *pending) fail() {
	if w.failed != nil {
		w.failing.Do(func() { close(w.failed) })
	}
}

// overflow puts everything into quarantine in place of what there is no room for. Only that is then to be confirmed, and until it
// is, further names find their place in it: an outage may be long, and there may be no end of them. Who waits for a try to carry
// out a pattern has waited long enough, for there will be none.
func (j *journal) overflow() *pending {
	all := &unconfirmed{number: j.last, others: true}
	own := all.wait(keyspace.All, j.last)
	all.waiters = nil
	for _, e := range j.entries {
		for _, w := range e.waiters {
			w.number = j.last
			w.fail()
			all.waiters = append(all.waiters, w)
		}
	}
	all.waiters = append(all.waiters, own) // the last one, which is shared with who comes next
	for name, e := range j.entries {
		j.drop(name, e)
	}
	j.entries[keyspace.All] = all
	j.account(all.caller, keyspace.All, 1)
	j.changed()
	return own
}

// changed is called with the lock held.
func (j *journal) changed() {
	j.waiting.Store(int64(len(j.entries)))
	if len(j.entries) > len(j.patterns) {
		wake(j.wake)
	}
	if len(j.patterns) > 0 {
		wake(j.wakePatterns)
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// confirm notes that Redis has carried out the invalidations of names that were entered up to a moment, and remembers them.
// Where a connection was lost since that moment, it enters them again instead, and returns what is told when they are
// confirmed: what a server answers last before it fails is what its successor is least likely to know.
func (j *journal) confirm(upTo moment, names ...string) (tallies []*tally, again []*pending) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if upTo.losses != j.losses {
		return nil, j.enterLocked(upTo.caller, names)
	}
	for _, name := range names {
		caller, e := upTo.caller, j.entries[name]
		if e == nil && caller == resent {
			continue // somebody else has had it confirmed meanwhile
		}
		if e != nil {
			for len(e.waiters) > 0 && e.waiters[0].number <= upTo.number {
				close(e.waiters[0].confirmed)
				if t := e.waiters[0].tally; t != nil {
					tallies = append(tallies, t)
				}
				e.waiters = e.waiters[1:]
			}
			if e.number > upTo.number {
				continue // it is sent again, and remembered after that
			}
			if caller == resent {
				caller = e.caller
			}
			j.drop(name, e)
		}
		j.remember(caller, name)
	}
	j.waiting.Store(int64(len(j.entries)))
	wake(j.marks)
	return tallies, nil
}

// some reports whether there are keys and tags, and whether there are patterns.
func (j *journal) some() (others, patterns bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.entries) > len(j.patterns), len(j.patterns) > 0
}

// now is the present moment.
func (j *journal) now() moment {
	j.mu.Lock()
	defer j.mu.Unlock()
	return moment{number: j.last, losses: j.losses}
}

// doubt notes that a connection is lost, and with it perhaps the server that knew of what it has just confirmed.
func (j *journal) doubt() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.losses++
}

// mark is how many invalidations Redis has confirmed.
func (j *journal) mark() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.count
}

const (
	markPause = 500 * time.Millisecond // between two marks: what Redis forgets of them is sent again
	markAgain = time.Minute            // so that it is not taken for unused, where Redis evicts what is
)

// keepMark writes into Redis how many invalidations it has confirmed, until ctx ends. The mark is behind what it is about, in
// Redis' own order and so in everything that is saved or replicated.
func (c *Cache) keepMark(ctx context.Context) {
	for {
		t := time.NewTimer(markAgain)
		select {
		case <-ctx.Done():
		case <-c.journal.marks:
		case <-t.C:
		}
		t.Stop()
		if mark := c.journal.mark(); mark > 0 {
			c.withBudget(1, func(ctx context.Context) error {
				err := c.store.Mark(ctx, mark)
				if err != nil {
					wake(c.journal.marks)
				} else {
					c.journal.wrote(mark)
				}
				return err
			})
		}
		t.Reset(markPause)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

// pending are the entries to send now, but for patterns, and the moment: tags first, and of those the sequence, then the others in no order.
func (j *journal) pending() (tags, keys []string, upTo moment) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for name := range j.entries {
		switch {
		case len(tags)+len(keys) >= replayAtOnce:
		case strings.HasPrefix(name, keyspace.PatternPrefix):
		case strings.HasPrefix(name, "%"): // no key of a policy begins with one
			tags = append(tags, name)
		default:
			keys = append(keys, name)
		}
	}
	slices.Sort(tags)
	if i := slices.IndexFunc(tags, func(tag string) bool { return keyspace.IsNamed(tag) }); i >= 0 {
		tags = slices.DeleteFunc(tags, func(tag string) bool { return tag == keyspace.Sequence })
		tags = append([]string{keyspace.Sequence}, tags...)
	}
	j.sent = j.last
	return tags, keys, moment{j.last, j.losses, resent}
}

// A task is a pattern that is to be carried out.
type task struct {
	Pattern
	name    string
	waiters []*pending
}

// tasks are the patterns to carry out now, and the moment.
func (j *journal) tasks() (list []task, upTo moment) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for name, p := range j.patterns {
		list = append(list, task{p, name, slices.Clone(j.entries[name].waiters)})
	}
	j.sent = j.last
	return list, moment{j.last, j.losses, resent}
}

// replay calls once, which sends some of what Redis has not confirmed, as soon as there is something and Redis is there, until
// ctx ends. It reports whether there was anything, and whether all of that is confirmed.
func (c *Cache) replay(ctx context.Context, wake <-chan struct{}, once func(context.Context) (some, all bool)) {
	const soonest, latest, longest = 10 * time.Millisecond, time.Second, 5 * time.Second
	for pause := soonest; ; {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
		for ctx.Err() == nil {
			began := time.Now()
			some, all := once(ctx)
			if !some {
				break
			}
			if all {
				pause = soonest
				continue
			}
			// What takes long and fails, a pattern with a key that the user may not touch, say, is not all that Redis does.
			rest := max(jittered(pause), min(4*time.Since(began), longest))
			pause = min(2*pause, latest)
			if !c.store.Up() { // asking that costs nothing
				rest, pause = jittered(soonest), soonest
			}
			t := time.NewTimer(rest)
			select {
			case <-ctx.Done():
			case <-t.C:
			}
			t.Stop()
		}
	}
}

// replayOnce sends one round of keys and tags.
func (c *Cache) replayOnce(ctx context.Context) (some, all bool) {
	if some, _ = c.journal.some(); !some || !c.store.Up() {
		return some, false
	}
	tags, keys, upTo := c.journal.pending()
	all = true
	ctx, cancel := c.store.Budget(ctx, 0, len(tags)+len(keys))
	defer cancel()
	if len(tags) > 0 {
		for _, group := range independent(tags) {
			next := make([]redisstore.Tag, len(group))
			for i, tag := range group {
				next[i] = bumped(tag)
			}
			for i, g := range c.store.Bump(ctx, next...) {
				c.refused(g.Err)
				all = g.Err == nil && c.confirmed(upTo, group[i], g) && all
			}
		}
	}
	if len(keys) > 0 {
		_, errs := c.store.Remove(ctx, keys...)
		for _, err := range errs {
			c.refused(err)
		}
		done := succeeded(keys, errs)
		if len(done) == 0 {
			return some, false
		}
		_, again := c.journal.confirm(upTo, done...)
		all = again == nil && len(done) == len(keys) && all
		c.tell(upTo.caller, Invalidation{Keys: done})
	}
	return some, all
}

// independent parts tags into groups of which none waits for another: the named ones with the sequence, which must be raised before
// them, and each of the others. In a cluster the server of one may be away, and those of the others are not.
func independent(tags []string) (groups [][]string) {
	var named []string
	for _, tag := range tags {
		if tag == keyspace.Sequence || keyspace.IsNamed(tag) {
			named = append(named, tag)
		} else {
			groups = append(groups, []string{tag})
		}
	}
	if len(named) > 0 {
		groups = append(groups, named)
	}
	return groups
}

// refused logs an invalidation that Redis does not permit: it waits until that is mended, and meanwhile nobody else is told of it.
func (c *Cache) refused(err error) {
	if redisstore.IsForbidden(err) && c.refusalLog.Allow(c.clock.Now()) {
		c.opts.Logger.Warn("aside: an invalidation is refused by redis: other processes are not told of it, and it is sent again until it is permitted",
			"reason", redisstore.Describe(err))
	}
}

// confirmed notes that Redis has given a tag its next generation. It reports false if that is in doubt already.
func (c *Cache) confirmed(upTo moment, tag string, g redisstore.Generation) bool {
	caller := c.journal.callerOf(tag)
	tallies, again := c.journal.confirm(upTo, tag)
	if again == nil && tag != keyspace.Sequence {
		c.sweepAfter(caller, tag, g, tallies...)
		c.tell(caller, invalidationOf(tag))
	}
	return again == nil
}

func invalidationOf(tag string) Invalidation {
	if name, ok := strings.CutPrefix(tag, keyspace.NamedPrefix); ok {
		return Invalidation{Tags: []string{keyspace.GivenName(name)}}
	}
	if name, ok := strings.CutPrefix(tag, keyspace.CategoryPrefix); ok {
		return Invalidation{Category: name}
	}
	return Invalidation{All: true}
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
