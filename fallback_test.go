package aside_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// logbook is where a logger writes to, for tests that read it while the cache goes on.
type logbook struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

type logLine struct{ Level, Msg, Reason string }

func (l *logbook) lines(t *testing.T) (lines []logLine) {
	t.Helper()
	for text := range strings.Lines(l.String()) {
		var line logLine
		require.NoError(t, json.Unmarshal([]byte(text), &line), text)
		lines = append(lines, line)
	}
	return lines
}

func (l *logbook) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func TestHealthOfACacheInMemory(t *testing.T) {
	t.Parallel()
	before := time.Now()
	c := newCache(t, aside.Options{})
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
	for _, o := range []aside.Options{{}, redisAt(func(r *rueidis.ClientOption) { r.DialCtxFn = nowhere })} {
		c := newCache(t, o)
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
	c := newCache(t, redisAt(func(r *rueidis.ClientOption) {
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
	r, err := aside.Lookup(t.Context(), c, keyed.Key("a"), func(context.Context) (string, error) { return "v", nil })
	require.NoError(t, err)
	require.Equal(t, "v", r.Value)
	require.Equal(t, aside.StatusFallback, r.Status)
	require.NoError(t, aside.Set(t.Context(), c, keyed.Key("a"), "w"))
	receipt, err := c.Invalidate(t.Context(), keyed.Key("a"))
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)
	require.NoError(t, c.Close())
	close(release)
}

// nobody is an address where nobody listens.
func nobody(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

func TestDegradedWhereNobodyListens(t *testing.T) {
	t.Parallel()
	addr := nobody(t)
	var log logbook
	o := aside.Options{Logger: log.logger()}
	o.Redis.InitAddress = []string{addr}
	before := time.Now()
	c := newCache(t, o)
	began := c.Health()
	require.Equal(t, aside.StateDegraded, began.State)
	require.False(t, began.Since.Before(before))
	eventually(t, "the first attempt fails", func() bool { return c.Health().Reason == connectionRefused })
	h := c.Health()
	require.Equal(t, aside.StateDegraded, h.State)
	require.Equal(t, began.Since, h.Since, "degraded since the start, whatever the reason by now")
	eventually(t, "it is logged", func() bool { return log.String() != "" })
	require.NotContains(t, log.String(), addr)
	require.Equal(t, 1.0, c.Metrics().Labels["k"].ErrorRate()+1, "connecting is no call's error")

	for i := range 3 {
		r, err := aside.Lookup(t.Context(), c, keyed.Key(i), func(context.Context) (int, error) { return i, nil })
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
	var log logbook
	var dials atomic.Int64
	var up atomic.Bool
	o := redisAt(func(r *rueidis.ClientOption) {
		r.ForceSingleClient = true
		r.InitAddress = []string{address}
		r.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			dials.Add(1)
			if !up.Load() {
				return nil, errors.New("no route to " + addr)
			}
			return d.DialContext(ctx, "tcp", addr)
		}
	})
	o.Logger, o.OpTimeout = log.logger(), 5*time.Second
	c := newCache(t, o)
	away := logLine{"WARN", "aside: redis is away; values are kept in memory for DegradedTTL until it is back", "Options.Redis.DialCtxFn failed: the log has its error"}
	back := logLine{"INFO", "aside: connected to redis", ""}

	eventually(t, "several attempts fail", func() bool { return dials.Load() >= 4 })
	require.Equal(t, []logLine{away}, log.lines(t))
	for i := range 20 { // calls say nothing of their own
		_, err := aside.GetOrLoad(t.Context(), c, keyed.Key(i), func(context.Context) (int, error) { return i, nil })
		require.NoError(t, err)
	}
	require.Equal(t, []logLine{away}, log.lines(t))

	up.Store(true)
	eventually(t, "it connects", func() bool { return c.Health().State == aside.StateConnected })
	eventually(t, "it is logged", func() bool { return len(log.lines(t)) == 2 })
	require.Equal(t, []logLine{away, back}, log.lines(t))
	require.Contains(t, c.Health().Reason, "no client tracking", "miniredis has none")
	require.NoError(t, aside.Set(t.Context(), c, keyed.Key("a"), "v"))

	up.Store(false)
	server.Close()
	eventually(t, "the loss is noticed", func() bool {
		_, _ = aside.Get[string](t.Context(), c, keyed.Key("a"))
		return c.Health().State == aside.StateDegraded
	})
	since, lost := c.Health().Since, dials.Load()
	eventually(t, "several attempts fail", func() bool { return dials.Load() >= lost+3 })
	require.Equal(t, since, c.Health().Since)
	lines := log.lines(t)
	require.Len(t, lines, 3)
	require.Equal(t, away.Msg, lines[2].Msg)
	require.NotEmpty(t, lines[2].Reason)
	require.NotContains(t, log.String(), address)

	require.NoError(t, server.Restart())
	up.Store(true)
	eventually(t, "it connects again", func() bool { return c.Health().State == aside.StateConnected })
	eventually(t, "it is logged", func() bool { return len(log.lines(t)) == 4 })
	require.Equal(t, back, log.lines(t)[3])
}

// No caller makes a connection, also where there are several and all of them have broken.
func TestEveryConnectionIsMadeBeforeCallersUseIt(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	o := at(proxy.Addr())
	o.Redis.PipelineMultiplex = 2
	c := connected(t, o)
	for range 5 {
		made := proxy.Connections()
		require.GreaterOrEqual(t, made, 2, "one for what is written, one for what is read")
		proxy.ResetCounts()
		for i := range 20 {
			_, err := aside.GetOrLoad(t.Context(), c, items.Key(i), value("v"))
			require.NoError(t, err)
			_, err = c.Invalidate(t.Context(), items.Key(i))
			require.NoError(t, err)
		}
		require.NotContains(t, proxy.Commands(), "HELLO")
		proxy.CloseConnections()
		eventually(t, "the loss is noticed", func() bool { return c.Health().State == aside.StateDegraded || proxy.Connections() > 0 })
		eventually(t, "they are made anew", func() bool { return c.Health().State == aside.StateConnected && proxy.Connections() >= made })
	}
}
