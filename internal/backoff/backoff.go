// Package backoff holds back loads of keys whose last loads have failed, so that they are not begun at once again and again.
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

// A Table remembers which loads have failed. It is apart from the values in memory: no value gives way to a failure, however many keys
// fail. When it is full, it forgets the oldest failure, and the key of that may be loaded again.
//
// Several policies may make the same key. Each has failures of its own: policies are told apart by a number, which is called the owner.
type Table struct {
	clock   *near.Clock
	first   time.Duration
	longest time.Duration
	count   atomic.Int64  // of failures, for those who look while there is none
	last    atomic.Uint64 // the number of the last failure: see failure.number

	mu     sync.Mutex
	byKey  map[string][]*list.Element // one for each owner; guarded by mu
	order  list.List                  // of *failure, the oldest in front; guarded by mu
	kept   list.List                  // of *cause, the oldest in front; guarded by mu
	shared map[error]*cause           // of those that are pointers; guarded by mu
	tidy   *time.Timer                // while there are causes; guarded by mu
	closed bool                       // guarded by mu
}

// A failure is what a failed load has left behind.
type failure struct {
	key     string
	owner   uint64
	err     error         // what those that are held back are told; while the failure is in the table, cause has it
	until   int64         // when the next load may begin, on the table's clock
	expires int64         // when it is forgotten, likewise: a failure after that is the first in a row
	pause   time.Duration // before it was varied; 0 of the first failure in a row, which holds back nobody

	number uint64 // among all failures: a load that began when there were fewer began before this one
	cause  *cause // nil where nobody is told of it
}

// New makes a table. The second failure in a row holds back the loads of its key for a pause of first. Each further one doubles the
// pause, up to longest.
func New(clock *near.Clock, first, longest time.Duration) *Table {
	return &Table{clock: clock, first: first, longest: longest}
}

// Last is the number of the last failure. Who begins a load remembers it for Note.
func (t *Table) Last() uint64 { return t.last.Load() }

// Note remembers that a load of a key has failed. It holds back the next loads if the load before has failed too. One failure alone says
// little: were it to hold back others, they would all fail for a lost packet.
//
// Loads that run side by side and fail together, as those of one lost connection do, are one failure: a load that began before the last
// failure is not counted. before says when it began: it is what Last returned then.
//
// reason makes the error that callers are told who are held back. It is called only if somebody may be, so nothing is kept of a first
// failure.
func (t *Table) Note(key string, owner, before uint64, reason func() error) {
	f := &failure{key: key, owner: owner, until: t.clock.Now()}
	if last := t.find(key, owner); last != nil {
		if before < last.number {
			return
		}
		f.err = reason()
		f.pause = min(max(2*last.pause, t.first), t.longest)
		f.until += int64(varied(f.pause, t.longest))
	}
	f.expires = f.until + int64(t.longest)
	t.add(f)
}

// varied is pause, a quarter more or less of it, and no more than most. Where it may not be more, it is less: loads that have failed
// together must not come back together.
func varied(pause, most time.Duration) time.Duration {
	d := pause - pause/4 + rand.N(pause/2+1)
	if d > most {
		d = most - rand.N(most/4+1)
	}
	return d
}

// HeldBack returns for how long no load of a key is to begin, and the error of the last load that failed. The error is nil if a load may
// begin now. A first failure holds back nobody, although it is in the table: the test is that it has no error. Its end alone would
// not do, since a clock that lags could take it for one ahead.
func (t *Table) HeldBack(key string, owner uint64) (left time.Duration, err error) {
	f := t.find(key, owner)
	if f == nil || f.err == nil || !t.clock.Before(f.until) {
		return 0, nil
	}
	return time.Duration(f.until - t.clock.Now()), f.err
}

// Close stops what the table does in the background.
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

// find returns a copy of the failure of a key that an owner has loaded, or nil.
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

// add puts a failure in the table, in place of the last one of its key and owner. The text of its error is made before the lock is taken:
//
//  1. An error is kept, and gives way to others, of which the last one is added now.
//  2. Its text is made now, with the lock held. Error is a method of the program's: it may block, or ask the cache.
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

// dropExpired drops some of the failures that have expired. It is called whenever one is looked for or added, so that nobody waits long
// for it.
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
