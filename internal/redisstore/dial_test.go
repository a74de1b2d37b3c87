package redisstore

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A stuck connection takes what is written, and can neither be closed nor given a deadline.
type stuck struct {
	net.Conn
	forever chan struct{}
}

func (c stuck) Write(p []byte) (int, error)   { return len(p), nil }
func (c stuck) Close() error                  { <-c.forever; return nil }
func (c stuck) SetDeadline(_ time.Time) error { <-c.forever; return nil }

// The client library's writer is left behind where a command can still be written to a connection that it has closed.
func TestNothingIsWrittenToAConnectionThatCannotBeClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &guarded{Conn: stuck{forever: make(chan struct{})}}
		defer close(c.Conn.(stuck).forever)
		_, err := c.Write([]byte("before"))
		require.NoError(t, err)
		require.ErrorIs(t, c.Close(), errConnection)
		_, err = c.Write([]byte("after"))
		require.ErrorIs(t, err, net.ErrClosed)
	})
}
