package redisstore

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

type dialFn = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error)

// dialer returns what rueidis would dial with. It returns when its context ends, whatever a function of the user's does: none of
// those has to know a context, or to heed it.
func dialer(opt rueidis.ClientOption) dialFn {
	switch {
	case opt.DialCtxFn != nil:
		return bounded(opt.DialCtxFn)
	case opt.DialFn != nil:
		return bounded(func(_ context.Context, dst string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
			return opt.DialFn(dst, d, config)
		})
	}
	return func(ctx context.Context, dst string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
		if config != nil {
			return (&tls.Dialer{NetDialer: d, Config: config}).DialContext(ctx, "tcp", dst)
		}
		return d.DialContext(ctx, "tcp", dst)
	}
}

// bounded is dial, but returns when its context ends. A connection that comes later is closed.
func bounded(dial dialFn) dialFn {
	type dialled struct {
		conn net.Conn
		err  error
	}
	return func(ctx context.Context, dst string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
		result := make(chan dialled, 1)
		go func() {
			conn, err := dial(ctx, dst, d, config)
			result <- dialled{conn, err}
		}()
		select {
		case r := <-result:
			return r.conn, r.err
		case <-ctx.Done():
		}
		go func() {
			if r := <-result; r.err == nil {
				r.conn.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// atLeast is a time limit for a dial: the one that is set, or else the default.
func atLeast(timeout time.Duration) time.Duration {
	if timeout > 0 {
		return timeout
	}
	return dialTimeout
}

// told is dial with connections that tell when they are closed, and where they went.
func told(dial dialFn, closed func(dst string)) dialFn {
	return func(ctx context.Context, dst string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
		conn, err := dial(ctx, dst, d, config)
		if err != nil {
			return nil, err
		}
		return &closing{conn, func() { closed(dst) }}, nil
	}
}

// A closing connection tells when it is closed.
type closing struct {
	net.Conn
	closed func()
}

func (c *closing) Close() error {
	c.closed()
	return c.Conn.Close()
}

// unreached are addresses at which nobody could be reached when they were tried last. Those are tried last the next time: a Sentinel
// on a host that is gone costs the time limit of a dial.
type unreached struct {
	mu    sync.Mutex
	addrs map[string]bool // guarded by mu
}

func (u *unreached) note(addr string, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == nil {
		delete(u.addrs, addr)
		return
	}
	if u.addrs == nil {
		u.addrs = make(map[string]bool)
	}
	if len(u.addrs) < mostUnreached {
		u.addrs[addr] = true
	}
}

const mostUnreached = 64

// last returns a copy of addrs with those at the end that could not be reached.
func (u *unreached) last(addrs []string) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var first, last []string
	for _, addr := range addrs {
		if u.addrs[addr] {
			last = append(last, addr)
		} else {
			first = append(first, addr)
		}
	}
	return append(first, last...)
}
