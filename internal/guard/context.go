package guard

import (
	"context"

	"github.com/gatewayz/aside/internal/flight"
)

// Context returns a context of the program's own for the standard library to derive another one from. The standard library calls its
// methods on a goroutine of its own, and panics there where the context panics or ends without an error. The context that is returned
// does neither: where a method panics, it has ended.
func Context(ctx context.Context) context.Context { return steady{ctx} }

type steady struct{ context.Context }

func (s steady) Done() (done <-chan struct{}) {
	defer func() {
		if recover() != nil {
			done = closedChannel
		}
	}()
	return s.Context.Done()
}

func (s steady) Err() (err error) {
	defer func() {
		if recover() != nil {
			err = context.Canceled
		}
	}()
	select {
	case <-s.Done():
		return flight.EndOf(s.Context)
	default:
		return s.Context.Err()
	}
}

var closedChannel = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()
