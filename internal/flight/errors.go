package flight

import (
	"context"
	"errors"
	"fmt"
	"reflect"
)

// Errors that end a call without a result of the load's own.
var (
	// ErrTimeout means that the time limit passed before the load returned.
	ErrTimeout = errors.New("load timed out")
	// ErrGoexit means that the load ended its goroutine with runtime.Goexit.
	ErrGoexit = errors.New("loader called runtime.Goexit")
	// ErrUnresolved means that the load returned without a result for the key.
	ErrUnresolved = errors.New("loader returned without a result")

	errAbandoned = errors.New("every caller has left")
	errLanded    = errors.New("load has ended")
)

// A PanicError is the result of a call whose load panicked.
type PanicError struct {
	Value any    // the argument of panic
	Stack []byte // the stack of the goroutine that panicked
}

// Error returns the panic's value without its stack.
func (e *PanicError) Error() string { return "loader panicked: " + Text(e.Value) }

// Unwrap returns the panic's value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Text formats the argument of a panic for a reader. It does not format the contents of a value of a composite type. Such a value may
// contain itself, and formatting it would overflow the stack, which ends the process.
func Text(panicked any) string {
	switch panicked.(type) {
	case error, fmt.Stringer:
		return fmt.Sprint(panicked)
	}
	switch reflect.ValueOf(panicked).Kind() {
	case reflect.Struct, reflect.Map, reflect.Slice, reflect.Array, reflect.Pointer:
		return fmt.Sprintf("a value of type %T", panicked)
	}
	return fmt.Sprint(panicked)
}

// EndOf returns the error of a context that has ended. A context may end with a nil error, by a mistake of its author. EndOf then
// returns context.Canceled, because a nil error would stand for success.
func EndOf(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return context.Canceled
}
