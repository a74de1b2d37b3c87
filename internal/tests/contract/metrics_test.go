package contract_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

func TestCountersAreExact(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, ctx := asidetest.NewCache(t, aside.Options{MaxValueBytes: 1000}), t.Context()
		p := aside.Policy{Name: "counted", Category: "k", Label: "counted", TTL: time.Hour}
		a, none, bad, panicking, large, moved := p.Key("a"), p.Key("none"), p.Key("bad"), p.Key("panicking"), p.Key("large"), p.Key("moved")
		load := func(v string, err error) func(context.Context) (string, error) {
			return func(context.Context) (string, error) { time.Sleep(40 * time.Millisecond); return v, err }
		}
		get := func(key aside.Key, load func(context.Context) (string, error), opts ...aside.CallOption) {
			_, _ = aside.GetOrLoad(ctx, c, key, load, opts...)
		}
		// step runs calls and requires that the counters have moved by this much and by nothing else.
		var sum aside.LabelMetrics
		step := func(what string, change aside.LabelMetrics, calls func()) {
			t.Helper()
			calls()
			synctest.Wait()
			sum.Hits += change.Hits
			sum.Misses += change.Misses
			sum.Errors += change.Errors
			sum.LoadErrors += change.LoadErrors
			sum.EncodeErrors += change.EncodeErrors
			sum.MemoryHits += change.MemoryHits
			sum.NegativeHits += change.NegativeHits
			sum.Loads += change.Loads
			sum.FillsRejected += change.FillsRejected
			sum.LoadTime += change.LoadTime
			got := c.Metrics().Labels
			require.Len(t, got, 1, what)
			require.Equal(t, sum, asidetest.Numbers(got["counted"]), what)
		}
		const took = 40 * time.Millisecond
		step("a cold key", aside.LabelMetrics{Misses: 1, Loads: 1, LoadTime: took}, func() { get(a, load("v", nil)) })
		step("hits by every call", aside.LabelMetrics{Hits: 6, MemoryHits: 6}, func() {
			get(a, asidetest.Unreachable)
			get(a, asidetest.Unreachable, aside.WithTTL(time.Minute)) // not the path of a call without options
			_, err := aside.Lookup(ctx, c, a, asidetest.Unreachable)
			require.NoError(t, err)
			_, err = aside.Get[string](ctx, c, a)
			require.NoError(t, err)
			l := aside.NewLoader(c, p, func(context.Context, string) (string, error) { return "", asidetest.ErrLoader })
			_, err = l.Get(ctx, "a")
			require.NoError(t, err)
			_, err = l.GetMany(ctx, []string{"a", "a"})
			require.NoError(t, err)
		})
		step("Get of what is not there", aside.LabelMetrics{Misses: 1}, func() {
			_, err := aside.Get[string](ctx, c, p.Key("nothing"))
			require.ErrorIs(t, err, aside.ErrMiss)
		})
		step("not found is no error", aside.LabelMetrics{Misses: 1, Loads: 1, LoadTime: took}, func() { get(none, load("", aside.ErrNotFound)) })
		step("cached not found", aside.LabelMetrics{Hits: 3, MemoryHits: 3, NegativeHits: 3}, func() {
			get(none, asidetest.Unreachable)
			get(none, asidetest.Unreachable)
			_, err := aside.Get[string](ctx, c, none)
			require.ErrorIs(t, err, aside.ErrNotFound)
		})
		step("failing loads", aside.LabelMetrics{Misses: 2, Loads: 2, LoadErrors: 2, Errors: 2, LoadTime: 2 * took}, func() {
			get(bad, load("", asidetest.ErrLoader))
			get(bad, load("", asidetest.ErrLoader))
		})
		step("a panic", aside.LabelMetrics{Misses: 1, Loads: 1, LoadErrors: 1, Errors: 1}, func() {
			get(panicking, func(context.Context) (string, error) { panic("boom") })
		})
		step("a value too large", aside.LabelMetrics{Misses: 1, Loads: 1, EncodeErrors: 1, Errors: 1, LoadTime: took}, func() {
			get(large, load(strings.Repeat("x", 2000), nil))
		})
		step("an invalidation during the load", aside.LabelMetrics{Misses: 1, Loads: 1, FillsRejected: 1}, func() {
			get(moved, func(context.Context) (string, error) {
				_, err := c.Invalidate(ctx, moved)
				return "old", err
			})
		})
		step("a refresh is a miss", aside.LabelMetrics{Misses: 1, Loads: 1, LoadTime: took}, func() { get(a, load("w", nil), aside.Refresh()) })
		step("ten callers and one load", aside.LabelMetrics{Misses: 10, Loads: 1, LoadTime: took}, func() {
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() { get(p.Key("shared"), load("v", nil)) })
			}
			wg.Wait()
		})
		step("a batch is one call for each id and one load", aside.LabelMetrics{Hits: 1, MemoryHits: 1, Misses: 2, Loads: 1}, func() {
			_, err := aside.GetOrLoadMany(ctx, c, []string{"a", "b1", "b2"}, func(id string) aside.Key { return p.Key(id) },
				func(context.Context, []string) (map[string]string, error) { return map[string]string{"b1": "v"}, nil })
			require.NoError(t, err)
		})
		step("writes are no calls", aside.LabelMetrics{}, func() {
			require.NoError(t, aside.Set(ctx, c, a, "v"))
			_, err := c.Invalidate(ctx, a)
			require.NoError(t, err)
		})
		step("a caller that leaves has missed, and its load has not failed", aside.LabelMetrics{Misses: 1, Loads: 1}, func() {
			left, leave := context.WithCancel(ctx)
			_, err := aside.GetOrLoad(left, c, p.Key("left"), func(ctx context.Context) (string, error) {
				leave()
				<-ctx.Done()
				return "", ctx.Err()
			})
			require.ErrorIs(t, err, context.Canceled)
		})

		require.EqualValues(t, sum.Hits+sum.Misses, sum.Requests())
		require.EqualValues(t, 10, sum.Hits)
		require.EqualValues(t, 22, sum.Misses)
	})
}

func TestHitsInRedisAreHitsOfTheirTier(t *testing.T) {
	t.Parallel()
	c := asidetest.Connected(t, asidetest.At(redistest.Start(t).Addr()))
	asidetest.Stored(t, c, asidetest.Keyed.Key("a"), "v")
	for range 3 {
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Keyed.Key("a"), asidetest.Unreachable)
		require.NoError(t, err)
	}
	_, err := aside.Get[string](t.Context(), c, asidetest.Keyed.Key("b"))
	require.ErrorIs(t, err, aside.ErrMiss)
	require.Equal(t, aside.LabelMetrics{Hits: 3, RedisHits: 1, MemoryHits: 2, Misses: 1}, asidetest.Numbers(c.Metrics().Labels["k"]))
}

func TestRatesAreExactSharesOfTheCounters(t *testing.T) {
	t.Parallel()
	m := aside.LabelMetrics{Hits: 1250, Misses: 50, Errors: 13}
	require.EqualValues(t, 1300, m.Requests())
	require.InDelta(t, 1250.0/1300, m.HitRate(), 1e-15)
	require.InDelta(t, 50.0/1300, m.MissRate(), 1e-15)
	require.InDelta(t, 0.01, m.ErrorRate(), 1e-15)
	var none aside.LabelMetrics
	require.Zero(t, none.HitRate())
	require.Zero(t, none.MissRate())
	require.Zero(t, none.ErrorRate(), "errors without calls have no rate")
	require.Zero(t, aside.LabelMetrics{Errors: 3}.ErrorRate())
}

func TestMetricsMarshalToTheDocumentedForm(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(aside.Metrics{At: time.Unix(0, 0).UTC(), Process: "host/1/2", Labels: map[string]aside.LabelMetrics{"models": {
		Hits: 1200, Misses: 50, Errors: 10, LoadErrors: 4, RedisErrors: 3, DecodeErrors: 2, EncodeErrors: 1, MemoryHits: 1100,
		RedisHits: 100, NegativeHits: 7, Fallbacks: 5, Loads: 40, LoadTime: 60 * time.Millisecond, FillsRejected: 6,
		Causes: map[aside.Cause]uint64{aside.CauseAbsent: 50}, Outcomes: map[aside.Outcome]uint64{aside.OutcomeOK: 40},
		LoadTimes: aside.Histogram{Count: 3, Sum: 7.5, Buckets: []aside.Bucket{{Upper: 1, Count: 2}, {Upper: 4, Count: 1}}},
	}}})
	require.NoError(t, err)
	require.JSONEq(t, `{"metrics":{"models":{
		"hits":1200,"misses":50,"errors":10,"hitRate":0.96,"missRate":0.04,"errorRate":0.008,
		"loadErrors":4,"redisErrors":3,"decodeErrors":2,"encodeErrors":1,
		"memoryHits":1100,"redisHits":100,"negativeHits":7,"staleHits":0,"overloads":0,"fallbacks":5,"loads":40,"fillsRejected":6,"meanLoadMs":1.5,
		"refreshes":0,"refreshErrors":0,"refreshesSkipped":0,"unreturned":0,"staleOnError":0,"softTimeouts":0,"notModified":0,
		"loadSeconds":0.06,"causes":{"absent":50},"outcomes":{"ok":40},
		"loadTimes":{"count":3,"sum":7.5,"p50":1,"p99":4},"callTimes":{"count":0,"sum":0,"p50":0,"p99":0},"valueBytes":{"count":0,"sum":0,"p50":0,"p99":0}
	}},"invalidationMessages":0,"trackingLost":0,"trackingPaused":0,"redisErrors":0,"at":"1970-01-01T00:00:00Z","process":"host/1/2",
		"inMemory":{"entries":0,"bytes":0,"maxEntries":0,"maxBytes":0,"evictions":0,"evictedBytes":0},
		"loading":{"running":0,"queued":0,"limit":0,"queueLimit":0,"leasesHeld":0,"leasesUnreturned":0},
		"journal":{"unconfirmed":0,"patterns":0,"oldestSeconds":0},"invalidations":null,"redis":null,"swept":0}`, string(text))

	for _, c := range []*aside.Cache{nil, asidetest.NewCache(t, aside.Options{})} {
		m := c.Metrics()
		m = aside.Metrics{Labels: m.Labels, InvalidationMessages: m.InvalidationMessages, TrackingLost: m.TrackingLost, TrackingPaused: m.TrackingPaused, RedisErrors: m.RedisErrors}
		require.Equal(t, aside.Metrics{Labels: map[string]aside.LabelMetrics{}}, m, "before the first call")
	}
}

func TestCallsAreCountedUnderTheirPolicysLabel(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	calls := map[*aside.Policy]int{
		&aside.TTL.UserProfile: 1, &aside.TTL.UserCredits: 2, &aside.TTL.ModelsAll: 3, &aside.TTL.ModelDetail: 4, &asidetest.Keyed: 5,
	}
	for p, n := range calls {
		for i := range n {
			_, err := aside.GetOrLoad(t.Context(), c, p.Key("x", p.Name, i), func(context.Context) (int, error) { return i, nil })
			require.NoError(t, err)
		}
	}
	misses := map[string]uint64{}
	for label, m := range c.Metrics().Labels {
		misses[label] = m.Misses
	}
	require.Equal(t, map[string]uint64{"user_profile": 1, "user_credits": 2, "models": 7, "k": 5}, misses)
}

func TestNoCountIsLostBetweenGoroutines(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	const goroutines, rounds = 16, 500
	loader := aside.NewLoader(c, asidetest.Keyed, func(context.Context, int) (string, error) { return "", asidetest.ErrLoader })
	require.NoError(t, aside.Set(t.Context(), c, asidetest.Keyed.Key(1), "v"))
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range rounds {
				_, err1 := aside.GetOrLoad(t.Context(), c, asidetest.Keyed.Key(1), asidetest.Unreachable)
				_, err2 := loader.Get(t.Context(), 1)
				_, err3 := aside.Get[string](t.Context(), c, asidetest.Keyed.Key(1))
				_, miss := aside.Get[string](t.Context(), c, asidetest.Keyed.Key("none", g, i))
				_, fail := loader.Get(t.Context(), 1000+g*rounds+i)
				if err1 != nil || err2 != nil || err3 != nil || miss != aside.ErrMiss || fail != asidetest.ErrLoader {
					t.Errorf("%v, %v, %v, %v, %v", err1, err2, err3, miss, fail)
					return
				}
				c.Metrics() // a reader disturbs nobody
			}
		})
	}
	wg.Wait()
	// A load is counted when it has ended, which is after its callers have their answer.
	asidetest.Eventually(t, "the loads end", func() bool { return c.Metrics().Labels["k"].Loads == goroutines*rounds })
	const n = goroutines * rounds
	require.EqualValues(t, 3*n, c.Metrics().Labels["k"].Hits)
	const hits = 20_000 // back to back, so that they meet on the same counter
	for range goroutines {
		wg.Go(func() {
			for range hits {
				if _, err := loader.Get(t.Context(), 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	m := c.Metrics().Labels["k"]
	require.NotZero(t, m.LoadTime)
	m.LoadTime = 0
	require.Equal(t, aside.LabelMetrics{
		Hits: 3*n + goroutines*hits, MemoryHits: 3*n + goroutines*hits, Misses: 2 * n, Loads: n, LoadErrors: n, Errors: n,
	}, asidetest.Numbers(m))
}

func TestASnapshotDoesNotMove(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	_, err := aside.Get[string](t.Context(), c, asidetest.Keyed.Key("a"))
	require.ErrorIs(t, err, aside.ErrMiss)
	before := c.Metrics()
	_, err = aside.Get[string](t.Context(), c, asidetest.Keyed.Key("a"))
	require.ErrorIs(t, err, aside.ErrMiss)
	require.EqualValues(t, 1, before.Labels["k"].Misses)
	require.EqualValues(t, 2, c.Metrics().Labels["k"].Misses)
	delete(before.Labels, "k")
	require.Contains(t, c.Metrics().Labels, "k")
}

func TestTheMetricsOfACacheThatIsClosedCanStillBeRead(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	require.NoError(t, aside.Set(t.Context(), c, asidetest.Keyed.Key("a"), "v"))
	_, err := aside.Get[string](t.Context(), c, asidetest.Keyed.Key("a"))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	_, err = aside.Get[string](t.Context(), c, asidetest.Keyed.Key("a"))
	require.ErrorIs(t, err, aside.ErrClosed)
	require.Equal(t, aside.LabelMetrics{Hits: 1, MemoryHits: 1}, asidetest.Numbers(c.Metrics().Labels["k"]))
}
