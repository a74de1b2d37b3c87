package aside

import (
	"container/list"
	"sync"
	"sync/atomic"

	"github.com/gatewayz/aside/internal/near"
)

// mostFailures is how many keys with a failed load are remembered. One takes about half a kilobyte, and what its error holds.
const mostFailures = 32768

// failures are what loads have left behind that failed. They have a place of their own: no value gives way to them, however many
// keys fail. Where there are too many, those that failed first are forgotten, and may be loaded again.
type failures struct {
	clock *near.Clock
	count atomic.Int64 // of byKey, for those who look while there is none

	mu    sync.Mutex
	byKey map[string]*list.Element // guarded by mu
	order list.List                // of *failure, the one that was noted first in front; guarded by mu
}

// of returns the failure of a key, or nil.
func (t *failures) of(key string) *failure {
	if t.count.Load() == 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropOver()
	e := t.byKey[key]
	if e == nil || t.over(e) {
		return nil
	}
	return e.Value.(*failure)
}

// note remembers a failure, in place of the last one of its key.
func (t *failures) note(f *failure) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropOver()
	if e := t.byKey[f.key]; e != nil {
		t.drop(e)
	} else if len(t.byKey) >= mostFailures {
		t.drop(t.order.Front())
	}
	if t.byKey == nil {
		t.byKey = make(map[string]*list.Element)
	}
	t.byKey[f.key] = t.order.PushBack(f)
	t.count.Store(int64(len(t.byKey)))
}

// forget drops the failure of a key.
func (t *failures) forget(key string) {
	if t.count.Load() == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.byKey[key]; e != nil {
		t.drop(e)
	}
}

// forgetMatching drops the failures of all keys that match says yes to.
func (t *failures) forgetMatching(match func(key string) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, e := range t.byKey {
		if match(key) {
			t.drop(e)
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
	delete(t.byKey, t.order.Remove(e).(*failure).key)
	if len(t.byKey) == 0 {
		t.byKey = nil // one that was large once stays so
	}
	t.count.Store(int64(len(t.byKey)))
}
