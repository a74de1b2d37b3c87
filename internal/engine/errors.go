package engine

import (
	"errors"
	"time"

	"github.com/gatewayz/aside/internal/guard"
)

// A Code says what kind of error an Error is. The root package has a code with the same text for each.
type Code string

// The codes of Error.
const (
	CodeInvalidArgument Code = "invalid_argument"
	CodeBackoff         Code = "backoff"
	CodeOverloaded      Code = "overloaded"
	CodeReentrant       Code = "reentrant_load"
	CodeUnavailable     Code = "unavailable"
)

// An Error is an error that is not the loader's own. The root package turns it into the error for a caller.
type Error struct {
	Code       Code
	Key        string
	Message    string
	Err        error         // the cause, where there is one
	RetryAfter time.Duration // with CodeBackoff
}

// Error returns message and cause.
func (e *Error) Error() string {
	if e.Err != nil {
		return "aside: " + e.Message + ": " + e.Err.Error()
	}
	return "aside: " + e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func invalidArgument(message string) error {
	return &Error{Code: CodeInvalidArgument, Message: message}
}

func isInvalid(err error) bool {
	var own *Error
	return errors.As(err, &own) && own.Code == CodeInvalidArgument
}

// safePanic returns the error of a panic. The value of the panic may be an error whose methods panic themselves: see guard.Error.
func safePanic(p error) error {
	return guard.Error(p, func(err error) {
		var own *Error
		_, _ = errors.Is(err, errOutdated), errors.As(err, &own)
	})
}
