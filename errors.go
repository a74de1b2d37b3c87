package aside

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/guard"
)

// Errors that a caller decides on, for errors.Is.
var (
	// ErrMiss is what Get returns for a key that is not cached.
	ErrMiss = errors.New("aside: not cached")
	// ErrNotFound is what a loader returns for something that does not exist, as it is or wrapped by an error that wraps nothing
	// else (fmt.Errorf with one %w). It is cached like a value, for the policy's NegativeTTL, and every call that meets such an entry
	// returns what the loader has returned; where its text is longer than 64 KiB, the beginning of that is kept. In memory its text
	// counts, and nothing else that it holds. What was read from Redis is ErrNotFound with the text of that error, up to 1 KiB: of what
	// else it wraps, other processes know nothing. An error that holds several, by errors.Join, two %w or a BatchError, is a failure,
	// though ErrNotFound be among them, and so is a panic with it.
	ErrNotFound = errors.New("aside: not found")
	// ErrClosed is what every call on a closed cache returns.
	ErrClosed = errors.New("aside: cache is closed")
)

// sound returns err, or an error that stands for it where its methods panic or its causes do not end: see guard.Error.
func sound(err error) error {
	return guard.Error(err, func(err error) {
		var own *Error
		_, _ = errors.Is(err, ErrNotFound), errors.As(err, &own)
	})
}

// A Code tells what kind of trouble an Error is.
type Code string

// The codes of Error. Trouble with Redis is a reason to fail for Keys alone.
const (
	CodeInvalidOption   Code = "invalid_option"   // Options, a Policy or the environment is wrong; the message says where
	CodeInvalidArgument Code = "invalid_argument" // a nil cache or loader, an option that does not fit the call
	CodeInvalidKey      Code = "invalid_key"      // a key has a part that is neither a string nor an integer
	CodeInvalidPattern  Code = "invalid_pattern"  // a Pattern cannot be read, or names too much; the message says what to write
	CodeUnavailable     Code = "unavailable"      // Keys could not read what Redis holds; Err is why
	CodeLoadTimeout     Code = "load_timeout"     // the loader was not done within the policy's LoadTimeout; Err is context.DeadlineExceeded
	CodeLoaderPanic     Code = "loader_panic"     // the loader panicked; Stack shows where
	CodeLoaderExit      Code = "loader_exit"      // the loader ended its goroutine with runtime.Goexit
	CodeBackoff         Code = "backoff"          // the last loads failed, one a moment ago; Err is its error, RetryAfter when the next may begin
	CodeOverloaded      Code = "overloaded"       // MaxLoads loads run and MaxQueuedLoads wait: this one was not begun; or an order of the admin API waits for earlier ones: see RetryAfter
	CodeReentrant       Code = "reentrant_load"   // a loader asked, with its own context, for the key that it is loading, or for one whose load waits for it
)

// An Error is trouble that is not the loader's own error; that one is returned as it is.
type Error struct {
	Code    Code
	Key     string // the key that was asked for, where there is one
	Message string // what is wrong and what to do
	Stack   []byte // of a loader that panicked
	Err     error  // the cause, where there is one

	RetryAfter time.Duration // with CodeBackoff: in how long a load may begin again; of an order of the admin API, in how long to send it again
}

// Error gives message, key and cause, never the stack.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("aside: ")
	b.WriteString(e.Message)
	if e.Key != "" {
		fmt.Fprintf(&b, " (key %q)", e.Key)
	}
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches another *Error by its code, so that errors.Is(err, &aside.Error{Code: aside.CodeLoadTimeout}) works.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Key == "" && t.Message == "" && t.Err == nil
}

func invalidOption(format string, args ...any) error {
	return &Error{Code: CodeInvalidOption, Message: fmt.Sprintf(format, args...)}
}

func invalidArgument(message string) error {
	return &Error{Code: CodeInvalidArgument, Message: message}
}

// callError makes of an error of the load path what a caller gets. The loader's own error passes unchanged.
func callError(err error, key string) error {
	// Not errors.As and errors.Is: a loader's own error may wrap that of another load, made inside it.
	switch e := err.(type) {
	case *engine.Error:
		own := &Error{Code: Code(e.Code), Key: e.Key, Message: e.Message, Err: e.Err, RetryAfter: e.RetryAfter}
		if own.Code == CodeInvalidArgument {
			own.Err = concealed(callError(e.Err, ""))
		}
		return own
	case *flight.PanicError:
		return &Error{Code: CodeLoaderPanic, Key: key, Message: "the loader panicked", Stack: e.Stack, Err: unmistakable(e)}
	}
	switch err {
	case flight.ErrTimeout:
		return &Error{Code: CodeLoadTimeout, Key: key, Message: "the load took longer than the policy's LoadTimeout", Err: context.DeadlineExceeded}
	case flight.ErrGoexit:
		return &Error{Code: CodeLoaderExit, Key: key, Message: "the loader ended its goroutine: return an error instead of calling runtime.Goexit or t.FailNow"}
	}
	return err
}

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

// A toldAbsence is ErrNotFound with the text of the error that a loader, in this process or another, has wrapped it in.
// It is the engine's, so that every hit on it returns the same error.
type toldAbsence engine.AbsenceText

func (e *toldAbsence) Error() string { return e.Text }

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

// absenceOf is the error of a "not found".
func absenceOf(out engine.Outcome) error {
	if out.Absent == nil {
		return ErrNotFound
	}
	if told, ok := out.Absent.(*engine.AbsenceText); ok {
		return (*toldAbsence)(told)
	}
	return out.Absent
}
