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
	// mostErrors is how many errors are kept. An error can be of any size: a source's whole answer, say. One error of many keys is one.
	mostErrors = 1024
	// longestText is how much is kept of the text of an error that has given way to others.
	longestText = 256
	// tidyPause is how often the table is searched for errors that nobody will be told any more.
	tidyPause = 5 * time.Second
)

// A cause is an error that callers may be told.
type cause struct {
	err  error
	text error         // takes the place of err when that gives way to others: see shortened
	keys int           // with it
	at   *list.Element // nil once it has given way
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

// shortened is an error with the beginning of another one's text.
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

// tidyLater has tidyUp called. The caller holds mu.
func (t *Table) tidyLater() {
	if t.tidy == nil && !t.closed {
		t.tidy = time.AfterFunc(tidyPause, t.tidyUp)
	}
}

// tidyUp drops the errors that nobody will be told any more, although nobody asks for their keys.
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
