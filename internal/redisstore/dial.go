package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
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
	return bounded(func(ctx context.Context, dst string, d *net.Dialer, config *tls.Config) (net.Conn, error) { // which may call back too
		conn, err := d.DialContext(ctx, "tcp", dst)
		if err == nil && opt.DisableTCPNoDelay { // which rueidis would see to, did it see the connection itself
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

// shakeHands is what tls.Dialer does, but leaves no connection behind where a callback panics.
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
		return nil, err
	}
	done = true
	return conn, nil
}

// bounded is dial, but returns when its context ends, and fails where it panics, ends its goroutine, or returns nothing. A connection
// that comes later is closed.
func bounded(dial dialFn) dialFn {
	type dialled struct {
		conn net.Conn
		err  error
	}
	return func(ctx context.Context, dst string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
		result := make(chan dialled, 1)
		go func() {
			r := dialled{err: errNoConnection}
			defer func() {
				if recover() != nil || r.conn == nil && r.err == nil {
					r = dialled{err: errNoConnection}
				} else if r.err == nil {
					r.conn = &guarded{r.conn}
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
		go func() {
			if r := <-result; r.err == nil {
				r.conn.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

var errNoConnection = errors.New("the dialer has panicked, or returned nothing")

// closeWait is how long a connection may take to close.
const closeWait = time.Second

// A guarded connection is the program's own, or calls back what is. It fails where that panics, and is closed in time: the client
// library tells nobody that a connection has broken before it has closed it.
type guarded struct{ net.Conn }

func (c *guarded) Read(p []byte) (n int, err error) {
	defer caught(&n, len(p), &err)
	return c.Conn.Read(p)
}

func (c *guarded) Write(p []byte) (n int, err error) {
	defer caught(&n, len(p), &err)
	return c.Conn.Write(p)
}

func (c *guarded) Close() error {
	done := make(chan error, 2)
	apart := func(do func() error) {
		go func() {
			err := errConnection
			defer func() { done <- err }()
			defer caught(new(int), 0, &err)
			err = do()
		}()
	}
	apart(c.Conn.Close)
	t := time.NewTimer(closeWait)
	defer t.Stop()
	select {
	case err := <-done:
		return err
	case <-t.C:
	}
	apart(func() error { return c.SetDeadline(time.Now()) }) // so that at least whoever reads comes back
	return errConnection
}

var errConnection = errors.New("the connection has panicked, or cannot be closed")

// caught is deferred: a panic, or a number of bytes that makes no sense, is an error.
func caught(n *int, most int, err *error) {
	if recover() != nil || *n < 0 || *n > most {
		*n, *err = 0, errConnection
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
