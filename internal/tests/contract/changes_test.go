package contract_test

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

var (
	lists     = aside.Policy{Name: "lists", Category: "lists", TTL: time.Minute}
	rankings  = aside.Policy{Name: "rankings", Category: "rankings", TTL: time.Minute}
	unrelated = aside.Policy{Name: "others", Category: "others", TTL: time.Minute}
)

// fillForChanges caches two values a key: here, and where else c2 is not c.
func fillForChanges(t *testing.T, c *aside.Cache) {
	t.Helper()
	for i, key := range []aside.Key{asidetest.ItemKey(1), asidetest.ItemKey(2), lists.Key("red"), lists.Key("blue"), rankings.Key(1), unrelated.Key(1)} {
		var opts []aside.CallOption
		if i == 2 || i == 3 {
			opts = append(opts, aside.WithTags([]string{"red", "blue"}[i-2]))
		}
		asidetest.InMemory(t, c, key, asidetest.Value("old"), opts...)
	}
}

func TestOneCallInvalidatesKeysTagsAndCategories(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		events := make(chan aside.Invalidation, 100)
		o := aside.Options{Policies: []aside.Policy{asidetest.Items, lists, rankings, unrelated}, OnInvalidated: func(i aside.Invalidation) { events <- i }}
		c, ctx := newCache(o), t.Context()
		caches := []*aside.Cache{c}
		if c.Health().State != aside.StateMemory {
			caches = append(caches, newCache(aside.Options{Policies: o.Policies}))
		}
		for _, c := range caches {
			fillForChanges(t, c)
		}
		receipt, err := c.InvalidateChanges(ctx, aside.Changes{
			Keys: []aside.Key{asidetest.ItemKey(1), asidetest.ItemKey(7)}, Tags: []string{"red", "red", "never used"}, Categories: []string{"rankings", "rankings"},
		})
		require.NoError(t, err)
		require.True(t, receipt.Confirmed)
		require.EqualValues(t, 1, receipt.Removed, "the value of the key that was there")
		for i, c := range caches {
			for key, want := range map[aside.Key]string{
				asidetest.ItemKey(1): "new", asidetest.ItemKey(2): "old", lists.Key("red"): "new", lists.Key("blue"): "old", rankings.Key(1): "new", unrelated.Key(1): "old",
			} {
				if i == 0 { // this process has it at once, unrelated once Redis' push has come
					v, err := aside.GetOrLoad(ctx, c, key, asidetest.Value("new"))
					require.NoError(t, err)
					require.Equal(t, want, v, key.String())
					continue
				}
				asidetest.Eventually(t, key.String()+" elsewhere is "+want, func() bool {
					v, err := aside.GetOrLoad(ctx, c, key, asidetest.Value("new"))
					require.NoError(t, err)
					return v == want
				})
			}
		}
		removed, err := receipt.WaitCleanup(ctx)
		require.NoError(t, err)
		require.GreaterOrEqual(t, removed, int64(1))
		require.LessOrEqual(t, removed, int64(3), "what was loaded anew meanwhile is not counted")
		var got []aside.Invalidation
		for range 3 {
			e := <-events
			require.NotZero(t, e.At)
			e.At = time.Time{}
			got = append(got, e)
		}
		require.Equal(t, []aside.Invalidation{
			{Keys: []string{asidetest.ItemKey(1).String(), asidetest.ItemKey(7).String()}}, {Tags: []string{"red", "red", "never used"}}, {Category: "rankings"},
		}, got)
		seen := c.Recent().Invalidations
		require.Len(t, seen, 3)
		require.Equal(t, map[string]uint64{"keys": 1, "tags": 1, "category": 1, "pattern": 0, "all": 0}, c.Metrics().Invalidations)
		for _, e := range seen {
			require.Equal(t, e.Kind == "keys", e.Removed == 1, e.Kind)
		}
	})
}

// In memory mode all values that were invalidated are counted in the end.
func TestTheCleanupOfChangesCountsKeysAndTheRest(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{Policies: []aside.Policy{rankings}})
	fillForChanges(t, c)
	receipt, err := c.InvalidateChanges(t.Context(), aside.Changes{Keys: []aside.Key{asidetest.ItemKey(1), asidetest.ItemKey(2)}, Tags: []string{"red"}, Categories: []string{"rankings"}})
	require.NoError(t, err)
	removed, err := receipt.WaitCleanup(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 4, removed)
}

func TestChangesOfOneKindAndOfNone(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{Policies: []aside.Policy{rankings}}), t.Context()
		for _, ch := range []aside.Changes{{Keys: []aside.Key{asidetest.ItemKey(1)}}, {Tags: []string{"red"}}, {Categories: []string{"rankings"}}} {
			fillForChanges(t, c)
			receipt, err := c.InvalidateChanges(ctx, ch)
			require.NoError(t, err)
			require.True(t, receipt.Confirmed)
			for key, gone := range map[aside.Key]bool{asidetest.ItemKey(1): ch.Keys != nil, lists.Key("red"): ch.Tags != nil, rankings.Key(1): ch.Categories != nil, unrelated.Key(1): false} {
				_, err := aside.Get[string](ctx, c, key)
				require.Equal(t, gone, err != nil, "%v: %v: %v", ch, key, err)
			}
		}
		receipt, err := c.InvalidateChanges(ctx, aside.Changes{})
		require.NoError(t, err)
		require.True(t, receipt.Confirmed)
		require.NoError(t, receipt.Wait(ctx))
	})
}

func TestWrongChangesInvalidateNothingButUnknownCategories(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{Policies: []aside.Policy{rankings}}), t.Context()
		fillForChanges(t, c)
		good := aside.Changes{Keys: []aside.Key{asidetest.ItemKey(1)}, Tags: []string{"red"}, Categories: []string{"rankings"}}
		with := func(change func(*aside.Changes)) aside.Changes {
			ch := aside.Changes{Keys: slices.Clone(good.Keys), Tags: slices.Clone(good.Tags), Categories: slices.Clone(good.Categories)}
			change(&ch)
			return ch
		}
		for want, ch := range map[string]aside.Changes{
			"key":                     with(func(ch *aside.Changes) { ch.Keys = append(ch.Keys, aside.Key{}) }),
			"tag":                     with(func(ch *aside.Changes) { ch.Tags = append(ch.Tags, "") }),
			`there is no category ""`: with(func(ch *aside.Changes) { ch.Categories = append(ch.Categories, "") }),
			`category "all"`:          with(func(ch *aside.Changes) { ch.Categories = append(ch.Categories, "all") }),
			`category "a:b"`:          with(func(ch *aside.Changes) { ch.Categories = append(ch.Categories, "a:b") }),
		} {
			_, err := c.InvalidateChanges(ctx, ch)
			require.ErrorContains(t, err, want)
			for _, key := range []aside.Key{asidetest.ItemKey(1), lists.Key("red"), rankings.Key(1)} {
				_, err := aside.Get[string](ctx, c, key)
				require.NoError(t, err, "%s: %v", want, key)
			}
		}
		receipt, err := c.InvalidateChanges(ctx, with(func(ch *aside.Changes) { ch.Categories = append(ch.Categories, "rankigns", "otehrs") }))
		require.ErrorContains(t, err, `there is no category "rankigns"`)
		require.ErrorContains(t, err, `there is no category "otehrs"`)
		require.True(t, receipt.Confirmed)
		for _, key := range []aside.Key{asidetest.ItemKey(1), lists.Key("red"), rankings.Key(1)} {
			_, err := aside.Get[string](ctx, c, key)
			require.ErrorIs(t, err, aside.ErrMiss)
		}
	})
	var none *aside.Cache
	_, err := none.InvalidateChanges(t.Context(), aside.Changes{})
	require.Error(t, err)
	closed := asidetest.NewCache(t, aside.Options{})
	require.NoError(t, closed.Close())
	_, err = closed.InvalidateChanges(t.Context(), aside.Changes{Tags: []string{"red"}})
	require.ErrorIs(t, err, aside.ErrClosed)
	_, err = closed.InvalidatePolicy(t.Context(), rankings)
	require.ErrorIs(t, err, aside.ErrClosed)
}

// A write costs what one invalidation costs: a round trip, however much it has changed.
func TestChangesTakeOneRoundTrip(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	asidetest.Repeatedly(t, "the client sends what belongs together at once", func() bool {
		o := asidetest.At(server.Addr())
		o.Policies = []aside.Policy{lists, rankings}
		proxy := redistest.StartProxy(t, server.Addr())
		o.Redis.InitAddress = []string{proxy.Addr()}
		c := asidetest.Connected(t, o)
		defer c.Close()
		fillForChanges(t, c)
		ch := aside.Changes{Tags: []string{"red", "blue"}, Categories: []string{"lists", "rankings"}}
		for i := range 20 {
			ch.Keys = append(ch.Keys, asidetest.ItemKey(i))
		}
		_, err := c.InvalidateChanges(t.Context(), ch) // the server knows the scripts
		require.NoError(t, err)
		proxy.ResetCounts()
		receipt, err := c.InvalidateChanges(t.Context(), ch)
		trips := proxy.Requests()
		require.NoError(t, err)
		require.True(t, receipt.Confirmed)
		t.Log(trips)
		return trips == 1 || asidetest.InCluster && trips <= 2
	})
}

// Without Redis the receipt waits for both halves.
func TestChangesAreRetriedUntilRedisIsBack(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.Policies = []aside.Policy{lists, rankings}
	a, b := asidetest.Connected(t, o), asidetest.Connected(t, o)
	fillForChanges(t, a)
	fillForChanges(t, b)
	proxy := redistest.StartProxy(t, server.Addr())
	o.Redis.InitAddress = []string{proxy.Addr()}
	c := asidetest.Connected(t, o)
	proxy.Refuse(true)
	proxy.CloseConnections()
	asidetest.Eventually(t, "the loss is noticed", func() bool { return c.Health().State == aside.StateDegraded })
	receipt, err := c.InvalidateChanges(t.Context(), aside.Changes{Keys: []aside.Key{asidetest.ItemKey(1)}, Tags: []string{"red"}, Categories: []string{"rankings"}})
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, receipt.Wait(ended), context.Canceled)
	require.GreaterOrEqual(t, c.Metrics().Journal.Unconfirmed, 3)
	proxy.Refuse(false)
	require.NoError(t, receipt.Wait(t.Context()))
	for _, key := range []aside.Key{asidetest.ItemKey(1), lists.Key("red"), rankings.Key(1)} {
		asidetest.Eventually(t, key.String()+" is new elsewhere", func() bool {
			v, err := aside.GetOrLoad(t.Context(), b, key, asidetest.Value("new"))
			require.NoError(t, err)
			return v == "new"
		})
	}
}

func TestAPolicyIsInvalidatedByItself(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{}), t.Context()
		fillForChanges(t, c)
		receipt, err := c.InvalidatePolicy(ctx, rankings)
		require.NoError(t, err)
		require.True(t, receipt.Confirmed)
		_, err = aside.Get[string](ctx, c, rankings.Key(1))
		require.ErrorIs(t, err, aside.ErrMiss)
		_, err = aside.Get[string](ctx, c, unrelated.Key(1))
		require.NoError(t, err)

		unused := aside.Policy{Name: "unused", Category: "unused", TTL: time.Minute}
		_, err = c.InvalidatePolicy(ctx, unused)
		require.NoError(t, err, "a policy cannot be misspelt")
		_, err = c.InvalidatePolicy(ctx, aside.Policy{Category: "no TTL"})
		require.ErrorContains(t, err, "TTL")

		l := aside.NewLoader(c, unrelated, func(_ context.Context, id int) (string, error) { return "new " + strconv.Itoa(id), nil })
		_, err = l.InvalidateAll(ctx)
		require.NoError(t, err)
		v, err := l.Get(ctx, 1)
		require.NoError(t, err)
		require.Equal(t, "new 1", v)
	})
	var l *aside.Loader[int, string]
	_, err := l.InvalidateAll(t.Context())
	require.ErrorContains(t, err, "the Loader is nil or zero")
}
