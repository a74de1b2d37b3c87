package aside

import (
	"container/list"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/near"
)

const (
	// mostFailures is how many keys with a failed load are remembered. One takes about half a kilobyte.
	mostFailures = 32768
	// mostErrors is how many errors are kept, which can be of any size: a source's whole answer, say. One error of many keys is one.
	mostErrors = 1024
	// longestText is how much is kept of the text of an error that has given way to others.
	longestText = 256
	// tidyPause is how often errors are looked for that nobody will be told any more.
	tidyPause = 5 * time.Second
)

// failures are what loads have left behind that failed. They have a place of their own: no value gives way to them, however many
// keys fail. Where there are too many, those that failed first are forgotten, and may be loaded again.
type failures struct {
	clock *near.Clock
	count atomic.Int64  // of those that are remembered, for those who look while there is none
	begun atomic.Uint64 // the number of the last failure: see failure.number

	mu    sync.Mutex
	byKey map[string][]*list.Element // one for each policy that makes the key; guarded by mu
	order list.List                  // of *failure, the one that was noted first in front; guarded by mu
	told  list.List                  // of *cause, the one that was kept first in front; guarded by mu
	same  map[error]*cause           // of those that are pointers; guarded by mu
	tidy  *time.Timer                // while there are such; guarded by mu
	ended bool                       // guarded by mu
}

// A cause is an error that callers may be told.
type cause struct {
	err  error
	text error         // what is left of it when it gives way to others: see shortened
	keys int           // with it
	at   *list.Element // nil once it is shortened
}

// of returns the failure of a key that a policy has loaded, or nil.
func (t *failures) of(key string, owner uint64) *failure {
	if t.count.Load() == 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropOver()
	e := t.find(key, owner)
	if e == nil || t.over(e) {
		return nil
	}
	f := *e.Value.(*failure)
	if f.told != nil { // which may be taken away
		f.err = f.told.err
	}
	return &f
}

func (t *failures) find(key string, owner uint64) *list.Element {
	for _, e := range t.byKey[key] {
		if e.Value.(*failure).owner == owner {
			return e
		}
	}
	return nil
}

// note remembers a failure, in place of the last one of its key and policy. The text of its error is made before the lock is taken:
//
//  1. An error is kept, and gives way to others, of which the last one is noted now.
//  2. Its text is made now, with the lock held. Error is a method of the program's: it may block, or ask the cache.
//  3. Loads of all keys wait for the lock.
func (t *failures) note(f *failure) {
	var text error
	if f.err != nil {
		text = shortened(f.err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropOver()
	if e := t.find(f.key, f.owner); e != nil {
		t.drop(e)
	} else if t.order.Len() >= mostFailures {
		t.drop(t.order.Front())
	}
	if t.byKey == nil {
		t.byKey = make(map[string][]*list.Element)
	}
	f.number = t.begun.Add(1)
	t.byKey[f.key] = append(t.byKey[f.key], t.order.PushBack(f))
	t.count.Store(int64(t.order.Len()))
	if f.err == nil {
		return
	}
	f.told, f.err = t.keep(f.err, text), nil
	if t.tidy == nil && !t.ended {
		t.tidy = time.AfterFunc(tidyPause, t.tidyUp)
	}
}

// keep counts one more key with an error. The caller holds mu.
func (t *failures) keep(err, text error) *cause {
	shared := reflect.TypeOf(err).Kind() == reflect.Pointer // others may not be comparable
	if shared && t.same[err] != nil {
		t.same[err].keys++
		return t.same[err]
	}
	k := &cause{err: err, text: text, keys: 1}
	k.at = t.told.PushBack(k)
	if shared {
		if t.same == nil {
			t.same = make(map[error]*cause)
		}
		t.same[err] = k
	}
	if t.told.Len() > mostErrors {
		oldest := t.told.Front().Value.(*cause)
		t.dropTold(oldest)
		oldest.err = oldest.text
	}
	return k
}

func (t *failures) dropTold(k *cause) {
	if k.at == nil {
		return
	}
	t.told.Remove(k.at)
	k.at = nil
	if reflect.TypeOf(k.err).Kind() == reflect.Pointer {
		delete(t.same, k.err)
	}
}

// textOf is the text of an error whose methods were tried before, see sound, and may panic by now.
func textOf(err error) (text string) {
	defer func() {
		if recover() != nil {
			text = "an error whose methods panic"
		}
	}()
	return err.Error()
}

// shortened is an error with the beginning of another one's text.
func shortened(err error) error {
	text := textOf(err)
	n := 0
	for at := range text {
		if n++; n > longestText {
			text = text[:at] + "…"
			break
		}
	}
	return errors.New(strings.Clone(text))
}

// tidyUp takes the errors that nobody will be told any more, although nobody asks.
func (t *failures) tidyUp() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for e := t.order.Front(); e != nil; e = e.Next() {
		if f := e.Value.(*failure); f.told != nil && !t.clock.Before(f.until) {
			t.untell(f)
		}
	}
	if t.tidy = nil; t.told.Len() > 0 && !t.ended {
		t.tidy = time.AfterFunc(tidyPause, t.tidyUp)
	}
}

func (t *failures) untell(f *failure) {
	if f.told == nil {
		return
	}
	if f.told.keys--; f.told.keys == 0 {
		t.dropTold(f.told)
	}
	f.told = nil
}

// end keeps nothing back for later.
func (t *failures) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended = true; t.tidy != nil {
		t.tidy.Stop()
	}
}

// forget drops the failures of a key.
func (t *failures) forget(key string) {
	t.forgetWhere(key, func(*failure) bool { return true })
}

// forgetOwn drops the failure of a key that a policy has loaded.
func (t *failures) forgetOwn(key string, owner uint64) {
	t.forgetWhere(key, func(f *failure) bool { return f.owner == owner })
}

func (t *failures) forgetWhere(key string, which func(*failure) bool) {
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

// forgetMatching drops the failures of all keys that match says yes to.
func (t *failures) forgetMatching(match func(key string) bool) {
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

// dropOver drops some of those that are over, for each that is looked for or noted: so they go without being waited for.
func (t *failures) dropOver() {
	const some = 4
	for range some {
		if e := t.order.Front(); e != nil && t.over(e) {
			t.drop(e)
		}
	}
}

func (t *failures) over(e *list.Element) bool { return !t.clock.Before(e.Value.(*failure).over) }

func (t *failures) drop(e *list.Element) {
	f := t.order.Remove(e).(*failure)
	t.untell(f)
	if rest := slices.DeleteFunc(t.byKey[f.key], func(other *list.Element) bool { return other == e }); len(rest) > 0 {
		t.byKey[f.key] = rest
	} else {
		delete(t.byKey, f.key)
	}
	if len(t.byKey) == 0 {
		t.byKey = nil // one that was large once stays so
	}
	t.count.Store(int64(t.order.Len()))
}
