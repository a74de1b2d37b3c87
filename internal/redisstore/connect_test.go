package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gatewayz/aside/internal/redistest"
)

// A caller can have got hold of a client just before its connection broke: rueidis would make another one in his time.
func TestAClientWhoseConnectionHasBrokenMakesNoOtherOne(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	s := connected(t, proxy.Addr())
	own, err := only(s).attempt(t.Context(), only(s).options, purpose{}) // which nobody closes when it breaks
	require.NoError(t, err)
	defer own.client.Close()
	proxy.CloseConnections()
	require.Eventually(t, own.broken.Load, bound, time.Millisecond)
	require.Eventually(t, func() bool { return s.State().Up && proxy.Connections() == 1 }, bound, time.Millisecond, "the store has a new one")
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		require.ErrorIs(t, own.client.Do(ctx, own.client.B().Get().Key(key).Build()).Error(), errBroken)
		cancel()
	}
	require.Equal(t, 1, proxy.Connections())
}

// Not parallel: it looks for goroutines that are left.
func TestCloseLeavesNothingBehindWhenTheServerIsMute(t *testing.T) {
	for name, change := range map[string]func(o *rueidis.ClientOption, dialed func()){
		"plain": func(*rueidis.ClientOption, func()) {},
		"tls":   func(o *rueidis.ClientOption, _ func()) { o.TLSConfig = &tls.Config{} },
		"sentinel": func(o *rueidis.ClientOption, _ func()) {
			o.ForceSingleClient, o.Sentinel.MasterSet = false, "m"
		},
		"DialCtxFn": func(o *rueidis.ClientOption, dialed func()) {
			o.DialCtxFn = func(ctx context.Context, dst string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
				dialed()
				return d.DialContext(ctx, "tcp", dst)
			}
		},
		"DialFn": func(o *rueidis.ClientOption, dialed func()) {
			o.DialFn = func(dst string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
				dialed()
				return d.Dial("tcp", dst)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			allowed := redistest.Allowing(t)
			before := goleak.IgnoreCurrent()
			mute, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer mute.Close()
			o := clientOf(mute.Addr().String())
			o.ConnWriteTimeout = bound // so that rueidis does not give up by itself
			o.Dialer.Timeout = bound
			var dials atomic.Int32
			change(&o, func() { dials.Add(1) })
			s := Open(Options{Client: o})
			conn, err := mute.Accept()
			require.NoError(t, err)
			defer conn.Close()
			_, err = conn.Read(make([]byte, 1))
			require.NoError(t, err, "the client waits for an answer now")
			began := time.Now()
			s.Close()
			require.Less(t, time.Since(began), allowed(abandonAfter))
			require.NoError(t, goleak.Find(before))
			if strings.HasPrefix(name, "Dial") {
				require.NotZero(t, dials.Load(), "the user's own function dials")
			}
		})
	}
}

func TestCloseDoesNotWaitForADialThatCannotBeCutOff(t *testing.T) {
	t.Parallel()
	dialing, release := make(chan struct{}), make(chan struct{})
	o := clientOf("127.0.0.1:1")
	o.DialFn = func(string, *net.Dialer, *tls.Config) (net.Conn, error) {
		close(dialing)
		<-release
		return nil, errors.New("released")
	}
	s := Open(Options{Client: o})
	<-dialing
	closed := make(chan struct{})
	go func() { s.Close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(bound):
		t.Error("Close waits for the dial")
	}
	close(release)
	<-closed
}
