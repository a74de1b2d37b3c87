package faults_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// nobody are options of a Redis that nobody listens at, without I/O.
func nobody(log slog.Handler) aside.Options {
	return aside.Options{Redis: rueidis.ClientOption{InitAddress: []string{"redis.test:6379"}, ForceSingleClient: true, DialCtxFn: asidetest.Nowhere}, Logger: slog.New(log)}
}

func TestReadyWaitsForRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	proxy.Refuse(true)
	o := asidetest.At(server.Addr())
	o.Redis.InitAddress = []string{proxy.Addr()}
	c := asidetest.NewCache(t, o)
	waiting := make(chan error, 10)
	for range cap(waiting) {
		go func() { waiting <- c.Ready(t.Context()) }()
	}
	asidetest.Eventually(t, "it has failed to connect", func() bool { return c.Health().Reason != "" && !c.Health().Since.IsZero() })
	require.Empty(t, waiting)
	proxy.Refuse(false)
	for range cap(waiting) {
		require.NoError(t, <-waiting)
	}
	require.Equal(t, aside.StateConnected, c.Health().State)
	require.NoError(t, c.Ready(t.Context()))
}

func TestReadyEnds(t *testing.T) {
	t.Parallel()
	require.NoError(t, asidetest.NewCache(t, aside.Options{}).Ready(t.Context()), "in memory mode")
	var none *aside.Cache
	require.ErrorContains(t, none.Ready(t.Context()), "nil")
	asidetest.InBubble(t, nobody(slog.DiscardHandler), func(t *testing.T, c *aside.Cache) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		began := time.Now()
		err := c.Ready(ctx)
		require.Equal(t, 10*time.Second, time.Since(began))
		require.ErrorIs(t, err, aside.ErrUnavailable)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "redis is not in use: ")
		require.ErrorContains(t, err, "DialCtxFn failed")
		ready := make(chan error, 1)
		go func() { ready <- c.Ready(t.Context()) }()
		synctest.Wait()
		require.NoError(t, c.Close())
		require.ErrorIs(t, <-ready, aside.ErrClosed)
	})
}

func TestShutdownSaysWhatIsLost(t *testing.T) {
	t.Parallel()
	log := &recorder{level: slog.LevelInfo}
	asidetest.InBubble(t, nobody(log), func(t *testing.T, c *aside.Cache) {
		key := asidetest.Items.Key("a")
		_, err := c.Invalidate(t.Context(), key, asidetest.Items.Key("b"), asidetest.Items.Key("c"))
		require.NoError(t, err)
		_, err = c.InvalidateAll(t.Context())
		require.NoError(t, err)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = c.InvalidatePattern(ended, asidetest.Items.Match("x", aside.Wildcard))
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		loading := make(chan error, 1)
		go func() {
			_, err := aside.GetOrLoad(ctx, c, key, func(ctx context.Context) (string, error) { time.Sleep(70 * time.Second); return "", ctx.Err() })
			loading <- err
		}()
		synctest.Wait()
		began := time.Now()
		err = c.Shutdown(ctx)
		require.Equal(t, time.Minute+100*time.Millisecond, time.Since(began), "it waits as long as it may")
		var left *aside.ShutdownError
		require.ErrorAs(t, err, &left)
		require.Equal(t, aside.ShutdownError{Keys: 3, Tags: 1, Patterns: 1, Loaders: true, Err: context.DeadlineExceeded}, *left)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualError(t, err, "aside: closed, but invalidations of 3 keys are not confirmed, and lost; invalidations of 1 tags are not confirmed, and lost; "+
			"invalidations of 1 patterns are not confirmed, and lost; loaders have not returned")
		require.Error(t, <-loading)
		require.NoError(t, c.Shutdown(ctx), "it is closed")
		require.NoError(t, c.Close())
		_, err = c.Invalidate(t.Context(), key)
		require.ErrorIs(t, err, aside.ErrClosed)
		time.Sleep(time.Minute) // the loader returns
	})
	closed := log.of("aside: closed")
	require.Len(t, closed, 1)
	require.Equal(t, slog.LevelWarn, closed[0].level)
	for attr, want := range map[string]string{"unconfirmed": "5", "keys": "3", "tags": "1", "patterns": "1"} {
		require.Equal(t, want, closed[0].attrs[attr], attr)
	}
}

// While Redis is away Shutdown waits, and answers calls. Once Redis is back, what was to be confirmed is, and nothing is left.
func TestShutdownWaitsForConfirmations(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	o := asidetest.At(server.Addr())
	other := asidetest.Connected(t, o)
	key := asidetest.Items.Key("a")
	asidetest.InMemory(t, other, key, asidetest.Value("old"))
	o.Redis.InitAddress = []string{proxy.Addr()}
	c := asidetest.Connected(t, o)
	proxy.Refuse(true)
	proxy.CloseConnections()
	asidetest.Eventually(t, "the loss is noticed", func() bool { return c.Health().State == aside.StateDegraded })
	_, err := c.Invalidate(t.Context(), key)
	require.NoError(t, err)
	over := make(chan error, 1)
	go func() { over <- c.Shutdown(t.Context()) }()
	v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("b"), asidetest.Value("new"))
	require.NoError(t, err)
	require.Equal(t, "new", v)
	select {
	case err := <-over:
		t.Fatal("it has not waited: ", err)
	default:
	}
	proxy.Refuse(false)
	require.NoError(t, <-over)
	asidetest.Eventually(t, "the other process is told", func() bool {
		v, err := aside.GetOrLoad(t.Context(), other, key, asidetest.Value("new"))
		require.NoError(t, err)
		return v == "new"
	})
}

func TestShutdownOfWhatIsNoCache(t *testing.T) {
	t.Parallel()
	var none *aside.Cache
	require.NoError(t, none.Shutdown(t.Context()))
	require.NoError(t, new(aside.Cache).Shutdown(t.Context()))
	c := asidetest.NewCache(t, aside.Options{})
	var missing context.Context
	err := c.Shutdown(missing)
	require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidArgument})
	require.NoError(t, c.Shutdown(t.Context()))
	_, err = aside.Get[string](t.Context(), c, asidetest.Items.Key("a"))
	require.True(t, errors.Is(err, aside.ErrClosed))
}

// Close does not wait longer than it says because a Shutdown waits for a loader that ignores its context.
func TestCloseBesideAShutdownThatWaits(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{Logger: asidetest.Quiet()}, func(t *testing.T, c *aside.Cache) {
		release := make(chan struct{})
		go func() {
			_, _ = aside.GetOrLoad(context.Background(), c, asidetest.Items.Key("a"), func(context.Context) (string, error) { <-release; return "", nil })
		}()
		synctest.Wait()
		shut := make(chan error, 1)
		go func() { shut <- c.Shutdown(context.Background()) }()
		synctest.Wait()
		began := time.Now()
		require.NoError(t, c.Close())
		require.Equal(t, 10*time.Second, time.Since(began))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorContains(t, c.Shutdown(ctx), "another call of Close or Shutdown is still under way")
		close(release)
		require.NoError(t, <-shut)
		require.NoError(t, c.Shutdown(context.Background()))
	})
}

// A Shutdown that waits for a confirmation says that it is lost, although another call has closed the cache.
func TestShutdownBesideAClose(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, nobody(slog.DiscardHandler), func(t *testing.T, c *aside.Cache) {
		_, err := c.InvalidateTags(t.Context(), "x")
		require.NoError(t, err)
		shut := make(chan error, 1)
		go func() { shut <- c.Shutdown(t.Context()) }()
		synctest.Wait()
		require.NoError(t, c.Close())
		var left *aside.ShutdownError
		require.ErrorAs(t, <-shut, &left)
		require.Equal(t, 1, left.Tags)
	})
}
