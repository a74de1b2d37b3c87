package contract_test

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// requireCauses requires how many misses have had each cause. Those that are not named have had none.
func requireCauses(t *testing.T, c *aside.Cache, label string, want map[aside.Cause]uint64) {
	t.Helper()
	m := c.Metrics().Labels[label]
	require.Len(t, m.Causes, 6, "each cause is there from the start")
	var sum uint64
	for cause, n := range m.Causes {
		require.Equal(t, want[cause], n, "%s of %v", cause, m.Causes)
		sum += n
	}
	require.Equal(t, m.Misses, sum)
}

func TestEachMissHasItsCause(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(proxy.Addr()))
	p := aside.Policy{Name: "caused", Category: "caused", TTL: time.Hour}
	want := map[aside.Cause]uint64{}
	look := func(key aside.Key, cause aside.Cause, opts ...aside.CallOption) {
		t.Helper()
		r, err := aside.Lookup(t.Context(), a, key, asidetest.Value("loaded"), opts...)
		require.NoError(t, err)
		require.Equal(t, cause, r.Cause, r.Reason)
		if cause != "" {
			want[cause]++
		}
		requireCauses(t, a, "caused", want)
	}
	look(p.Key("new"), aside.CauseAbsent)
	asidetest.Stored(t, a, p.Key("set"), "v")
	look(p.Key("set"), "")
	look(p.Key("new"), aside.CauseAsked, aside.Refresh())
	look(p.Key("strong"), aside.CauseAbsent, aside.Strong())
	_, err := aside.Get[string](t.Context(), a, p.Key("none"))
	require.ErrorIs(t, err, aside.ErrMiss)
	want[aside.CauseAbsent]++
	requireCauses(t, a, "caused", want)

	server.MustDo(t, "SET", p.Key("foreign").String(), "written by something else")
	look(p.Key("foreign"), aside.CauseUnusable)

	asidetest.Stored(t, b, p.Key("tagged"), "v")
	sweep := proxy.HoldRequests(func(args []string) bool { return args[0] == "SCAN" }) // otherwise the value is removed at once
	_, err = b.InvalidateCategory(t.Context(), "caused")
	require.NoError(t, err)
	asidetest.AllTold(t, a)
	look(p.Key("tagged"), aside.CauseInvalidated)
	sweep.Release()

	short := aside.Policy{Name: "short", Category: "short", Label: "caused", TTL: 200 * time.Millisecond, StaleIfError: time.Hour}
	asidetest.Stored(t, b, short.Key("old"), "v")
	asidetest.Eventually(t, "the TTL ends", func() bool {
		_, err := aside.Get[string](t.Context(), b, short.Key("old"))
		return err == aside.ErrMiss
	})
	look(short.Key("old"), aside.CauseExpired)

	server.Kill()
	asidetest.Eventually(t, "the loss is noticed", func() bool { return a.Health().State == aside.StateDegraded })
	look(p.Key("away"), aside.CauseUnavailable)
}

func TestEachLoadHasItsOutcome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{LoadGrace: -1})
		p := aside.Policy{Name: "ended", Category: "ended", TTL: time.Minute, StaleIfError: time.Hour, LoadTimeout: time.Minute}
		want := map[aside.Outcome]uint64{}
		loads := uint64(0)
		ends := func(id string, outcome aside.Outcome, load func(context.Context) (string, error)) {
			t.Helper()
			_, _ = aside.GetOrLoad(t.Context(), c, p.Key(id), load, aside.MaxStale(0))
			synctest.Wait()
			want[outcome]++
			loads++
			m := c.Metrics().Labels["ended"]
			require.Len(t, m.Outcomes, 7, "each outcome is there from the start")
			for outcome, n := range m.Outcomes {
				require.Equal(t, want[outcome], n, outcome)
			}
			require.Equal(t, loads, m.LoadTimes.Count)
			require.Equal(t, loads, m.Loads)
		}
		ends("a", aside.OutcomeOK, asidetest.Value("v"))
		time.Sleep(2 * time.Minute)
		ends("a", aside.OutcomeNotModified, func(ctx context.Context) (string, error) {
			_, ok := aside.Previous[string](ctx)
			require.True(t, ok)
			return "", aside.ErrNotModified
		})
		ends("b", aside.OutcomeNotFound, func(context.Context) (string, error) { return "", aside.ErrNotFound })
		ends("c", aside.OutcomeError, func(context.Context) (string, error) { return "", asidetest.ErrLoader })
		ends("d", aside.OutcomePanic, func(context.Context) (string, error) { panic("boom") })
		ends("e", aside.OutcomePanic, func(context.Context) (string, error) { runtime.Goexit(); return "", nil })
		ends("f", aside.OutcomeTimeout, func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() })

		hangs := make(chan struct{}) // counted when its time is up, and not a second time when it returns
		ends("g", aside.OutcomeTimeout, func(context.Context) (string, error) { <-hangs; return "late", nil })
		close(hangs)
		synctest.Wait()
		require.Equal(t, want[aside.OutcomeTimeout], c.Metrics().Labels["ended"].Outcomes[aside.OutcomeTimeout])
		require.Equal(t, loads, c.Metrics().Labels["ended"].LoadTimes.Count)
		require.InDelta(t, 120, c.Metrics().Labels["ended"].LoadTimes.Sum, 0.1)

		left, leave := context.WithCancel(t.Context())
		_, err := aside.GetOrLoad(left, c, p.Key("h"), func(ctx context.Context) (string, error) {
			leave()
			<-ctx.Done()
			return "", ctx.Err()
		})
		require.ErrorIs(t, err, context.Canceled)
		synctest.Wait()
		require.EqualValues(t, 1, c.Metrics().Labels["ended"].Outcomes[aside.OutcomeCanceled])
	})
}

// A batch is one call of its loader, with the worst outcome of its ids.
func TestABatchHasOneOutcome(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	load := func(context.Context, []int) (map[int]string, error) {
		return map[int]string{1: "v"}, &aside.BatchError[int]{Errors: map[int]error{2: asidetest.ErrLoader}}
	}
	key := func(id int) aside.Key { return asidetest.Keyed.Key(id) }
	_, err := aside.GetOrLoadMany(t.Context(), c, []int{1, 2, 3}, key, load)
	require.ErrorIs(t, err, asidetest.ErrLoader)
	_, err = aside.GetOrLoadMany(t.Context(), c, []int{4, 5}, key, func(context.Context, []int) (map[int]string, error) { return map[int]string{5: "v"}, nil })
	require.NoError(t, err)
	m := c.Metrics().Labels["k"]
	require.EqualValues(t, 1, m.Outcomes[aside.OutcomeError])
	require.EqualValues(t, 1, m.Outcomes[aside.OutcomeOK])
	require.EqualValues(t, 2, m.LoadTimes.Count)
	require.EqualValues(t, 5, m.CallTimes.Count)
}

// Hits in memory are counted, and not timed.
func TestWhatIsTimed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{})
		load := func(context.Context) (string, error) { time.Sleep(3 * time.Second); return "v", nil }
		for range 5 {
			_, err := aside.GetOrLoad(t.Context(), c, asidetest.Keyed.Key("a"), load)
			require.NoError(t, err)
			_, err = aside.Get[string](t.Context(), c, asidetest.Keyed.Key("a"))
			require.NoError(t, err)
		}
		m := c.Metrics().Labels["k"]
		require.EqualValues(t, 9, m.MemoryHits)
		require.EqualValues(t, 1, m.CallTimes.Count)
		require.InDelta(t, 3, m.CallTimes.Sum, 0.01)
		require.InDelta(t, 3, m.LoadTimes.Sum, 0.01)
		require.InDelta(t, 3.36, m.CallTimes.Quantile(0.5), 0.01)
	})
	server := redistest.Start(t)
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.Stored(t, a, asidetest.Keyed.Key("a"), "v")
	_, err := aside.Get[string](t.Context(), b, asidetest.Keyed.Key("a"))
	require.NoError(t, err)
	require.EqualValues(t, 1, b.Metrics().Labels["k"].CallTimes.Count, "a read of Redis")
}

func TestTheSizesOfStoredValues(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{CompressFrom: -1})
		value := string(make([]byte, 10_000))
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Keyed.Key("a"), asidetest.Value(value))
		require.NoError(t, err)
		require.NoError(t, aside.Set(t.Context(), c, asidetest.Keyed.Key("b"), value))
		asidetest.Eventually(t, "both are stored", func() bool { return c.Metrics().Labels["k"].ValueBytes.Count >= 2 })
		m := c.Metrics().Labels["k"].ValueBytes
		require.EqualValues(t, 2, m.Count)
		require.Greater(t, m.Sum, 20_000.)
		require.Less(t, m.Sum, 22_000.)
	})
}

// The cause is that of the miss, whatever becomes of the load.
func TestACallWhoseLoadFailsHasItsCause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{Backoff: time.Hour})
		p := aside.Policy{Name: "failing", Category: "failing", TTL: time.Minute, StaleIfError: time.Hour}
		require.NoError(t, aside.Set(t.Context(), c, p.Key("a"), "v"))
		time.Sleep(2 * time.Minute)
		for range 3 { // the last one is held back
			_, err := aside.GetOrLoad(t.Context(), c, p.Key("a"), func(context.Context) (string, error) { return "", asidetest.ErrLoader }, aside.MaxStale(0))
			require.ErrorIs(t, err, asidetest.ErrLoader)
		}
		requireCauses(t, c, "failing", map[aside.Cause]uint64{aside.CauseExpired: 3})
	})
}
