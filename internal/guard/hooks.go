package guard

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/flight"
)

// Hooks returns the options of a client with the program's functions for connections replaced by ones that fail where those panic,
// end their goroutine or do not return in time. The functions are called on goroutines of rueidis and of the connector. check
// replaces an error that the connector cannot use: see Error.
func Hooks(r rueidis.ClientOption, check func(error) error) rueidis.ClientOption {
	if dial := r.DialFn; dial != nil {
		h := hook{check: check}
		r.DialFn = func(addr string, d *net.Dialer, c *tls.Config) (net.Conn, error) {
			return call(&h, addr, func() (net.Conn, error) { return dial(addr, d, c) })
		}
	}
	if dial := r.DialCtxFn; dial != nil {
		h := hook{check: check}
		r.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, c *tls.Config) (net.Conn, error) {
			return call(&h, addr, func() (net.Conn, error) { return dial(ctx, addr, d, c) })
		}
	}
	if credentials := r.AuthCredentialsFn; credentials != nil {
		h := hook{check: check}
		r.AuthCredentialsFn = func(of rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
			return call(&h, "", func() (rueidis.AuthCredentials, error) { return credentials(of) })
		}
	}
	return r
}

// hookTimeout is how long the connector waits for a function of the program's that knows no context, such as one that asks for
// credentials. After that it makes another attempt.
const hookTimeout = 10 * time.Second

var (
	errHanging = errors.New("it is not called again: earlier calls of it have not returned")
	errExit    = errors.New("it ended its goroutine")
	errTimeout = errors.New("it has not returned in time")
)

type hook struct {
	hanging Hanging
	check   func(error) error
}

// call runs a function of the program's on a goroutine of its own, which the function may end. A connection that it returns too late
// is closed.
func call[T any](h *hook, addr string, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	if h.hanging.Full(addr) {
		return none, errHanging
	}
	done := make(chan result, 1)
	var settled atomic.Bool // it has returned, or its time is up
	go func() {
		r := result{err: errExit}
		defer func() {
			if p := recover(); p != nil {
				r = result{err: h.check(&flight.PanicError{Value: p, Stack: debug.Stack()})}
			}
			done <- r
			if settled.Swap(true) {
				h.hanging.Note(addr, -1)
				if conn, ok := any(r.value).(net.Conn); ok && r.err == nil {
					defer func() { _ = recover() }()
					conn.Close()
				}
			}
		}()
		value, err := f()
		r = result{value, h.check(err)}
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
	h.hanging.Note(addr, 1)
	return none, errTimeout
}
