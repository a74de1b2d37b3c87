package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatewayz/aside/internal/guard"
	"github.com/redis/rueidis"
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

// A dialer that knows no context hangs for one address, and not for another.
func TestADialThatHangsIsNotRepeatedWithoutEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		over := make(chan struct{})
		dial := dialer(rueidis.ClientOption{DialFn: func(addr string, _ *net.Dialer, _ *tls.Config) (net.Conn, error) {
			calls.Add(1)
			if addr == "bad" {
				<-over
			}
			return nil, errRefused
		}}, new(guard.Hanging))
		try := func(addr string) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := dial(ctx, addr, &net.Dialer{}, nil)
			return err
		}
		for range 3 {
			require.ErrorIs(t, try("bad"), context.DeadlineExceeded)
		}
		require.ErrorIs(t, try("bad"), errHanging)
		require.EqualValues(t, 3, calls.Load())
		require.ErrorIs(t, try("good"), errRefused)
		close(over)
		synctest.Wait()
		require.ErrorIs(t, try("bad"), errRefused)
	})
}

var errRefused = errors.New("refused")
