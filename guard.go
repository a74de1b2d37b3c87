package aside

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/causes"
	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/redisstore"
)

// What the program brings runs where a panic would end the process: dialers and errors here, codecs in internal/wire, the Logger's
// handler in internal/logs, loaders in internal/flight, OnInvalidated in told.go.

// sound returns err, or an error that stands for it where its methods panic, as those of a nil pointer in the interface do. It is
// for errors that are looked at later, on a goroutine where nobody expects that.
func sound(err error) (good error) {
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
	// As what follows may look at it: through the whole chain.
	var own *Error
	_, _ = errors.Is(err, ErrNotFound), errors.As(err, &own)
	_ = err.Error()
	return err
}

// A steady context is one of the program's own where the standard library derives another one from it: that looks at it on a goroutine
// of its own, and panics there where the context does, or ends without an error.
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

// apart runs a function of the program's on a goroutine of its own, which it may end. A connection that it returns too late is closed.
func apart[T any](h *redisstore.Hanging, addr string, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	if h.Full(addr) {
		return none, errHanging
	}
	done := make(chan result, 1)
	var settled atomic.Bool // it has returned, or its time is up
	go func() {
		r := result{err: errors.New("it ended its goroutine")}
		defer func() {
			if p := recover(); p != nil {
				r = result{err: sound(&flight.PanicError{Value: p, Stack: debug.Stack()})}
			}
			done <- r
			if settled.Swap(true) {
				h.Note(addr, -1)
				if conn, ok := any(r.value).(net.Conn); ok && r.err == nil {
					defer func() { _ = recover() }()
					conn.Close()
				}
			}
		}()
		value, err := f()
		r = result{value, sound(err)}
	}()
	t := time.NewTimer(hookTimeout)
	defer t.Stop()
	select {
	case r := <-done:
		return r.value, r.err
	case <-t.C:
	}
	if settled.Swap(true) {
		r := <-done // at the same moment
		return r.value, r.err
	}
	h.Note(addr, 1)
	return none, errors.New("it has not returned in time")
}

var errHanging = errors.New("it is not called again: earlier calls of it have not returned")

// hookTimeout is how long the connector waits for a function of the program's that knows no context: one that asks for credentials,
// say. Another attempt is made then.
const hookTimeout = 10 * time.Second

// guardHooks has what the program brings for connections fail where it panics. It is called on goroutines of rueidis and of the
// connector.
func guardHooks(r rueidis.ClientOption) rueidis.ClientOption {
	if dial := r.DialFn; dial != nil {
		h := new(redisstore.Hanging)
		r.DialFn = func(addr string, d *net.Dialer, c *tls.Config) (net.Conn, error) {
			return apart(h, addr, func() (net.Conn, error) { return dial(addr, d, c) })
		}
	}
	if dial := r.DialCtxFn; dial != nil {
		h := new(redisstore.Hanging)
		r.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, c *tls.Config) (net.Conn, error) {
			return apart(h, addr, func() (net.Conn, error) { return dial(ctx, addr, d, c) })
		}
	}
	if credentials := r.AuthCredentialsFn; credentials != nil {
		h := new(redisstore.Hanging)
		r.AuthCredentialsFn = func(of rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
			return apart(h, "", func() (rueidis.AuthCredentials, error) { return credentials(of) })
		}
	}
	return r
}
