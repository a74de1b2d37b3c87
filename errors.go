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

// Errors to test for with errors.Is.
var (
	// ErrMiss is the error of Get for a key that is not cached.
	ErrMiss = errors.New("aside: not cached")
	// ErrNotFound is the error that a loader returns for something that does not exist: plain, or wrapped by an error that wraps nothing
	// else (fmt.Errorf with one %w). It is cached for the policy's NegativeTTL, and a hit returns the loader's error. Of a text longer than
	// 64 KiB the beginning is kept. The text counts for MaxBytes, and nothing else that the error holds. In Redis the text is stored, up
	// to 1 KiB: other processes return ErrNotFound with that text, and without other wrapped errors. An error that wraps several errors, by
	// errors.Join, two %w or a BatchError, is a failure even if ErrNotFound is among them, and so is a panic with ErrNotFound. For errors of a
	// library, such as sql.ErrNoRows, see Policy.NotFound.
	ErrNotFound = errors.New("aside: not found")
	// ErrNotModified is the error that a loader returns, plain or wrapped like ErrNotFound, if its source says that the cached value is still
	// right: see Previous. The cached value counts as loaded anew. A batch loader returns it for an id in its BatchError. If there is no
	// previous value, the load fails.
	ErrNotModified = errors.New("aside: not modified")
	// ErrClosed is the error of every call on a closed cache, and of calls that wait for a load while the cache is closed.
	ErrClosed = errors.New("aside: cache is closed")

	// ErrLoadTimeout, ErrBackoff, ErrOverloaded and ErrUnavailable match each *Error with CodeLoadTimeout, CodeBackoff, CodeOverloaded or
	// CodeUnavailable. errors.As gets the *Error itself, with its RetryAfter.
	ErrLoadTimeout error = codeError(CodeLoadTimeout)
	ErrBackoff     error = codeError(CodeBackoff)
	ErrOverloaded  error = codeError(CodeOverloaded)
	ErrUnavailable error = codeError(CodeUnavailable)
)

// A codeError matches each *Error with its code.
type codeError Code

func (e codeError) Error() string { return "aside: " + string(e) }

// sound returns err, or a replacement if methods of err panic or its causes do not end: see guard.Error.
func sound(err error) error { return soundFor(err, nil) }

// soundFor is sound for an error that may be one of the names in Policy.NotFound.
func soundFor(err error, names []error) error {
	return guard.Error(err, func(err error) {
		var own *Error
		_, _, _ = errors.Is(err, ErrNotFound), errors.Is(err, ErrNotModified), errors.As(err, &own)
		for _, name := range names {
			_ = errors.Is(err, name)
		}
	})
}

// A Code is the kind of an Error.
type Code string

// The codes of Error. Failures of Redis are errors of Keys, of Inspect and of Receipt.Replicated alone.
const (
	CodeInvalidOption   Code = "invalid_option"   // Options, a Policy or the environment is wrong; the message says where
	CodeInvalidArgument Code = "invalid_argument" // a nil cache or loader, an option that does not fit the call
	CodeInvalidKey      Code = "invalid_key"      // a key part is neither a string nor an integer, the zero Key, or a text that ParseKey refuses
	CodeInvalidPattern  Code = "invalid_pattern"  // a Pattern cannot be parsed, or covers more than one category; the message says what to write
	CodeUnavailable     Code = "unavailable"      // Keys or Inspect could not read Redis, or Replicated does not know the state of the replicas; Err is why. Or Warm has lost the lease of its Name
	CodeLoadTimeout     Code = "load_timeout"     // the load took longer than the policy's LoadTimeout; Err is context.DeadlineExceeded
	CodeLoaderPanic     Code = "loader_panic"     // the loader panicked; Stack shows where
	CodeLoaderExit      Code = "loader_exit"      // the loader ended its goroutine with runtime.Goexit
	CodeBackoff         Code = "backoff"          // the key is in backoff after failed loads; Err is the last error, RetryAfter the time until the next load
	CodeOverloaded      Code = "overloaded"       // MaxLoads loads run and MaxQueuedLoads are queued, or too many loaders have not returned after their LoadTimeout; or, in the admin API, too many invalidations are pending: see RetryAfter
	CodeReentrant       Code = "reentrant_load"   // a loader called the cache, with its own context, for the key it is loading, or for a key whose load waits for that
)

// An Error is an error of the cache. A loader's own error is returned unchanged.
type Error struct {
	Code    Code
	Key     string // the key of the call, if there is one
	Message string // what is wrong and what to do
	Stack   []byte // of a loader that panicked
	Err     error  // the cause, if there is one

	RetryAfter time.Duration // with CodeBackoff the time until the next load; in the admin API the time until a retry
}

// Error returns message, key and cause, without the stack.
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

// Is matches another *Error by its code, so that errors.Is(err, &aside.Error{Code: aside.CodeLoaderPanic}) works. For the codes that callers decide
// on there are errors to match: ErrLoadTimeout, ErrBackoff, ErrOverloaded and ErrUnavailable.
func (e *Error) Is(target error) bool {
	switch t := target.(type) {
	case codeError:
		return Code(t) == e.Code
	case *Error:
		return t.Code == e.Code && t.Key == "" && t.Message == "" && t.Err == nil
	}
	return false
}

func invalidOption(format string, args ...any) error {
	return &Error{Code: CodeInvalidOption, Message: fmt.Sprintf(format, args...)}
}

func invalidArgument(message string) error {
	return &Error{Code: CodeInvalidArgument, Message: message}
}

// callError turns an error of the engine into the error for a caller. A loader's own error is returned unchanged.
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
		return &Error{Code: CodeLoaderPanic, Key: key, Message: "the loader panicked", Stack: e.Stack, Err: asFailure(e)}
	}
	switch err {
	case flight.ErrTimeout:
		return &Error{Code: CodeLoadTimeout, Key: key, Message: "load exceeded the policy's LoadTimeout", Err: context.DeadlineExceeded}
	case flight.ErrGoexit:
		return &Error{Code: CodeLoaderExit, Key: key, Message: "the loader ended its goroutine: return an error instead of calling runtime.Goexit or t.FailNow"}
	}
	return err
}

// isPlainly reports whether a loader's error is ErrNotFound, ErrNotModified or one of Policy.NotFound, plain or wrapped by errors that each wrap one
// error. An error that wraps several, as errors.Join makes, contains a failure too, and a failure must not be cached as "not found". A panic is a
// failure, whatever its value is.
func isPlainly(err, answer error) bool {
	for err != nil {
		if err == answer {
			return true
		}
		switch e := err.(type) {
		case *flight.PanicError:
			return false
		case interface{ Is(target error) bool }:
			if e.Is(answer) {
				return true
			}
		}
		one, ok := err.(interface{ Unwrap() error })
		if !ok {
			return false
		}
		err = one.Unwrap()
	}
	return false
}

// A namedAbsence is a loader's error that is one of Policy.NotFound. It matches ErrNotFound too.
type namedAbsence struct {
	err  error
	name error // the one of Policy.NotFound
}

func (e *namedAbsence) Error() string { return e.err.Error() }

func (e *namedAbsence) Unwrap() error { return e.err }

func (e *namedAbsence) Is(target error) bool { return target == ErrNotFound }

// Name returns the error of Policy.NotFound, for the engine.
func (e *namedAbsence) Name() error { return e.name }

// named returns a loader's error that is plainly one of names, so that it matches ErrNotFound too; any other error as it is.
func named(err error, names []error) error {
	for _, name := range names {
		if !isPlainly(err, name) {
			continue
		}
		if a, ok := err.(*namedAbsence); ok && a.name == name {
			return err // of a load inside the loader
		}
		return &namedAbsence{err, name}
	}
	return err
}

// A textAbsence is ErrNotFound with the text of a loader's error. The loader may have run in another process. It is the engine's own value, so
// that every hit on it returns the same error.
type textAbsence engine.AbsenceText

func (e *textAbsence) Error() string { return e.Text }

func (e *textAbsence) Unwrap() error { return ErrNotFound }

// Is and As match the error of Policy.NotFound that the loader has returned.
func (e *textAbsence) Is(target error) bool { return e.Name != nil && errors.Is(e.Name, target) }

func (e *textAbsence) As(target any) bool { return e.Name != nil && errors.As(e.Name, target) }

// asFailure returns a panic that callers do not take for ErrNotFound or ErrMiss.
func asFailure(p *flight.PanicError) *flight.PanicError {
	if errors.Is(p, ErrNotFound) || errors.Is(p, ErrMiss) {
		return &flight.PanicError{Value: p.Value.(error).Error(), Stack: p.Stack}
	}
	return p
}

// concealed returns err, or an error with its text alone if callers would take err for ErrNotFound or ErrMiss. It is for errors of codecs: the
// value is there, and the codec may have found something else missing.
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
	if absent, ok := out.Absent.(*engine.AbsenceText); ok {
		return (*textAbsence)(absent)
	}
	return out.Absent
}
