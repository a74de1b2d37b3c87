package aside

import (
	"errors"

	"github.com/gatewayz/aside/internal/causes"
	"github.com/gatewayz/aside/internal/flight"
)

// isNotFound reports whether a loader's error says that there is no such thing, and nothing else: ErrNotFound itself, or wrapped by
// errors that each wrap one. An error that holds several, such as errors.Join makes, holds a failure too, and a failure must not be
// cached as an answer. A panic is a panic, whatever its value is.
func isNotFound(err error) bool {
	for err != nil {
		if err == ErrNotFound {
			return true
		}
		if _, panicked := err.(*flight.PanicError); panicked {
			return false
		}
		one, ok := err.(interface{ Unwrap() error })
		if !ok {
			return false
		}
		err = one.Unwrap()
	}
	return false
}

// An absence is what memory keeps of a "not found" whose loader has said more than ErrNotFound. Its text counts like what a value takes.
// What else the error holds is not looked at: it may be a map that the program goes on writing to.
type absence struct {
	err  error
	text string
}

// largestAbsence is how long the text of such an error may be. Of a longer one, which may be a source's whole answer, the beginning is kept.
const largestAbsence = 64 << 10

// isAbsent reports whether a value in memory is a "not found".
func isAbsent(value any) bool {
	_, is := value.(*absence)
	return is || value == nil
}

// absentError is the error of a "not found" that memory holds.
func absentError(value any) error {
	if a, ok := value.(*absence); ok {
		return a.err
	}
	return ErrNotFound
}

// kept is the outcome's value as memory keeps it.
func (o *outcome) kept() any {
	if o.value == nil && o.absent != nil && o.absent != ErrNotFound {
		text := causes.Text(o.absent)
		if len(text) > largestAbsence {
			text = cut(text, longestAbsence)
			return &absence{&toldAbsence{text}, text}
		}
		return &absence{o.absent, text}
	}
	return o.value
}

// longestAbsence is how long the text of a "not found" may be that is stored in Redis. Of a longer one Redis keeps that there is
// nothing, and not the text.
const longestAbsence = 1 << 10

// absenceText is the text of a "not found" for Redis, empty where it says no more than ErrNotFound.
func (o *outcome) absenceText() []byte {
	if o.absent == nil || o.absent == ErrNotFound {
		return nil
	}
	text := causes.Text(o.absent)
	if len(text) > longestAbsence || text == ErrNotFound.Error() {
		return nil
	}
	return []byte(text)
}

// absentElsewhere is the error of a "not found" that Redis holds. Another process cannot have the loader's error itself.
func absentElsewhere(text []byte) error {
	if len(text) == 0 || len(text) > longestAbsence {
		return ErrNotFound
	}
	return &toldAbsence{string(text)}
}

// A toldAbsence is ErrNotFound with the text of the error that a loader, in this process or another, has wrapped it in.
type toldAbsence struct{ text string }

func (e *toldAbsence) Error() string { return e.text }

func (e *toldAbsence) Unwrap() error { return ErrNotFound }

// unmistakable returns a panic whose value is no error that callers would take for an answer of the cache.
func unmistakable(p *flight.PanicError) *flight.PanicError {
	if errors.Is(p, ErrNotFound) || errors.Is(p, ErrMiss) {
		return &flight.PanicError{Value: p.Value.(error).Error(), Stack: p.Stack}
	}
	return p
}

// concealed is err, or where callers would take that for an answer of the cache an error with its text alone. It is for what has gone
// wrong with a value that is there: the codec that refuses it may have found something else missing.
func concealed(err error) error {
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrMiss) {
		return errors.New(err.Error())
	}
	return err
}
