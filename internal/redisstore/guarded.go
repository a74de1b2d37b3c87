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

// A guarded connection is the program's own, or calls back what is. It fails where that panics, and is closed in time: the client
// library tells nobody that a connection has broken before it has closed it. Nothing is written once it is being closed: the client
// library ends its writer by a command that cannot be written.
type guarded struct {
	net.Conn
	replies  *firstReplies // of the client, while it is being made; may be nil
	sentinel bool          // it goes to a Sentinel
	received atomic.Bool   // something has come
	closed   atomic.Bool   // closed, or asked to
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

// lastWait is how long a connection is read from to which nothing can be written any more.
const finalWait = 100 * time.Millisecond

// lastWords reads what the other end has said before it closed the connection, of which nothing has been read. The client library does
// not read what has come when it fails to write:
//  1. In TLS 1.3 the client's handshake is over before the server has seen its certificate. A server that has too many clients does not
//     wait for any command.
//  2. The server says what it has against the client, by an alert or an error of its own, and closes the connection.
//  3. The client's first write fails where it comes after that, and is a success where it comes before.
//
// Either way the same is said of it.
func (c *guarded) finalError() error {
	said := make(chan error, 1)
	go func() {
		err := errConnection
		defer func() { said <- err }()
		defer caught(new(int), 0, &err)
		if err = c.SetReadDeadline(time.Now().Add(finalWait)); err == nil {
			_, err = c.Read(make([]byte, 512))
		}
	}()
	t := time.NewTimer(finalWait)
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

// firstWords are what the connections of a client have begun with. The client library does not tell, where a connection is closed
// before all is answered that it has sent to begin with: a server that has too many clients says so, and closes it.
type firstReplies struct {
	mu       sync.Mutex
	refusal  string // the server's error; guarded by mu
	sentinel bool   // it was a Sentinel's; guarded by mu
	foreign  bool   // something else than a reply of Redis; guarded by mu
}

// ofSentinel reports whether it was a Sentinel that has answered with an error of this code last.
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

// explain is why a client could not be made, by what its connections have begun with.
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
