package asidetest_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidetest"
	suite "github.com/gatewayz/aside/internal/asidetest"
)

func TestACacheEndsWithItsTest(t *testing.T) {
	t.Parallel()
	tb := &fakeTB{TB: t}
	c := asidetest.New(tb, aside.Options{})
	require.Equal(t, aside.StateMemory, c.Health().State)
	v, err := aside.GetOrLoad(t.Context(), c, products.Key(7), func(context.Context) (int, error) { return 7, nil })
	require.NoError(t, err)
	require.Equal(t, 7, v)
	require.Contains(t, tb.log(), "aside: started")
	require.Contains(t, tb.log(), "products:7", "the miss, at the level Debug")
	require.NotContains(t, tb.log(), "time=")

	tb.end()
	_, err = aside.Get[int](t.Context(), c, products.Key(7))
	require.ErrorIs(t, err, aside.ErrClosed)
	require.Empty(t, tb.failed())
}

func TestACacheThatTheTestHasClosedIsLeftAlone(t *testing.T) {
	t.Parallel()
	tb := &fakeTB{TB: t}
	c := asidetest.New(tb, aside.Options{})
	require.NoError(t, c.Close())
	tb.end()
	require.Empty(t, tb.failed())
}

func TestInvalidOptionsEndTheTest(t *testing.T) {
	t.Parallel()
	tb := &fakeTB{TB: t}
	require.Nil(t, asidetest.New(tb, aside.Options{MaxEntries: -1}))
	require.Contains(t, tb.failed(), "Options.MaxEntries is -1")
	require.Empty(t, tb.cleanups)
}

func TestACacheHasNoBackoffUnlessTheTestSaysSo(t *testing.T) {
	t.Parallel()
	fails := func(context.Context) (int, error) { return 0, errors.New("the database is away") }
	errorOfThird := func(c *aside.Cache) (err error) {
		for range 3 {
			_, err = aside.GetOrLoad(t.Context(), c, products.Key(7), fails)
		}
		return err
	}
	require.NotErrorIs(t, errorOfThird(asidetest.New(t, aside.Options{})), aside.ErrBackoff)
	require.ErrorIs(t, errorOfThird(asidetest.New(t, aside.Options{Backoff: time.Minute, MaxBackoff: time.Minute})), aside.ErrBackoff)
	require.ErrorIs(t, errorOfThird(asidetest.New(t, aside.Options{MaxBackoff: time.Minute})), aside.ErrBackoff, "MaxBackoff alone asks for a backoff too")
}

func TestALoggerOfTheTestIsUsed(t *testing.T) {
	t.Parallel()
	var log suite.Logbook
	tb := &fakeTB{TB: t}
	asidetest.New(tb, aside.Options{Logger: log.Logger()})
	tb.end()
	require.Contains(t, log.String(), "aside: started")
	require.Empty(t, tb.log())
}

// In a bubble, the 10 s until loaders are given up pass at once.
func TestALoaderThatDoesNotReturnFailsTheTest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb, release := &fakeTB{TB: t}, make(chan struct{})
		c := asidetest.New(tb, aside.Options{})
		go func() {
			_, _ = aside.GetOrLoad(context.Background(), c, products.Key(7), func(context.Context) (int, error) {
				<-release
				return 0, nil
			})
		}()
		synctest.Wait()
		tb.end()
		require.Contains(t, tb.failed(), "loaders have not returned 10s after their context has ended")
		close(release)
		logged := tb.log()
		c.Close()
		synctest.Wait()
		require.Equal(t, logged, tb.log(), "after its end a test is told nothing")
	})
}

func TestALoaderThatHeedsItsContextDoesNotFailTheTest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := &fakeTB{TB: t}
		c := asidetest.New(tb, aside.Options{})
		go func() {
			_, _ = aside.GetOrLoad(context.Background(), c, products.Key(7), func(ctx context.Context) (int, error) {
				<-ctx.Done()
				time.Sleep(9 * time.Second)
				return 0, ctx.Err()
			})
		}()
		synctest.Wait()
		tb.end()
		require.Empty(t, tb.failed())
	})
}

func TestAHookThatDoesNotReturnFailsTheTest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb, release := &fakeTB{TB: t}, make(chan struct{})
		c := asidetest.New(tb, aside.Options{OnInvalidated: func(aside.Invalidation) { <-release }})
		_, err := c.Invalidate(t.Context(), products.Key(7))
		require.NoError(t, err)
		tb.end()
		require.Contains(t, tb.failed(), "OnInvalidated, have not returned 10s after the cache was closed")
		close(release)
	})
}

func TestACacheThatAlwaysMisses(t *testing.T) {
	t.Parallel()
	c := asidetest.AlwaysMiss(t, aside.Options{Logger: slog.New(slog.DiscardHandler)})
	load, loads := asidetest.Counted(loadName)
	loader := aside.NewLoader(c, products, load)
	for range 3 {
		r, err := loader.Lookup(t.Context(), 7)
		require.NoError(t, err)
		require.Equal(t, "product 7", r.Value)
		require.Equal(t, aside.StatusMiss, r.Status)
	}
	loads.Expect(t, 7, 7, 7)

	require.NoError(t, loader.Set(t.Context(), 7, "set"))
	_, err := loader.Cached(t.Context(), 7)
	require.ErrorIs(t, err, aside.ErrMiss)
	require.NoError(t, loader.SetMany(t.Context(), map[int]string{8: "set"}))
	got, err := loader.GetMany(t.Context(), []int{7, 8})
	require.NoError(t, err)
	require.Equal(t, map[int]string{7: "product 7", 8: "product 8"}, got)
	_, err = loader.Refresh(t.Context(), 7)
	require.NoError(t, err)
	loads.Expect(t, 7, 8, 7)

	for range 2 { // "not found" is not stored either
		_, err = aside.GetOrLoad(t.Context(), c, products.Key(9), func(context.Context) (int, error) { return 0, aside.ErrNotFound })
		require.ErrorIs(t, err, aside.ErrNotFound)
	}
	m := c.Metrics().Labels["products"]
	require.Zero(t, m.Hits)
	require.Zero(t, m.Errors)
	receipt, err := c.InvalidateAll(t.Context())
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
}

// A call after a Set, or after an invalidation, does not get what was loaded before.
func TestALoadThatBeganBeforeASetIsNotJoinedInACacheThatAlwaysMisses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := asidetest.AlwaysMiss(t, aside.Options{})
		release := make(chan struct{})
		older := make(chan string)
		go func() {
			v, _ := aside.GetOrLoad(t.Context(), c, products.Key(7), func(context.Context) (string, error) {
				<-release
				return "older", nil
			})
			older <- v
		}()
		synctest.Wait()
		require.NoError(t, aside.Set(t.Context(), c, products.Key(7), "newer"))
		v, err := aside.GetOrLoad(t.Context(), c, products.Key(7), func(context.Context) (string, error) { return "newer", nil })
		require.NoError(t, err)
		require.Equal(t, "newer", v)
		close(release)
		require.Equal(t, "older", <-older)
	})
}

func TestACacheThatAlwaysMissesHasNoRedis(t *testing.T) {
	t.Parallel()
	tb := &fakeTB{TB: t}
	require.Nil(t, asidetest.AlwaysMiss(tb, asidetest.NewRedis(t).Options()))
	require.Contains(t, tb.failed(), "AlwaysMiss: Options.Redis is set")
	require.Nil(t, asidetest.AlwaysMiss(&fakeTB{TB: t}, aside.Options{MaxEntries: -1}))
}
