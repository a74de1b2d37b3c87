package engine

import (
	"errors"
	"time"

	"github.com/gatewayz/aside/internal/guard"
)

// A Code tells what kind of trouble an Error is. The package above has a code with the same text for each.
type Code string

// The codes of Error.
const (
	CodeInvalidArgument Code = "invalid_argument"
	CodeBackoff         Code = "backoff"
	CodeOverloaded      Code = "overloaded"
	CodeReentrant       Code = "reentrant_load"
)

// An Error is trouble that is not the loader's own error. The package above makes of it what a caller gets.
type Error struct {
	Code       Code
	Key        string
	Message    string
	Err        error         // the cause, where there is one
	RetryAfter time.Duration // with CodeBackoff
}

// Error gives message and cause.
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

// soundPanic is the error of a panic, whose value may be an error with methods that panic themselves.
func soundPanic(p error) error {
	return guard.Error(p, func(err error) {
		var own *Error
		_, _ = errors.Is(err, errOutdated), errors.As(err, &own)
	})
}
