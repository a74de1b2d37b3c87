package redisstore

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// A hungUp connection was closed by the other end, which has said something before.
type hungUp struct {
	net.Conn
	said io.Reader
	err  error // when that is read
}

func (c *hungUp) Write([]byte) (int, error) {
	return 0, &net.OpError{Op: "write", Net: "tcp", Err: os.NewSyscallError("write", syscall.EPIPE)}
}

func (c *hungUp) Read(p []byte) (int, error) {
	n, err := c.said.Read(p)
	if err != nil {
		err = c.err
	}
	return n, err
}

func (c *hungUp) SetReadDeadline(time.Time) error { return nil }

// The client library does not read what has come when it fails to write: see lastWords.
func TestWhatTheOtherEndHasSaidIsReadAfterAFailedWrite(t *testing.T) {
	t.Parallel()
	alert := &net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")}
	for name, test := range map[string]struct {
		said   string
		err    error
		reason string
	}{
		"an alert":                  {"", alert, "redis refused the TLS handshake: certificate required (it wants a certificate of this process that it trusts: TLSConfig.Certificates)"},
		"an error":                  {"-ERR max number of clients reached\r\n", io.EOF, "redis answered ERR max number of clients reached: it takes no more connections: raise maxclients there, or find out who holds so many"},
		"nothing":                   {"", io.EOF, "the connection was closed before redis had answered: it may want TLS (rediss://), be a proxy that does not know HELLO, or take no more connections"},
		"something of another kind": {"SSH-2.0-x\r\n", io.EOF, "what answers at the address does not speak the protocol of redis: check host and port, and whether it wants TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			acc := newAccount(rueidis.ClientOption{})
			c := &guarded{Conn: &hungUp{said: strings.NewReader(test.said), err: test.err}, replies: &acc.replies}
			_, err := c.Write([]byte("HELLO"))
			require.Error(t, err)
			require.Equal(t, test.reason, Describe(acc.explain(err)))
		})
	}
	t.Run("of a connection that cannot be read from either", func(t *testing.T) {
		t.Parallel()
		forever := make(chan struct{})
		c := &guarded{Conn: &hungUp{said: readerFunc(func([]byte) (int, error) { <-forever; return 0, io.EOF })}, replies: new(firstReplies)}
		defer close(forever)
		_, err := c.Write([]byte("HELLO"))
		require.ErrorIs(t, err, syscall.EPIPE)
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestWhatOthersSayIsQuotedWithoutSecrets(t *testing.T) {
	t.Parallel()
	a := newAccount(rueidis.ClientOption{InitAddress: []string{"redis.internal:6379"}, Username: "app", Password: `s3"cret/ö`})
	a.hide("", "a-token")
	for text, want := range map[string]string{
		"":                          "",
		"the user app is not known": "the user [hidden] is not known",
		`wrong: s3"cret/ö, S3"CRET/ö, "s3\"cret/ö", s3%22cret%2F`: `wrong: [hidden], [hidden], "[hidden]", [hidden]`,
		`cut off: 's3"cre`: "cut off: '[hidden]",
		"unknown command 'HELLO', with args beginning with: '3'": "unknown command 'HELLO'",
		"a-token has expired": "[hidden] has expired",
		"redis at redis.internal:6379 (10.1.2.3:6379) is away": "redis at [hidden]:6379 ([hidden]) is away",
		"from fe80::1:2:3 at 12:30:45":                         "from [hidden] at 12:30:45",
		"one\r\ntwo\x1b[31m\x00\xff\u202e":                     "one  two[31m",
	} {
		require.Equal(t, want, a.quote(text))
	}
	long := a.quote(strings.Repeat("ö", 10000))
	require.LessOrEqual(t, len(long), maxQuoted)
	require.Greater(t, len(long), maxQuoted-10)
	require.True(t, strings.HasSuffix(long, "ö…"))
	require.Equal(t, "the error has panicked", textOf(panicking{}))
}

type panicking struct{}

func (panicking) Error() string { panic("oops") }

// What is known of a cluster has the reason that lasts, also where it is one of the same kind.
func TestTheStateOfAClusterHasTheLastCause(t *testing.T) {
	t.Parallel()
	told := 0
	l := new(link)
	top := &topology{clusterStatus: clusterStatus{onState: func(State) { told++ }}}
	top.table.Store(&table{nodes: []*link{l}, addrs: []string{"h:1"}, slots: make([]uint16, slots)})
	began := time.Now()
	top.state = State{Since: began}
	l.report(State{Cause: errBroken})
	top.notifyState()
	l.report(State{Cause: syscall.ECONNREFUSED})
	top.notifyState()
	require.ErrorIs(t, top.State().Cause, syscall.ECONNREFUSED)
	require.Equal(t, began, top.State().Since)
	require.Equal(t, 1, told)
}
