package redistest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Error is an error reply, as the server sent it: "WRONGTYPE Operation against…".
type Error string

func (e Error) Error() string { return string(e) }

// Conn is one plain RESP2 connection, for a single goroutine: enough to see what a
// server really holds, and to play a client that keeps to no rules.
type Conn struct {
	// Timeout bounds each Do and Receive; 30 s unless changed.
	Timeout time.Duration

	conn net.Conn
	r    *bufio.Reader
}

// Raw connects to addr, ends the test where that fails, and closes the connection
// when the test ends.
func Raw(t testing.TB, addr string) *Conn {
	t.Helper()
	c, err := dial(addr)
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Dial is [Raw] for who has no test, or whose server may be away.
func Dial(addr string) (*Conn, error) { return dial(addr) }

func dial(addr string) (*Conn, error) {
	conn, err := net.DialTimeout("tcp", addr, 30*time.Second)
	if err != nil {
		return nil, err
	}
	return &Conn{Timeout: 30 * time.Second, conn: conn, r: bufio.NewReader(conn)}, nil
}

// Close closes the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// Do sends one command and returns its reply: a string (simple or bulk), an int64,
// a []any, or nil for an absent value. An error reply is an [Error], returned as the
// error, inside an array as an element. After any other error the connection is of
// no more use.
func (c *Conn) Do(args ...string) (any, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.Timeout)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(c.conn, b.String()); err != nil {
		return nil, err
	}
	return c.Receive()
}

// Receive returns the next reply, such as a message after SUBSCRIBE.
func (c *Conn) Receive() (any, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(c.Timeout)); err != nil {
		return nil, err
	}
	v, err := c.read()
	if err != nil {
		return nil, err
	}
	if refusal, ok := v.(Error); ok {
		return nil, refusal
	}
	return v, nil
}

// read parses one reply: https://redis.io/docs/latest/develop/reference/protocol-spec/.
func (c *Conn) read() (any, error) {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimSuffix(line, "\r\n")
	if line == "" {
		return nil, errors.New("redistest: empty reply")
	}
	kind, rest := line[0], line[1:]
	switch kind {
	case '+':
		return rest, nil
	case '-':
		return Error(rest), nil
	}
	n, err := strconv.ParseInt(rest, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("redistest: not RESP2: %q", line)
	}
	switch {
	case kind == ':':
		return n, nil
	case (kind == '$' || kind == '*') && n < 0:
		return nil, nil
	case kind == '$':
		text := make([]byte, n+2)
		if _, err := io.ReadFull(c.r, text); err != nil {
			return nil, err
		}
		return string(text[:n]), nil
	case kind == '*':
		array := make([]any, n)
		for i := range array {
			if array[i], err = c.read(); err != nil {
				return nil, err
			}
		}
		return array, nil
	}
	return nil, fmt.Errorf("redistest: not RESP2: %q", line)
}
