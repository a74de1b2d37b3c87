package backoff

import (
	"container/list"
	"errors"
	"reflect"
	"strings"
	"time"

	"github.com/gatewayz/aside/internal/causes"
)

const (
	// mostErrors is how many errors are kept. An error can be of any size, such as the whole response of a source. One error of many keys counts
	// once.
	mostErrors = 1024
	// longestText is how much of the text is kept of an error that others have replaced.
	longestText = 256
	// tidyPause is how often errors are dropped that no caller will get any more.
	tidyPause = 5 * time.Second
)

// A cause is an error for callers during backoff.
type cause struct {
	err  error
	text error         // replaces err when others take its place: see shortened
	keys int           // with it
	at   *list.Element // nil once others have taken its place
}

// keep counts one more key with an error. The caller holds mu.
func (t *Table) keep(err, text error) *cause {
	pointer := reflect.TypeOf(err).Kind() == reflect.Pointer // others may not be comparable
	if pointer && t.shared[err] != nil {
		t.shared[err].keys++
		return t.shared[err]
	}
	k := &cause{err: err, text: text, keys: 1}
	k.at = t.kept.PushBack(k)
	if pointer {
		if t.shared == nil {
			t.shared = make(map[error]*cause)
		}
		t.shared[err] = k
	}
	if t.kept.Len() > mostErrors {
		oldest := t.kept.Front().Value.(*cause)
		t.dropCause(oldest)
		oldest.err = oldest.text
	}
	return k
}

func (t *Table) dropCause(k *cause) {
	if k.at == nil {
		return
	}
	t.kept.Remove(k.at)
	k.at = nil
	if reflect.TypeOf(k.err).Kind() == reflect.Pointer {
		delete(t.shared, k.err)
	}
}

// release takes its error from a failure. The caller holds mu.
func (t *Table) release(f *failure) {
	if f.cause == nil {
		return
	}
	if f.cause.keys--; f.cause.keys == 0 {
		t.dropCause(f.cause)
	}
	f.cause = nil
}

// shortened returns an error with the beginning of a text.
func shortened(err error) error {
	text := causes.Text(err)
	n := 0
	for at := range text {
		if n++; n > longestText {
			text = text[:at] + "…"
			break
		}
	}
	return errors.New(strings.Clone(text))
}

// tidyLater schedules tidyUp. The caller holds mu.
func (t *Table) tidyLater() {
	if t.tidy == nil && !t.closed {
		t.tidy = time.AfterFunc(tidyPause, t.tidyUp)
	}
}

// tidyUp drops the errors that no caller will get any more, also if no call asks for their keys.
func (t *Table) tidyUp() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for e := t.order.Front(); e != nil; e = e.Next() {
		if f := e.Value.(*failure); f.cause != nil && !t.clock.Before(f.until) {
			t.release(f)
		}
	}
	if t.tidy = nil; t.kept.Len() > 0 {
		t.tidyLater()
	}
}
