package guard

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// A dialer hangs for one address and not for the others; at last its calls return.
func TestAHookThatHangsIsCalledAgainWhenItHasReturned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		over := make(chan struct{})
		conns := make(chan net.Conn, 10)
		o := Hooks(rueidis.ClientOption{DialFn: func(addr string, _ *net.Dialer, _ *tls.Config) (net.Conn, error) {
			if calls.Add(1) <= 3 && addr == "bad" {
				<-over
			}
			near, far := net.Pipe()
			conns <- far
			return near, nil
		}}, noCheck)
		for range 3 {
			_, err := o.DialFn("bad", nil, nil)
			require.ErrorContains(t, err, "in time")
		}
		began := time.Now()
		_, err := o.DialFn("bad", nil, nil)
		require.ErrorIs(t, err, errHanging)
		require.Zero(t, time.Since(began), "at once")
		require.EqualValues(t, 3, calls.Load())
		conn, err := o.DialFn("good", nil, nil)
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		<-conns
		close(over)
		for range 3 {
			_, err := (<-conns).Read(make([]byte, 1))
			require.Error(t, err, "what came too late is closed")
		}
		synctest.Wait()
		conn, err = o.DialFn("bad", nil, nil)
		require.NoError(t, err)
		require.NoError(t, conn.Close())
	})
}

func noCheck(err error) error { return err }

func TestAHookThatPanicsOrExitsFails(t *testing.T) {
	t.Parallel()
	replaced := errors.New("replaced")
	check := func(err error) error {
		if err == nil {
			return nil
		}
		return replaced
	}
	for _, tt := range []struct {
		end  func() error
		want error
	}{
		{func() error { panic("oops") }, replaced},
		{func() error { return io.EOF }, replaced},
		{func() error { runtime.Goexit(); return nil }, errExit},
		{func() error { return nil }, nil},
	} {
		o := Hooks(rueidis.ClientOption{
			DialCtxFn: func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) { return nil, tt.end() },
			AuthCredentialsFn: func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
				return rueidis.AuthCredentials{Username: "user"}, tt.end()
			},
		}, check)
		require.Nil(t, o.DialFn)
		_, err := o.DialCtxFn(t.Context(), "address", nil, nil)
		require.Equal(t, tt.want, err)
		_, err = o.AuthCredentialsFn(rueidis.AuthCredentialsContext{})
		require.Equal(t, tt.want, err)
	}
}
