package aside

import (
	"crypto/tls"
	"net"
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
		o := guardHooks(rueidis.ClientOption{DialFn: func(addr string, _ *net.Dialer, _ *tls.Config) (net.Conn, error) {
			if calls.Add(1) <= 3 && addr == "bad" {
				<-over
			}
			near, far := net.Pipe()
			conns <- far
			return near, nil
		}})
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
