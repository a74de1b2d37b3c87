package contract_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// bypassPolicies are two categories, the first with every strategy.
var bypassPolicies = []aside.Policy{
	{Category: "past", TTL: time.Hour, Stale: time.Hour, StaleIfError: 2 * time.Hour, RefreshAhead: 0.5},
	{Category: "kept", TTL: time.Hour},
}

func bypassOptions(change ...func(*aside.Options)) aside.Options {
	o := aside.Options{Policies: bypassPolicies}
	for _, f := range change {
		f(&o)
	}
	return o
}

func TestLoadersAloneAnswerCallsThatBypassTheCache(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(bypassOptions())
		past, kept := bypassPolicies[0].Key(1), bypassPolicies[1].Key(1)
		for _, key := range []aside.Key{past, kept} {
			require.Equal(t, "cached", asidetest.InMemory(t, c, key, asidetest.Value("cached")))
		}
		loader := aside.NewLoader(c, bypassPolicies[0], func(context.Context, int) (string, error) { return "by loader", nil })
		many := func(_ context.Context, ids []int) (map[int]string, error) {
			all := make(map[int]string, len(ids))
			for _, id := range ids {
				all[id] = "batch"
			}
			return all, nil
		}

		require.NoError(t, c.Bypass(true, "past"))
		require.NoError(t, c.Bypass(true, "past"), "once more changes nothing")
		for n := range 3 {
			v, err := aside.GetOrLoad(t.Context(), c, past, asidetest.Value("source"+strconv.Itoa(n)))
			require.NoError(t, err)
			require.Equal(t, "source"+strconv.Itoa(n), v)
		}
		r, err := aside.Lookup(t.Context(), c, past, asidetest.Value("source"))
		require.NoError(t, err)
		require.Equal(t, "source", r.Value)
		require.Equal(t, aside.StatusMiss, r.Status)
		require.Equal(t, aside.TierOrigin, r.Tier)
		require.Equal(t, aside.ReasonBypassed, r.Reason)
		require.Equal(t, aside.CauseAsked, r.Cause)
		require.Zero(t, r.TTL)
		v, err := loader.Get(t.Context(), 1)
		require.NoError(t, err)
		require.Equal(t, "by loader", v)
		_, err = aside.Get[string](t.Context(), c, past)
		require.ErrorIs(t, err, aside.ErrMiss)
		_, err = aside.GetOrLoad(t.Context(), c, past, func(ctx context.Context) (string, error) {
			_, ok := aside.Previous[string](ctx)
			require.False(t, ok, "nothing is read")
			return "", errors.New("away")
		})
		require.ErrorContains(t, err, "away", "no older value stands in")

		v, err = aside.GetOrLoad(t.Context(), c, kept, asidetest.Value("source"))
		require.NoError(t, err)
		require.Equal(t, "cached", v, "another category")
		calls := 0
		values, err := aside.GetOrLoadMany(t.Context(), c, []int{1, 2, 3, 4}, func(id int) aside.Key { return bypassPolicies[id%2].Key((id + 1) / 2) },
			func(ctx context.Context, ids []int) (map[int]string, error) {
				calls++
				return many(ctx, ids)
			})
		require.NoError(t, err)
		require.Equal(t, map[int]string{1: "cached", 2: "batch", 3: "batch", 4: "batch"}, values)
		require.Equal(t, 1, calls, "of the loader, for the ids of both categories")
		_, err = aside.Get[string](t.Context(), c, bypassPolicies[0].Key(2))
		require.ErrorIs(t, err, aside.ErrMiss)

		require.NoError(t, c.Bypass(false, "past"))
		r, err = aside.Lookup(t.Context(), c, past, asidetest.Value("source"))
		require.NoError(t, err)
		require.Equal(t, "cached", r.Value, "it is still there")
		_, err = aside.Get[string](t.Context(), c, bypassPolicies[0].Key(2))
		require.ErrorIs(t, err, aside.ErrMiss, "what was loaded meanwhile was not stored")
		v, err = aside.Get[string](t.Context(), c, bypassPolicies[1].Key(2))
		require.NoError(t, err)
		require.Equal(t, "batch", v, "an id of the same batch that does not bypass the cache")
	})
}

func TestWhatIsCachedIsInvalidatedWhileCallsBypassIt(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(bypassOptions())
		p := bypassPolicies[1]
		for id := range 5 {
			asidetest.InMemory(t, c, p.Key(id), asidetest.Value("cached"), aside.WithTags("t"+strconv.Itoa(id)))
		}
		require.NoError(t, c.Bypass(true))
		_, err := c.Invalidate(t.Context(), p.Key(0))
		require.NoError(t, err)
		_, err = c.InvalidateTags(t.Context(), "t1")
		require.NoError(t, err)
		require.NoError(t, aside.Set(t.Context(), c, p.Key(2), "set"))
		_, err = aside.GetOrLoad(t.Context(), c, p.Key(3), asidetest.Value("refreshed"), aside.Refresh())
		require.NoError(t, err)
		require.NoError(t, c.Bypass(false))
		for id := range 4 {
			_, err := aside.Get[string](t.Context(), c, p.Key(id))
			require.ErrorIs(t, err, aside.ErrMiss, "%d", id)
		}
		v, err := aside.Get[string](t.Context(), c, p.Key(4))
		require.NoError(t, err)
		require.Equal(t, "cached", v)
	})
}

func TestCallsThatBypassTheCacheShareALoadWithEachOtherAlone(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(bypassOptions())
		key := bypassPolicies[1].Key(1)
		before := asidetest.NewHeld()
		first := asidetest.Background(t, c, key, before.Load("before"))
		<-before.Began
		require.NoError(t, c.Bypass(true, "kept"))

		const callers = 20
		id := 100
		asidetest.Repeatedly(t, "all callers come within the second in which they may join", func() bool {
			id++
			held := asidetest.NewHeld()
			var got []<-chan string
			for range callers {
				got = append(got, asidetest.Waiting(t, c, bypassPolicies[1].Key(id), held.Load("bypassed")))
			}
			close(held.Release)
			for _, v := range got {
				require.Equal(t, "bypassed", <-v)
			}
			return held.Loads.Load() == 1
		})
		v, err := aside.GetOrLoad(t.Context(), c, key, asidetest.Value("another load"))
		require.NoError(t, err)
		require.Equal(t, "another load", v)

		close(before.Release)
		require.Equal(t, "before", <-first)
		require.NoError(t, c.Bypass(false))
		asidetest.Eventually(t, "the load from before has stored its value", func() bool {
			v, err := aside.Get[string](t.Context(), c, key)
			return err == nil && v == "before"
		})

		// The other way around: a load that bypasses the cache is not shared by a call that does not.
		require.NoError(t, c.Bypass(true))
		again := asidetest.NewHeld()
		late := asidetest.Background(t, c, bypassPolicies[1].Key(2), again.Load("bypassed"))
		<-again.Began
		require.NoError(t, c.Bypass(false))
		v, err = aside.GetOrLoad(t.Context(), c, bypassPolicies[1].Key(2), asidetest.Value("stored"))
		require.NoError(t, err)
		require.Equal(t, "stored", v)
		close(again.Release)
		require.Equal(t, "bypassed", <-late)
		asidetest.Eventually(t, "the value of the other load is stored", func() bool {
			v, err := aside.Get[string](t.Context(), c, bypassPolicies[1].Key(2))
			return err == nil && v == "stored"
		})
	})
}

func TestALoadThatBypassesTheCacheIsNotJoinedAfterAnInvalidation(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(bypassOptions())
		require.NoError(t, c.Bypass(true))
		for name, invalidate := range map[string]func(aside.Key) error{
			"key":      func(key aside.Key) error { _, err := c.Invalidate(t.Context(), key); return err },
			"category": func(aside.Key) error { _, err := c.InvalidateCategory(t.Context(), "kept"); return err },
		} {
			key, held := bypassPolicies[1].Key(name), asidetest.NewHeld()
			old := asidetest.Background(t, c, key, held.Load("old"))
			<-held.Began
			require.NoError(t, invalidate(key))
			v, err := aside.GetOrLoad(t.Context(), c, key, asidetest.Value("new"))
			require.NoError(t, err)
			require.Equal(t, "new", v, name)
			close(held.Release)
			require.Equal(t, "old", <-old)
		}
	})
}

func TestMaxLoadsAndLoadTimeoutHoldForCallsThatBypassTheCache(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(bypassOptions(func(o *aside.Options) { o.MaxLoads, o.MaxQueuedLoads, o.Backoff = 1, -1, -1 }))
		require.NoError(t, c.Bypass(true))
		held := asidetest.NewHeld()
		first := asidetest.Background(t, c, bypassPolicies[1].Key(1), held.Load("v"))
		<-held.Began
		_, err := aside.GetOrLoad(t.Context(), c, bypassPolicies[1].Key(2), asidetest.Value("v"))
		asidetest.RequireCode(t, err, aside.CodeOverloaded)
		close(held.Release)
		require.Equal(t, "v", <-first)

		brief := aside.Policy{Category: "brief", TTL: time.Hour, LoadTimeout: 20 * time.Millisecond}
		_, err = aside.GetOrLoad(t.Context(), c, brief.Key(1), func(ctx context.Context) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		})
		asidetest.RequireCode(t, err, aside.CodeLoadTimeout)
	})
}

func TestACallThatBypassesTheCacheSendsRedisNothing(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := bypassOptions()
	o.Redis = asidetest.At(server.Addr()).Redis
	c := asidetest.Connected(t, o)
	require.NoError(t, c.Bypass(true))
	trips := func() (n uint64) {
		for _, of := range c.Metrics().Redis {
			n += of.Count
		}
		return n
	}
	before := trips()
	for id := range 100 {
		_, err := aside.GetOrLoad(t.Context(), c, bypassPolicies[id%2].Key(id), asidetest.Value("v"))
		require.NoError(t, err)
		_, err = aside.Get[string](t.Context(), c, bypassPolicies[0].Key(id))
		require.ErrorIs(t, err, aside.ErrMiss)
	}
	require.Less(t, trips()-before, uint64(50), "no call asks, whatever the background sends")
	require.Empty(t, server.MustDo(t, "KEYS", "past:*"))
	require.Empty(t, server.MustDo(t, "KEYS", "kept:*"))
	require.Zero(t, c.Metrics().InMemory.Entries)
}

func TestWarmFailsWhileItsCallsBypassTheCache(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(bypassOptions())
		loads := 0
		loader := aside.NewBatchLoader(c, bypassPolicies[1], func(_ context.Context, ids []int) (map[int]string, error) {
			loads++
			return map[int]string{ids[0]: "v"}, nil
		})
		ids := func(yield func(int) bool) { yield(1) }
		require.NoError(t, c.Bypass(true, "kept"))
		w, err := loader.Warm(t.Context(), ids, aside.Warming{Name: "w"})
		asidetest.RequireCode(t, err, aside.CodeUnavailable)
		require.ErrorContains(t, err, `"kept"`)
		require.Equal(t, 1, w.Failed)
		require.Zero(t, loads)
		require.NoError(t, c.Bypass(false))
		w, err = loader.Warm(t.Context(), ids, aside.Warming{Name: "w"})
		require.NoError(t, err)
		require.Equal(t, 1, w.Loaded)
	})
}

func TestWhoBypassesTheCacheIsTold(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		logged := new(asidetest.Logbook)
		c := newCache(bypassOptions(func(o *aside.Options) { o.Logger = logged.Logger() }))
		require.Empty(t, c.Health().Bypassed)
		state := c.Health().State
		last := func() aside.StateChange {
			all := c.Recent().States
			return all[len(all)-1]
		}
		for _, step := range []struct {
			on         bool
			categories []string
			want       []string
		}{
			{true, []string{"past"}, []string{"past"}},
			{true, nil, []string{"all", "past"}},
			{false, nil, nil},
			{true, []string{"past", "kept"}, []string{"kept", "past"}},
			{false, []string{"past"}, []string{"kept"}},
			{false, []string{"kept"}, nil},
		} {
			require.NoError(t, c.Bypass(step.on, step.categories...))
			require.Equal(t, step.want, c.Health().Bypassed)
			require.Equal(t, state, c.Health().State)
			require.Equal(t, step.want, last().Bypassed)
			require.Equal(t, state, last().State)
		}
		changes := len(c.Recent().States)
		require.NoError(t, c.Bypass(false))
		require.NoError(t, c.Bypass(false, "past"))
		require.Len(t, c.Recent().States, changes, "no change")
		asidetest.Eventually(t, "each change has a line", func() bool {
			return logged.With("calls bypass the cache, loaders alone answer them") == 4 && logged.With("calls no longer bypass the cache") == 2
		})
	})
}

func TestABypassOfNothingThatIsKnownIsAnError(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, bypassOptions())
	asidetest.InMemory(t, c, bypassPolicies[1].Key(1), asidetest.Value("cached"))
	for _, wrong := range []string{"kpet", "", "all"} {
		err := c.Bypass(true, "kept", wrong)
		asidetest.RequireCode(t, err, aside.CodeInvalidArgument)
		require.ErrorContains(t, err, "kept", "it names the categories")
	}
	require.Empty(t, c.Health().Bypassed, "nothing was changed")
	require.NoError(t, c.Bypass(true))
	asidetest.RequireCode(t, c.Bypass(false, "kept"), aside.CodeInvalidArgument)
	require.Equal(t, []string{"all"}, c.Health().Bypassed)
	require.NoError(t, c.Bypass(false))
	v, err := aside.Get[string](t.Context(), c, bypassPolicies[1].Key(1))
	require.NoError(t, err)
	require.Equal(t, "cached", v)

	asidetest.RequireCode(t, (*aside.Cache)(nil).Bypass(true), aside.CodeInvalidArgument)
	require.NoError(t, c.Close())
	require.ErrorIs(t, c.Bypass(true), aside.ErrClosed)
	_, err = aside.GetOrLoad(t.Context(), c, bypassPolicies[1].Key(1), asidetest.Value("v"))
	require.ErrorIs(t, err, aside.ErrClosed)
}
