package redisstore

import (
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// closeWait is how long a connection may take to close.
const closeWait = time.Second

// A guarded connection is the user's own, or calls back functions of the user's. Its methods return an error where those panic,
// and it is closed in time: rueidis reports a broken connection only after it has closed it. Nothing is written while it is being
// closed: rueidis ends its writer by a command that cannot be written.
type guarded struct {
	net.Conn
	replies  *firstReplies // of the client that is being made; may be nil
	sentinel bool          // it goes to a Sentinel
	received atomic.Bool   // something was read
	closed   atomic.Bool   // closed, or being closed
}

func (c *guarded) Read(p []byte) (n int, err error) {
	defer caught(&n, len(p), &err)
	n, err = c.Conn.Read(p)
	if c.replies != nil && n > 0 && n <= len(p) && !c.received.Swap(true) {
		c.replies.note(p[:n], c.sentinel)
	}
	return n, err
}

func (c *guarded) Write(p []byte) (n int, err error) {
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	defer caught(&n, len(p), &err)
	n, err = c.Conn.Write(p)
	if c.replies != nil && isClosed(err) && !c.received.Load() {
		if last := c.finalError(); isAlert(last) {
			err = last
		}
	}
	return n, err
}

// finalWait is how long a connection is read from when nothing can be written to it any more.
const finalWait = 100 * time.Millisecond

// finalError reads what the other end has sent before it closed a connection from which nothing has been read. rueidis does not
// read what has arrived when it fails to write:
//
//  1. In TLS 1.3 the client's handshake is over before the server has checked its certificate. A server with too many clients does not
//     wait for a command.
//  2. The server sends an alert or an error of its own, and closes the connection.
//  3. The client's first write fails if it comes after that, and succeeds if it comes before.
//
// Either way the error is then the same.
func (c *guarded) finalError() error {
	result := make(chan error, 1)
	go func() {
		err := errConnection
		defer func() { result <- err }()
		defer caught(new(int), 0, &err)
		if err = c.SetReadDeadline(time.Now().Add(finalWait)); err == nil {
			_, err = c.Read(make([]byte, 512))
		}
	}()
	t := time.NewTimer(finalWait)
	defer t.Stop()
	select {
	case err := <-result:
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
	apart(func() error { return c.SetDeadline(time.Now()) }) // so that at least a pending read returns
	return errConnection
}

var errConnection = errors.New("the connection has panicked, or cannot be closed")

// caught is deferred: it turns a panic, or an impossible number of bytes, into an error.
func caught(n *int, most int, err *error) {
	if recover() != nil || *n < 0 || *n > most {
		*n, *err = 0, errConnection
	}
}

// firstReplies are the first bytes from the connections of a client. rueidis does not report them where a connection is closed
// before all its initial commands are answered: a server with too many clients sends an error, and closes the connection.
type firstReplies struct {
	mu       sync.Mutex
	refusal  string // the server's error; guarded by mu
	sentinel bool   // refusal is a Sentinel's; guarded by mu
	foreign  bool   // something was no reply of Redis; guarded by mu
}

// ofSentinel reports whether the last error was a Sentinel's, with this code.
func (w *firstReplies) ofSentinel(code string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sentinel && strings.HasPrefix(w.refusal, code)
}

func (w *firstReplies) note(text []byte, sentinel bool) {
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

// explain adds to err what the first replies say.
func (w *firstReplies) explain(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case classOf(err) != failure:
	case w.foreign:
		return errors.Join(errOtherProtocol, err)
	case w.refusal != "" && isClosed(err):
		return &closeReason{w.refusal, err}
	}
	return err
}
