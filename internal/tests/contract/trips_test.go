package contract_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// tripsOf are the counts of round trips by their purpose, those without any left out.
func tripsOf(c *aside.Cache) map[string]uint64 {
	counts := make(map[string]uint64)
	for of, h := range c.Metrics().Redis {
		if h.Count > 0 {
			counts[of] = h.Count
		}
	}
	return counts
}

func TestRoundTripsAreTimedByWhatTheyAreFor(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, other := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	require.Empty(t, tripsOf(c), "to connect is for nothing of this")
	require.Len(t, c.Metrics().Redis, 5, "each purpose is there from the start")
	before := tripsOf(c)
	// grown requires that there was at least one round trip of each of these purposes since, and of the others only such as a process makes by itself
	// when a call takes long: it reads generations that are in use, and renews leases.
	grown := func(what string, purposes ...string) {
		t.Helper()
		now := tripsOf(c)
		var more []string
		for of, n := range now {
			if n > before[of] {
				more = append(more, of)
			}
		}
		require.Subset(t, more, purposes, what)
		require.Subset(t, append(purposes, "read", "lease"), more, what)
		before = now
	}
	key := asidetest.Items.Key("a")
	asidetest.Stored(t, other, key, "v", aside.WithTags("x"))
	_, err := aside.Get[string](t.Context(), c, key)
	require.NoError(t, err)
	grown("a hit in Redis", "read")
	_, err = aside.Get[string](t.Context(), c, key)
	require.NoError(t, err)
	grown("a hit in memory")
	asidetest.InMemory(t, c, asidetest.Items.Key("b"), asidetest.Value("v"), aside.WithTags("x"))
	grown("a miss", "read", "lease", "fill")
	_, err = c.Invalidate(t.Context(), key)
	require.NoError(t, err)
	grown("an invalidation", "invalidate")
	receipt, err := c.InvalidateTags(t.Context(), "x")
	require.NoError(t, err)
	removed, err := receipt.WaitCleanup(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, removed)
	grown("an invalidation and its cleanup", "invalidate", "sweep")
	asidetest.Stored(t, other, key, "v")
	_, err = c.InvalidatePattern(t.Context(), asidetest.Items.Match(aside.Wildcard))
	require.NoError(t, err)
	grown("what a pattern removes is no sweep", "invalidate")

	for of, h := range c.Metrics().Redis {
		require.Positive(t, h.Sum, of)
		require.Less(t, h.Sum, time.Hour.Seconds(), of)
	}
	require.Len(t, asidetest.NewCache(t, aside.Options{}).Metrics().Redis, 5)
	require.NotNil(t, (*aside.Cache)(nil).Metrics().Redis)
}

func TestARoundTripTakesAsLongAsRedisDoes(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	c := asidetest.Connected(t, asidetest.At(proxy.Addr()))
	key := asidetest.Items.Key("a")
	held := proxy.HoldRequests(func(args []string) bool { return asidetest.IsFill(args, key.String()) })
	_, err := aside.GetOrLoad(t.Context(), c, key, asidetest.Value("v"))
	require.NoError(t, err)
	held.Wait(t)
	began := time.Now()
	asidetest.Eventually(t, "a moment passes", func() bool { return time.Since(began) > 100*time.Millisecond })
	require.Zero(t, tripsOf(c)["fill"])
	waited := time.Since(began)
	held.Release()
	asidetest.Eventually(t, "the value is stored", func() bool { return tripsOf(c)["fill"] == 1 })
	require.GreaterOrEqual(t, c.Metrics().Redis["fill"].Sum, waited.Seconds())
}

func TestARoundTripThatIsNotAnsweredTakesAsLongAsItMay(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	o := asidetest.At(proxy.Addr())
	o.OpTimeout = 200 * time.Millisecond
	c := asidetest.Connected(t, o)
	proxy.HoldRequests(func(args []string) bool { return args[0] == "GETRANGE" && args[1] == "items:a" })
	asidetest.Repeatedly(t, "Redis is available, so it is asked", func() bool {
		before := c.Metrics().Redis["read"]
		_, err := aside.Get[string](t.Context(), c, asidetest.Items.Key("a"))
		require.ErrorIs(t, err, aside.ErrMiss)
		after := c.Metrics().Redis["read"]
		return after.Count == before.Count+1 && after.Sum-before.Sum >= o.OpTimeout.Seconds()
	})

	before := tripsOf(c)["read"]
	ctx, leave := context.WithTimeout(t.Context(), time.Millisecond)
	defer leave()
	_, err := aside.Get[string](ctx, c, asidetest.Items.Key("a"))
	require.Error(t, err)
	require.Equal(t, before, tripsOf(c)["read"], "a caller without time says nothing about Redis")
}

// A cleanup gives Redis two seconds for each round trip.
func TestACleanupThatIsNotAnsweredIsTimed(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	c := asidetest.Connected(t, asidetest.At(proxy.Addr()))
	key := asidetest.Items.Key("a")
	asidetest.Stored(t, c, key, "v")
	held := proxy.HoldRequests(func(args []string) bool { return asidetest.Evalsha(args, key.String()) })
	_, err := c.InvalidateCategory(t.Context(), asidetest.Items.Category)
	require.NoError(t, err)
	asidetest.Eventually(t, "it is given up", func() bool { return c.Metrics().Redis["sweep"].Sum >= 2 })
	held.Release()
}

func TestSweptValuesAreCounted(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		var want int64
		sweep := func(receipt aside.Receipt, err error) {
			t.Helper()
			require.NoError(t, err)
			removed, err := receipt.WaitCleanup(t.Context())
			require.NoError(t, err)
			want += removed
			require.EqualValues(t, want, c.Metrics().Swept)
		}
		for i := range 10 {
			asidetest.Stored(t, c, asidetest.Items.Key(i), "v", aside.WithTags(fmt.Sprint(i%2)))
		}
		require.Zero(t, c.Metrics().Swept)
		sweep(c.InvalidateTags(t.Context(), "0"))
		require.EqualValues(t, 5, want)
		sweep(c.InvalidateTags(t.Context(), "0"))
		require.EqualValues(t, 5, want, "there are none any more")
		sweep(c.InvalidateCategory(t.Context(), "items"))
		require.EqualValues(t, 10, want)
		asidetest.Stored(t, c, asidetest.Items.Key(1), "v")
		sweep(c.InvalidateAll(t.Context()))
		require.EqualValues(t, 11, want)
		asidetest.Stored(t, c, asidetest.Items.Key(1), "v")
		_, err := c.Invalidate(t.Context(), asidetest.Items.Key(1))
		require.NoError(t, err)
		require.EqualValues(t, 11, c.Metrics().Swept, "an invalidation by key removes values itself")
	})
}

func TestRoundTripsInJSON(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(asidetest.NewCache(t, aside.Options{}).Metrics())
	require.NoError(t, err)
	var m struct {
		Redis map[string]map[string]float64
		Swept *uint64
	}
	require.NoError(t, json.Unmarshal(text, &m))
	none := map[string]float64{"count": 0, "sum": 0, "p50": 0, "p99": 0}
	require.Equal(t, map[string]map[string]float64{"read": none, "lease": none, "fill": none, "invalidate": none, "sweep": none}, m.Redis)
	require.NotNil(t, m.Swept)
}
