package asidetest_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidetest"
	suite "github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

func TestSettledWaitsForALoadInTheBackground(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		refreshed := products
		refreshed.Stale = time.Hour
		c := asidetest.New(t, aside.Options{})
		load, loads := asidetest.Counted(func(ctx context.Context, id int) (string, error) {
			time.Sleep(3 * time.Second)
			return loadName(ctx, id)
		})
		loader := aside.NewLoader(c, refreshed, load)
		_, err := loader.Get(t.Context(), 7)
		require.NoError(t, err)
		time.Sleep(11 * time.Minute)
		r, err := loader.Lookup(t.Context(), 7)
		require.NoError(t, err)
		require.Equal(t, aside.StatusStale, r.Status)
		asidetest.Settled(t, c)
		r, err = loader.Lookup(t.Context(), 7)
		require.NoError(t, err)
		require.Equal(t, aside.StatusHit, r.Status)
		loads.Expect(t, 7, 7)
	})
}

func TestSettledWaitsForALoadThatNobodyWaitsFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := asidetest.New(t, aside.Options{})
		brief, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := aside.GetOrLoad(brief, c, products.Key(7), func(context.Context) (int, error) {
			time.Sleep(3 * time.Second)
			return 7, nil
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		asidetest.Settled(t, c)
		v, err := aside.Get[int](t.Context(), c, products.Key(7))
		require.NoError(t, err)
		require.Equal(t, 7, v)
	})
}

func TestSettledWaitsForTheHook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told atomic.Int64
		var c *aside.Cache
		c = asidetest.New(t, aside.Options{OnInvalidated: func(i aside.Invalidation) {
			time.Sleep(time.Second)
			if told.Add(1) == 3 { // the last one begins a load, which is waited for too
				go aside.GetOrLoad(context.Background(), c, products.Key("next"), func(context.Context) (int, error) {
					time.Sleep(5 * time.Second)
					return 7, nil
				})
				time.Sleep(time.Millisecond) // for the load to begin
			}
		}})
		for id := range 3 {
			_, err := c.Invalidate(t.Context(), products.Key(id))
			require.NoError(t, err)
		}
		asidetest.Settled(t, c)
		require.EqualValues(t, 3, told.Load())
		_, err := aside.Get[int](t.Context(), c, products.Key("next"))
		require.NoError(t, err)
	})
}

func TestSettledSaysWhatIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		policy := products
		policy.LoadTimeout = time.Hour
		tb := &fakeTB{TB: t}
		c := asidetest.New(t, aside.Options{Policies: []aside.Policy{policy}})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = aside.GetOrLoad(ctx, c, policy.Key(7), func(ctx context.Context) (int, error) {
				<-ctx.Done()
				return 0, ctx.Err()
			})
		}()
		synctest.Wait()
		asidetest.Settled(tb, c)
		require.Equal(t, "asidetest: Settled: loads or the storing of their values have not ended (1 loaders run, 0 loads are queued); Redis: memory", tb.failed())
		cancel()
		<-ended
		asidetest.Settled(t, c)
	})
	synctest.Test(t, func(t *testing.T) {
		tb, release := &fakeTB{TB: t}, make(chan struct{})
		c := asidetest.New(t, aside.Options{OnInvalidated: func(aside.Invalidation) { <-release }})
		_, err := c.Invalidate(t.Context(), products.Key(7))
		require.NoError(t, err)
		asidetest.Settled(tb, c)
		require.Contains(t, tb.failed(), "OnInvalidated has not returned")
		close(release)
	})
}

func TestSettledWithoutACache(t *testing.T) {
	t.Parallel()
	tb := &fakeTB{TB: t}
	asidetest.Settled(tb, asidetest.New(t, aside.Options{}), nil)
	require.Contains(t, tb.failed(), "cache 1 is nil")
	tb = &fakeTB{TB: t}
	asidetest.Settled(tb, new(aside.Cache))
	require.Contains(t, tb.failed(), "the cache is nil or zero")
	closed := asidetest.New(t, aside.Options{})
	closed.Close()
	asidetest.Settled(t, closed)
	asidetest.Settled(t)
}

// everyRedis runs a test on a Redis of this package, and on a real one.
func everyRedis(t *testing.T, test func(t *testing.T, newCache func() *aside.Cache)) {
	t.Run("in the process", func(t *testing.T) {
		t.Parallel()
		r := asidetest.NewRedis(t)
		test(t, func() *aside.Cache { return ready(t, asidetest.New(t, r.Options())) })
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		addr := redistest.Start(t).Addr()
		test(t, func() *aside.Cache { return ready(t, asidetest.New(t, suite.At(addr))) })
	})
}

func ready(t *testing.T, c *aside.Cache) *aside.Cache {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), suite.Bound)
	defer cancel()
	require.NoError(t, c.Ready(ctx))
	return c
}

// After Settled, what one cache has loaded is in Redis, and what one has invalidated no other serves from its memory.
func TestSettledCachesOnOneRedisAgree(t *testing.T) {
	t.Parallel()
	items := suite.Items
	everyRedis(t, func(t *testing.T, newCache func() *aside.Cache) {
		a, b := newCache(), newCache()
		source := 0
		load := func(context.Context) (int, error) { return source, nil }
		inMemory := 0
		for source = range 50 {
			key := items.Key(source % 5)
			_, err := a.Invalidate(t.Context(), key)
			require.NoError(t, err)
			asidetest.Settled(t, a, b)
			v, err := aside.GetOrLoad(t.Context(), a, key, load)
			require.NoError(t, err)
			require.Equal(t, source, v)
			asidetest.Settled(t, a, b)
			r, err := aside.Lookup(t.Context(), b, key, func(context.Context) (int, error) { return -1, nil })
			require.NoError(t, err)
			require.Equal(t, aside.TierRedis, r.Tier, "round %d: the value of the other cache", source)
			require.Equal(t, source, r.Value)
			if r, err = aside.Lookup(t.Context(), b, key, load); r.Tier == aside.TierMemory {
				inMemory++
			}
			require.NoError(t, err)
		}
		require.NotZero(t, inMemory, "without values in memory, this shows nothing")
	})
}

func TestSettledDoesNotCountAsATalkBetweenCaches(t *testing.T) {
	t.Parallel()
	r := asidetest.NewRedis(t)
	a, b := ready(t, asidetest.New(t, r.Options())), ready(t, asidetest.New(t, r.Options()))
	for _, c := range []*aside.Cache{a, b} { // what is in memory rests on announcements: by then both caches hear them
		suite.Eventually(t, "memory answers", func() bool { return lookup(t, c, 7).Tier == aside.TierMemory })
	}
	asidetest.Settled(t, a, b)
	before := [2]uint64{a.Metrics().InvalidationMessages, b.Metrics().InvalidationMessages}
	for range 10 {
		asidetest.Settled(t, a, b)
	}
	require.Equal(t, before, [2]uint64{a.Metrics().InvalidationMessages, b.Metrics().InvalidationMessages})
}

func TestSettledWaitsForRedisToConfirm(t *testing.T) {
	t.Parallel()
	r := asidetest.NewRedis(t)
	var told atomic.Int64
	o := r.Options()
	o.OnInvalidated = func(aside.Invalidation) { told.Add(1) }
	c := ready(t, asidetest.New(t, o))
	r.Down()
	receipt, err := c.Invalidate(t.Context(), suite.Items.Key(7))
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)
	over := make(chan struct{})
	go func() {
		defer close(over)
		asidetest.Settled(t, c)
	}()
	suite.Eventually(t, "the outage is noticed", func() bool { return c.Health().State == aside.StateDegraded })
	select {
	case <-over:
		t.Error("Settled has returned while Redis could not confirm an invalidation")
	default:
	}
	r.Up()
	<-over
	require.EqualValues(t, 1, told.Load())
}

// The hook of one cache begins something in another one, which was asked before.
func TestSettledWaitsForWhatAHookBeginsInAnotherCache(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var done atomic.Bool
		b := asidetest.New(t, aside.Options{OnInvalidated: func(aside.Invalidation) {
			time.Sleep(time.Second)
			done.Store(true)
		}})
		a := asidetest.New(t, aside.Options{OnInvalidated: func(aside.Invalidation) {
			time.Sleep(time.Second)
			_, _ = b.Invalidate(context.Background(), products.Key(8))
		}})
		_, err := a.Invalidate(t.Context(), products.Key(7))
		require.NoError(t, err)
		asidetest.Settled(t, b, a)
		require.True(t, done.Load())
	})
}
