package contract_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

func TestHealthOfACacheInMemory(t *testing.T) {
	t.Parallel()
	before := time.Now()
	c := asidetest.NewCache(t, aside.Options{})
	h := c.Health()
	require.Equal(t, aside.StateMemory, h.State)
	require.Empty(t, h.Reason)
	require.False(t, h.Since.Before(before) || h.Since.After(time.Now()), h.Since)
	require.Equal(t, h, c.Health(), "it does not move")
	text, err := json.Marshal(h)
	require.NoError(t, err)
	since, err := json.Marshal(h.Since)
	require.NoError(t, err)
	require.JSONEq(t, `{"state":"memory","since":`+string(since)+`,"tracking":false}`, string(text))
}

func TestHealthOfACacheThatIsNoneOrNoMore(t *testing.T) {
	t.Parallel()
	h := (*aside.Cache)(nil).Health()
	require.Equal(t, aside.StateDegraded, h.State)
	require.Contains(t, h.Reason, "nil")
	for _, o := range []aside.Options{{}, asidetest.RedisAt(func(r *rueidis.ClientOption) { r.DialCtxFn = asidetest.Nowhere })} {
		c := asidetest.NewCache(t, o)
		require.NoError(t, c.Close())
		h = c.Health()
		require.Equal(t, aside.StateDegraded, h.State)
		require.Contains(t, h.Reason, "closed")
	}
}

func TestNewAndCloseDoNotWaitForRedis(t *testing.T) {
	t.Parallel()
	// No dial ever comes back while the test looks: whatever returns did not wait for one.
	release := make(chan struct{})
	dialling := make(chan struct{}, 100)
	c := asidetest.NewCache(t, asidetest.RedisAt(func(r *rueidis.ClientOption) {
		r.DialCtxFn = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
			dialling <- struct{}{}
			<-release
			return nil, errors.New("released")
		}
	}))
	h := c.Health()
	require.Equal(t, aside.StateDegraded, h.State)
	require.Equal(t, "connecting to redis", h.Reason)
	<-dialling
	r, err := aside.Lookup(t.Context(), c, asidetest.Keyed.Key("a"), func(context.Context) (string, error) { return "v", nil })
	require.NoError(t, err)
	require.Equal(t, "v", r.Value)
	require.Equal(t, aside.StatusFallback, r.Status)
	require.NoError(t, aside.Set(t.Context(), c, asidetest.Keyed.Key("a"), "w"))
	receipt, err := c.Invalidate(t.Context(), asidetest.Keyed.Key("a"))
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)
	require.NoError(t, c.Close())
	close(release)
}

func TestDegradedWhereNobodyListens(t *testing.T) {
	t.Parallel()
	addr := asidetest.Nobody(t)
	var log asidetest.Logbook
	o := aside.Options{Logger: log.Logger()}
	o.Redis.InitAddress = []string{addr}
	before := time.Now()
	c := asidetest.NewCache(t, o)
	began := c.Health()
	require.Equal(t, aside.StateDegraded, began.State)
	require.False(t, began.Since.Before(before))
	asidetest.Eventually(t, "the first attempt fails", func() bool { return c.Health().Reason == asidetest.ConnectionRefused })
	h := c.Health()
	require.Equal(t, aside.StateDegraded, h.State)
	require.Equal(t, began.Since, h.Since, "degraded since the start, whatever the reason by now")
	asidetest.Eventually(t, "it is logged", func() bool { return log.String() != "" })
	require.NotContains(t, log.String(), addr)
	require.Equal(t, 1.0, c.Metrics().Labels["k"].ErrorRate()+1, "connecting is no call's error")

	for i := range 3 {
		r, err := aside.Lookup(t.Context(), c, asidetest.Keyed.Key(i), func(context.Context) (int, error) { return i, nil })
		require.NoError(t, err, "Redis is never a reason to fail")
		require.Equal(t, i, r.Value)
		require.Equal(t, aside.StatusFallback, r.Status)
		require.Equal(t, "redis is unavailable", r.Reason)
	}
	m := c.Metrics().Labels["k"]
	require.EqualValues(t, 3, m.Fallbacks)
	require.EqualValues(t, 3, m.Misses)
	require.NotZero(t, m.RedisErrors)
}

func TestEachChangeOfStateIsLoggedOnce(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	address := server.Addr()
	var log asidetest.Logbook
	var dials atomic.Int64
	var up atomic.Bool
	o := asidetest.RedisAt(func(r *rueidis.ClientOption) {
		r.ForceSingleClient, r.InitAddress = true, []string{address}
		r.ConnWriteTimeout, r.Dialer.KeepAlive = 2500*time.Millisecond, 250*time.Millisecond // a machine that stands still is no change
		r.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			dials.Add(1)
			if !up.Load() {
				return nil, errors.New("no route to " + addr)
			}
			return d.DialContext(ctx, "tcp", addr)
		}
	})
	o.Logger, o.OpTimeout = log.Logger(), 5*time.Second
	c := asidetest.NewCache(t, o)
	away := asidetest.LogLine{Level: "WARN", Msg: "aside: redis unavailable, serving from memory and loaders", Cause: "Options.Redis.DialCtxFn failed: the log has its error"}
	back := asidetest.LogLine{Level: "INFO", Msg: "aside: connected to redis", Cause: away.Cause}

	asidetest.Eventually(t, "several attempts fail", func() bool { return dials.Load() >= 4 })
	asidetest.Eventually(t, "it is logged", func() bool { return len(log.Lines(t)) == 1 })
	require.Equal(t, []asidetest.LogLine{away}, log.Lines(t))
	for i := range 20 { // calls say nothing of their own
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Keyed.Key(i), func(context.Context) (int, error) { return i, nil })
		require.NoError(t, err)
	}
	require.Equal(t, []asidetest.LogLine{away}, log.Lines(t))

	up.Store(true)
	asidetest.Eventually(t, "it connects", func() bool { return c.Health().State == aside.StateConnected })
	asidetest.Eventually(t, "it is logged", func() bool { return len(log.Lines(t)) == 2 })
	require.Equal(t, []asidetest.LogLine{away, back}, log.Lines(t))
	require.Contains(t, c.Health().Reason, "no client tracking", "miniredis has none")
	require.NoError(t, aside.Set(t.Context(), c, asidetest.Keyed.Key("a"), "v"))

	up.Store(false)
	server.Close()
	asidetest.Eventually(t, "the loss is noticed", func() bool {
		_, _ = aside.Get[string](t.Context(), c, asidetest.Keyed.Key("a"))
		return c.Health().State == aside.StateDegraded
	})
	since, lost := c.Health().Since, dials.Load()
	asidetest.Eventually(t, "several attempts fail", func() bool { return dials.Load() >= lost+3 })
	require.Equal(t, since, c.Health().Since)
	asidetest.Eventually(t, "it is logged", func() bool { return len(log.Lines(t)) == 3 })
	lines := log.Lines(t)
	require.Equal(t, away.Msg, lines[2].Msg)
	require.NotEmpty(t, lines[2].Cause)
	require.NotContains(t, log.String(), address)

	require.NoError(t, server.Restart())
	up.Store(true)
	asidetest.Eventually(t, "it connects again", func() bool { return c.Health().State == aside.StateConnected })
	asidetest.Eventually(t, "it is logged", func() bool { return len(log.Lines(t)) == 4 })
	lines = log.Lines(t)
	require.Equal(t, back.Msg, lines[3].Msg)
	require.NotEmpty(t, lines[3].Cause, "that of the last attempts, if it is known")
}

// No caller makes a connection, also where there are several and all of them have broken.
func TestEveryConnectionIsMadeBeforeCallersUseIt(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	o := asidetest.At(proxy.Addr())
	o.Redis.PipelineMultiplex = 2
	c := asidetest.Connected(t, o)
	for range 5 {
		made := proxy.Connections()
		require.GreaterOrEqual(t, made, 2, "one for what is written, one for what is read")
		proxy.ResetCounts()
		for i := range 20 {
			_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key(i), asidetest.Value("v"))
			require.NoError(t, err)
			_, err = c.Invalidate(t.Context(), asidetest.Items.Key(i))
			require.NoError(t, err)
		}
		require.NotContains(t, proxy.Commands(), "HELLO")
		proxy.CloseConnections()
		asidetest.Eventually(t, "the loss is noticed", func() bool { return c.Health().State == aside.StateDegraded || proxy.Connections() > 0 })
		asidetest.Eventually(t, "they are made anew", func() bool { return c.Health().State == aside.StateConnected && proxy.Connections() >= made })
	}
}
