package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/guard"
	"github.com/redis/rueidis"
)

type dialFn = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error)

// dialer returns what rueidis would dial with. It returns when its context ends, whatever a function of the user's does: none of
// those has to know a context, or to heed it.
func dialer(opt rueidis.ClientOption, hanging *guard.Hanging) dialFn {
	switch {
	case opt.DialCtxFn != nil:
		return hooked("Options.Redis.DialCtxFn", bounded(hanging, opt.DialCtxFn))
	case opt.DialFn != nil:
		return hooked("Options.Redis.DialFn", bounded(hanging, func(_ context.Context, dst string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
			return opt.DialFn(dst, d, config)
		}))
	}
	return bounded(hanging, func(ctx context.Context, dst string, d *net.Dialer, config *tls.Config) (net.Conn, error) { // which may call back too
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
		return nil, &errNoHandshake{err}
	}
	done = true
	return conn, nil
}

// bounded is dial, but returns when its context ends, and fails where it panics, ends its goroutine, or returns nothing. A connection
// that comes later is closed. While several dials have not returned that should have, there is no further one: each keeps a goroutine.
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
		heeds := time.NewTimer(heedWait) // it may know better why
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

// closeWait is how long a connection may take to close.
const closeWait = time.Second

// A guarded connection is the program's own, or calls back what is. It fails where that panics, and is closed in time: the client
// library tells nobody that a connection has broken before it has closed it. Nothing is written once it is being closed: the client
// library ends its writer by a command that cannot be written.
type guarded struct {
	net.Conn
	words    *firstWords // of the client, while it is being made; may be nil
	sentinel bool        // it goes to a Sentinel
	heard    atomic.Bool // something has come
	closed   atomic.Bool // closed, or asked to
}

func (c *guarded) Read(p []byte) (n int, err error) {
	defer caught(&n, len(p), &err)
	n, err = c.Conn.Read(p)
	if c.words != nil && n > 0 && n <= len(p) && !c.heard.Swap(true) {
		c.words.note(p[:n], c.sentinel)
	}
	return n, err
}

// firstWords are what the connections of a client have begun with. The client library does not tell, where a connection is closed
// before all is answered that it has sent to begin with: a server that has too many clients says so, and closes it.
type firstWords struct {
	mu       sync.Mutex
	refusal  string // the server's error; guarded by mu
	sentinel bool   // it was a Sentinel's; guarded by mu
	foreign  bool   // something else than a reply of Redis; guarded by mu
}

// ofSentinel reports whether it was a Sentinel that has answered with an error of this code last.
func (w *firstWords) ofSentinel(code string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sentinel && strings.HasPrefix(w.refusal, code)
}

func (w *firstWords) note(text []byte, sentinel bool) {
	const longest = 200
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case text[0] == '-':
		line, _, _ := strings.Cut(string(text[1:min(len(text), longest)]), "\r\n")
		w.refusal, w.sentinel = line, sentinel
	case !strings.ContainsRune("+:$*%~_,#(!=|>", rune(text[0])):
		w.foreign = true
	}
}

// explain is why a client could not be made, by what its connections have begun with.
func (w *firstWords) explain(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case classOf(err) != failure:
	case w.foreign:
		return errors.Join(errOtherProtocol, err)
	case w.refusal != "" && isClosed(err):
		return &farewell{w.refusal, err}
	}
	return err
}

func (c *guarded) Write(p []byte) (n int, err error) {
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	defer caught(&n, len(p), &err)
	n, err = c.Conn.Write(p)
	if c.words != nil && isClosed(err) && !c.heard.Load() {
		if last := c.lastWords(); isAlert(last) {
			err = last
		}
	}
	return n, err
}

// lastWait is how long a connection is read from to which nothing can be written any more.
const lastWait = 100 * time.Millisecond

// lastWords reads what the other end has said before it closed the connection, of which nothing has been read. The client library does
// not read what has come when it fails to write:
//  1. In TLS 1.3 the client's handshake is over before the server has seen its certificate. A server that has too many clients does not
//     wait for any command.
//  2. The server says what it has against the client, by an alert or an error of its own, and closes the connection.
//  3. The client's first write fails where it comes after that, and is a success where it comes before.
//
// Either way the same is said of it.
func (c *guarded) lastWords() error {
	said := make(chan error, 1)
	go func() {
		err := errConnection
		defer func() { said <- err }()
		defer caught(new(int), 0, &err)
		if err = c.SetReadDeadline(time.Now().Add(lastWait)); err == nil {
			_, err = c.Read(make([]byte, 512))
		}
	}()
	t := time.NewTimer(lastWait)
	defer t.Stop()
	select {
	case err := <-said:
		return err
	case <-t.C:
		return nil
	}
}

func (c *guarded) Close() error {
	c.closed.Store(true)
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
