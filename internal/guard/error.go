// Package guard stands between the cache and what the program gives to it: errors, contexts, dialers and other functions that may
// panic, end their goroutine or never return, where a panic would end the process. Codecs are guarded in internal/wire, the Logger's
// handler in internal/logs, loaders in internal/flight.
package guard

import (
	"fmt"
	"runtime/debug"

	"github.com/gatewayz/aside/internal/causes"
	"github.com/gatewayz/aside/internal/flight"
)

// Error returns err, or an error that stands for it: where the methods of err panic, as those of a nil pointer in the interface do,
// or where its causes do not end. It is for errors that are used later, on a goroutine where nobody expects a panic. inspect uses err
// as it will be used later, through the whole chain of causes.
func Error(err error, inspect func(error)) (good error) {
	if err == nil {
		return nil
	}
	defer func() {
		if recover() == nil {
			return
		}
		if panicked, ok := err.(*flight.PanicError); ok {
			good = &flight.PanicError{Value: fmt.Sprintf("a %T whose methods panic", panicked.Value), Stack: panicked.Stack}
			return
		}
		good = &flight.PanicError{Value: fmt.Sprintf("an error of type %T, whose methods panic: is it a nil pointer?", err), Stack: debug.Stack()}
	}()
	if !causes.End(err) {
		return &flight.PanicError{Value: fmt.Sprintf("an error of type %T, whose causes do not end: is it one of them?", err), Stack: debug.Stack()}
	}
	inspect(err)
	_ = err.Error()
	return err
}
