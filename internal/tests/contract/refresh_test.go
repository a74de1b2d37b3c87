package contract_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

func TestAValueSetForAMomentLeavesNoOlderOneBehind(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, key := newCache(aside.Options{}), asidetest.Items.Key("a")
		asidetest.Stored(t, c, key, "v1")
		require.NoError(t, aside.Set(t.Context(), c, key, "v2", aside.WithTTL(time.Millisecond)))
		asidetest.Gone(t, c, key)
	})
}

func TestARefreshSlowerThanItsTTLLeavesNoOlderValueBehind(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, key := newCache(aside.Options{}), asidetest.Items.Key("a")
		asidetest.Stored(t, c, key, "v1")
		v, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) (string, error) {
			time.Sleep(5 * time.Millisecond) // the load
			return "v2", nil
		}, aside.Refresh(), aside.WithTTL(2*time.Millisecond))
		require.NoError(t, err)
		require.Equal(t, "v2", v)
		asidetest.Gone(t, c, key)
	})
}

func TestARefreshThatLosesItsLeaseLeavesNoOlderValueBehind(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, key := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Items.Key("a")
	asidetest.Stored(t, c, key, "v1")
	_, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) (string, error) {
		server.MustDo(t, "DEL", "{items:a}!l")
		return "v2", nil
	}, aside.Refresh())
	require.NoError(t, err)
	asidetest.Eventually(t, "the fill is refused", func() bool { return c.Metrics().Labels["items"].FillsRejected == 1 })
	asidetest.Gone(t, c, key)
}

func TestARefreshWithoutALeaseLeavesNoOlderValueBehind(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.OpTimeout = 50 * time.Millisecond
	c, key := asidetest.Connected(t, o), asidetest.Items.Key("a")
	asidetest.Stored(t, c, key, "v1")
	server.Pause()
	v, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) (string, error) {
		server.Resume() // too late for the lease, in time for the removal
		asidetest.Eventually(t, "it answers again", func() bool { _, err := server.Do("PING"); return err == nil })
		return "v2", nil
	}, aside.Refresh())
	require.NoError(t, err)
	require.Equal(t, "v2", v)
	require.Positive(t, c.Metrics().Labels["items"].RedisErrors)
	asidetest.Gone(t, c, key)
}

func TestARefreshAlwaysLoadsHoweverManyReadersThereAre(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, key := newCache(aside.Options{}), asidetest.Items.Key("a")
		asidetest.Stored(t, c, key, "v1")
		ctx, stop := context.WithCancel(t.Context())
		var readers sync.WaitGroup
		for range 8 {
			readers.Go(func() {
				for ctx.Err() == nil {
					_, _ = aside.GetOrLoad(ctx, c, key, asidetest.Always("v2"))
				}
			})
		}
		for range 200 {
			var ran atomic.Bool
			_, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) (string, error) { ran.Store(true); return "v2", nil }, aside.Refresh())
			require.NoError(t, err)
			require.True(t, ran.Load())
		}
		stop()
		readers.Wait()
	})
}

func TestARefreshingBatchWithOneKeyTwiceLoadsAndKeepsIt(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, key := newCache(aside.Options{}), asidetest.Items.Key("a")
		asidetest.Stored(t, c, key, "v1")
		got, err := aside.GetOrLoadMany(t.Context(), c, []string{"A", "a"}, func(string) aside.Key { return key }, func(_ context.Context, ids []string) (map[string]string, error) {
			require.Equal(t, []string{"A"}, ids)
			return map[string]string{"A": "v2"}, nil
		}, aside.Refresh())
		require.NoError(t, err)
		require.Equal(t, map[string]string{"A": "v2", "a": "v2"}, got)
		v, err := aside.Get[string](t.Context(), c, key)
		require.NoError(t, err)
		require.Equal(t, "v2", v)
	})
}

func TestALoadThatOutlivedItsCallersDoesNotReplaceANewerValue(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]aside.CallOption{"plain": nil, "refresh": {aside.Refresh()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c, key := asidetest.NewCache(t, aside.Options{LoadTimeout: time.Second}), asidetest.Items.Key("a")
				_, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) (string, error) {
					time.Sleep(time.Minute)
					return "older", nil
				}, opts...)
				require.ErrorIs(t, err, &aside.Error{Code: aside.CodeLoadTimeout})
				v, err := aside.GetOrLoad(t.Context(), c, key, asidetest.Always("newer"))
				require.NoError(t, err)
				require.Equal(t, "newer", v)
				time.Sleep(2 * time.Minute)
				v, err = aside.Get[string](t.Context(), c, key)
				require.NoError(t, err)
				require.Equal(t, "newer", v)
			})
		})
	}
}
