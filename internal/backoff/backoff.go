// Package backoff puts keys into backoff after failed loads, so that a failing source is not loaded again at once.
package backoff

import (
	"container/list"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/near"
)

// mostFailures is how many keys with a failed load are remembered. One takes about half a kilobyte.
const mostFailures = 32768

// A Table remembers which loads have failed. It does not share the bounds of the values in memory: no value is evicted for a failure. When it is
// full, it forgets the oldest failure, and that key may be loaded again.
//
// Several policies may make the same key. Each has failures of its own: the owner is the number of a policy.
type Table struct {
	clock   *near.Clock
	first   time.Duration
	longest time.Duration
	count   atomic.Int64  // of failures: read without the lock
	last    atomic.Uint64 // the number of the last failure: see failure.number

	mu     sync.Mutex
	byKey  map[string][]*list.Element // one for each owner; guarded by mu
	order  list.List                  // of *failure, the oldest in front; guarded by mu
	kept   list.List                  // of *cause, the oldest in front; guarded by mu
	shared map[error]*cause           // of those that are pointers; guarded by mu
	tidy   *time.Timer                // while there are causes; guarded by mu
	closed bool                       // guarded by mu
}

// A failure is a failed load of a key.
type failure struct {
	key     string
	owner   uint64
	err     error         // for the callers during backoff; while the failure is in the table, cause has it
	until   int64         // when the next load may begin, on the table's clock
	expires int64         // when it is forgotten, likewise: a later failure is not consecutive
	pause   time.Duration // before it was varied; 0 for the first consecutive failure, which causes no backoff

	number uint64 // among all failures: a load that began when there were fewer began before this one
	cause  *cause // nil if no caller gets the error
}

// New makes a table. The second consecutive failure puts a key into backoff for a pause of first. Each further one doubles the pause, up to
// longest.
func New(clock *near.Clock, first, longest time.Duration) *Table {
	return &Table{clock: clock, first: first, longest: longest}
}

// Last is the number of the last failure. A load remembers it at its beginning, for Note.
func (t *Table) Last() uint64 { return t.last.Load() }

// Note remembers that a load of a key has failed. The key is in backoff if the load before failed too. One failure alone causes no backoff, or
// other callers would fail because of one lost packet.
//
// Concurrent loads that fail together, as those of one lost connection do, are one failure: a load that began before the last failure is not
// counted. before is what Last returned when the load began.
//
// reason makes the error for callers during backoff. It is not called for a first failure, of which no error is kept.
func (t *Table) Note(key string, owner, before uint64, reason func() error) {
	t.NoteUntil(key, owner, before, 0, reason)
}

// NoteUntil is Note of a failure whose source says when it may be asked again: after a pause, if that is not zero. It then counts though it is the
// first one.
func (t *Table) NoteUntil(key string, owner, before uint64, pause time.Duration, reason func() error) {
	f := &failure{key: key, owner: owner, until: t.clock.Now()}
	if last := t.find(key, owner); last != nil {
		if before < last.number {
			return
		}
		f.err = reason()
		f.pause = min(max(2*last.pause, t.first), t.longest)
		f.until += int64(varied(f.pause, t.longest))
	}
	if pause > 0 {
		f.until = t.clock.Now() + int64(pause)
		if f.err == nil {
			f.err = reason()
		}
	}
	f.expires = f.until + int64(t.longest)
	t.add(f)
}

// varied returns pause, varied by up to a quarter, and at most most. If it cannot be longer, it is shortened: loads that failed together must not
// be retried together.
func varied(pause, most time.Duration) time.Duration {
	d := pause - pause/4 + rand.N(pause/2+1)
	if d > most {
		d = most - rand.N(most/4+1)
	}
	return d
}

// HeldBack returns how long a key stays in backoff, and the error of its last failed load. The error is nil if a load may begin now. A first
// failure, which is in the table too, has no error. Its time alone would not show that: on a clock that lags behind, it could be in the
// future.
func (t *Table) HeldBack(key string, owner uint64) (left time.Duration, err error) {
	f := t.find(key, owner)
	if f == nil || f.err == nil || !t.clock.Before(f.until) {
		return 0, nil
	}
	return time.Duration(f.until - t.clock.Now()), f.err
}

// Close stops the table's timer.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed = true; t.tidy != nil {
		t.tidy.Stop()
	}
}

// Forget drops the failures of a key.
func (t *Table) Forget(key string) {
	t.forget(key, func(*failure) bool { return true })
}

// ForgetOwn drops the failure of a key that one owner has loaded.
func (t *Table) ForgetOwn(key string, owner uint64) {
	t.forget(key, func(f *failure) bool { return f.owner == owner })
}

func (t *Table) forget(key string, which func(*failure) bool) {
	if t.count.Load() == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range slices.Clone(t.byKey[key]) {
		if which(e.Value.(*failure)) {
			t.drop(e)
		}
	}
}

// ForgetMatching drops the failures of all keys for which match reports true.
func (t *Table) ForgetMatching(match func(key string) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, all := range t.byKey {
		if match(key) {
			for _, e := range slices.Clone(all) {
				t.drop(e)
			}
		}
	}
}

// find returns a copy of the failure of a key and an owner, or nil.
func (t *Table) find(key string, owner uint64) *failure {
	if t.count.Load() == 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropExpired()
	e := t.at(key, owner)
	if e == nil || t.expired(e) {
		return nil
	}
	f := *e.Value.(*failure)
	if f.cause != nil { // which may be taken away
		f.err = f.cause.err
	}
	return &f
}

func (t *Table) at(key string, owner uint64) *list.Element {
	for _, e := range t.byKey[key] {
		if e.Value.(*failure).owner == owner {
			return e
		}
	}
	return nil
}

// add puts a failure in the table, and replaces the last one of its key and owner. The text of its error is made before the lock is taken.
// Otherwise:
//
//  1. An error is kept, until further errors take its place. The last of them is added now.
//  2. The text of the first error is made now, with the lock held. Error is a method of the program: it may block, or call the cache.
//  3. Loads of all keys wait for the lock.
func (t *Table) add(f *failure) {
	var text error
	if f.err != nil {
		text = shortened(f.err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropExpired()
	if e := t.at(f.key, f.owner); e != nil {
		t.drop(e)
	} else if t.order.Len() >= mostFailures {
		t.drop(t.order.Front())
	}
	if t.byKey == nil {
		t.byKey = make(map[string][]*list.Element)
	}
	f.number = t.last.Add(1)
	t.byKey[f.key] = append(t.byKey[f.key], t.order.PushBack(f))
	t.count.Store(int64(t.order.Len()))
	if f.err == nil {
		return
	}
	f.cause, f.err = t.keep(f.err, text), nil
	t.tidyLater()
}

// dropExpired drops some of the expired failures. It is called at each lookup and each addition, so that no call takes long.
func (t *Table) dropExpired() {
	const some = 4
	for range some {
		if e := t.order.Front(); e != nil && t.expired(e) {
			t.drop(e)
		}
	}
}

func (t *Table) expired(e *list.Element) bool { return !t.clock.Before(e.Value.(*failure).expires) }

func (t *Table) drop(e *list.Element) {
	f := t.order.Remove(e).(*failure)
	t.release(f)
	if rest := slices.DeleteFunc(t.byKey[f.key], func(other *list.Element) bool { return other == e }); len(rest) > 0 {
		t.byKey[f.key] = rest
	} else {
		delete(t.byKey, f.key)
	}
	if len(t.byKey) == 0 {
		t.byKey = nil // a map that was large once stays so
	}
	t.count.Store(int64(t.order.Len()))
}
