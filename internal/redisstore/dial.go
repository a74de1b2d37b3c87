package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"github.com/gatewayz/aside/internal/guard"
	"github.com/redis/rueidis"
)

type dialFn = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error)

// dialer returns the function that rueidis dials with. It returns when its context ends, whatever a function of the user's does:
// such a function does not have to take a context, or to heed it.
func dialer(opt rueidis.ClientOption, hanging *guard.Hanging) dialFn {
	switch {
	case opt.DialCtxFn != nil:
		return hooked("Options.Redis.DialCtxFn", bounded(hanging, opt.DialCtxFn))
	case opt.DialFn != nil:
		return hooked("Options.Redis.DialFn", bounded(hanging, func(_ context.Context, dst string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
			return opt.DialFn(dst, d, config)
		}))
	}
	return bounded(hanging, func(ctx context.Context, dst string, d *net.Dialer, config *tls.Config) (net.Conn, error) { // a Dialer may call functions of the user's too
		conn, err := d.DialContext(ctx, "tcp", dst)
		if err == nil && opt.DisableTCPNoDelay { // rueidis would do this if it had the connection itself
			if c, ok := conn.(*net.TCPConn); ok {
				err = c.SetNoDelay(false)
			}
		}
		if err != nil || config == nil {
			return conn, err
		}
		return shakeHands(ctx, conn, dst, config)
	})
}

// shakeHands is what tls.Dialer does, but closes the connection where a callback panics.
func shakeHands(ctx context.Context, plain net.Conn, dst string, config *tls.Config) (net.Conn, error) {
	done := false
	defer func() {
		if !done {
			plain.Close()
		}
	}()
	if config.ServerName == "" {
		config = config.Clone()
		config.ServerName, _, _ = net.SplitHostPort(dst)
	}
	conn := tls.Client(plain, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, &errNoHandshake{err}
	}
	done = true
	return conn, nil
}

// bounded is dial, but returns when its context ends, and fails where dial panics, ends its goroutine, or returns nothing. A
// connection that comes later is closed. While several dials are overdue there is no further one: each keeps a goroutine.
func bounded(hanging *guard.Hanging, dial dialFn) dialFn {
	type dialled struct {
		conn net.Conn
		err  error
	}
	return func(ctx context.Context, dst string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
		if hanging.Full(dst) {
			return nil, errHanging
		}
		result := make(chan dialled, 1)
		go func() {
			r := dialled{err: errNoConnection}
			defer func() {
				if recover() != nil || r.conn == nil && r.err == nil {
					r = dialled{err: errNoConnection}
				} else if r.err == nil {
					r.conn = &guarded{Conn: r.conn}
				}
				result <- r
			}()
			r.conn, r.err = dial(ctx, dst, d, config)
		}()
		select {
		case r := <-result:
			return r.conn, r.err
		case <-ctx.Done():
		}
		heeds := time.NewTimer(heedWait) // dial may return a better error
		defer heeds.Stop()
		select {
		case r := <-result:
			return r.conn, r.err
		case <-heeds.C:
		}
		hanging.Note(dst, 1)
		go func() {
			r := <-result
			hanging.Note(dst, -1)
			if r.err == nil {
				r.conn.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// heedWait is how long a dial may take to return once its context has ended.
const heedWait = 50 * time.Millisecond

var errHanging = errors.New("the dialer is not called again: earlier calls of it have not returned")

var errNoConnection = errors.New("the dialer has panicked, or returned nothing")

// atLeast is the time limit of a dial: the one that is set, or else the default.
func atLeast(timeout time.Duration) time.Duration {
	if timeout > 0 {
		return timeout
	}
	return dialTimeout
}

// onClose is dial, but its connections call closed with their address when they are closed.
func onClose(dial dialFn, closed func(dst string)) dialFn {
	return func(ctx context.Context, dst string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
		conn, err := dial(ctx, dst, d, config)
		if err != nil {
			return nil, err
		}
		return &closeNotifier{conn, func() { closed(dst) }}, nil
	}
}

// A closeNotifier is a connection that reports when it is closed.
type closeNotifier struct {
	net.Conn
	closed func()
}

func (c *closeNotifier) Close() error {
	c.closed()
	return c.Conn.Close()
}
