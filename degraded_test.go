package aside_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// away makes a cache whose server is killed once the cache has something in memory.
func away(t *testing.T, o aside.Options, prepare func(c *aside.Cache)) *aside.Cache {
	t.Helper()
	server := redistest.Start(t)
	o.Redis, o.OpTimeout = at(server.Addr()).Redis, at(server.Addr()).OpTimeout
	c := connected(t, o)
	prepare(c)
	server.Kill()
	eventually(t, "the loss is noticed", func() bool { return c.Health().State == aside.StateDegraded })
	return c
}

func requireStale(t *testing.T, c *aside.Cache, key aside.Key, want string, opts ...aside.CallOption) {
	t.Helper()
	r, err := aside.Lookup(t.Context(), c, key, value("loaded"), opts...)
	require.NoError(t, err)
	require.Equal(t, aside.StatusStale, r.Status)
	require.Equal(t, aside.TierMemory, r.Tier)
	require.Equal(t, want, r.Value)
	require.Zero(t, r.TTL)
	require.Equal(t, "redis is unavailable", r.Reason)
}

func requireLoaded(t *testing.T, c *aside.Cache, key aside.Key, opts ...aside.CallOption) {
	t.Helper()
	r, err := aside.Lookup(t.Context(), c, key, value("loaded"), opts...)
	require.NoError(t, err)
	require.Equal(t, aside.StatusFallback, r.Status)
	require.Equal(t, "loaded", r.Value)
}

func TestWhatMemoryHasIsServedAsStaleWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	a, b := items.Key("a"), items.Key("b")
	c := away(t, aside.Options{}, func(c *aside.Cache) { inMemory(t, c, a, value("before")) })
	requireStale(t, c, a, "before")
	v, err := aside.Get[string](t.Context(), c, a)
	require.NoError(t, err)
	require.Equal(t, "before", v)
	_, err = aside.Get[string](t.Context(), c, b)
	require.ErrorIs(t, err, aside.ErrMiss)

	requireLoaded(t, c, b)
	requireStale(t, c, b, "loaded")
	many, err := aside.GetOrLoadMany(t.Context(), c, []string{"a", "b"}, func(id string) aside.Key { return items.Key(id) },
		func(context.Context, []string) (map[string]string, error) { panic("both are there") })
	require.NoError(t, err)
	require.Equal(t, map[string]string{"a": "before", "b": "loaded"}, many)

	m := c.Metrics().Labels["items"]
	require.EqualValues(t, 5, m.StaleHits)
	require.EqualValues(t, 1, m.Fallbacks)
	requireLoaded(t, c, a, aside.Strong())
	requireLoaded(t, c, a, aside.Refresh())
}

func TestANotFoundIsStaleToo(t *testing.T) {
	t.Parallel()
	key := items.Key("a")
	c := away(t, aside.Options{}, func(*aside.Cache) {})
	absent := func(context.Context) (string, error) { return "", aside.ErrNotFound }
	for _, status := range []aside.Status{aside.StatusFallback, aside.StatusStale} {
		r, err := aside.Lookup(t.Context(), c, key, absent)
		require.ErrorIs(t, err, aside.ErrNotFound)
		require.Equal(t, status, r.Status)
	}
	require.EqualValues(t, 1, c.Metrics().Labels["items"].NegativeHits)
}

func TestDegradedTTLBoundsWhatIsServedAsStale(t *testing.T) {
	t.Parallel()
	const life = 100 * time.Millisecond
	never := aside.Policy{Name: "never", Category: "never", TTL: time.Hour, DegradedTTL: -1}
	short := aside.Policy{Name: "short", Category: "short", TTL: time.Hour, DegradedTTL: life}
	t.Run("of the policy", func(t *testing.T) {
		t.Parallel()
		c := away(t, aside.Options{}, func(c *aside.Cache) {
			inMemory(t, c, never.Key("a"), value("before"))
			inMemory(t, c, short.Key("a"), value("before"))
		})
		for range 2 {
			requireLoaded(t, c, never.Key("a"))
		}
		eventually(t, "its time is over", func() bool {
			r, err := aside.Lookup(t.Context(), c, short.Key("a"), value("loaded"))
			require.NoError(t, err)
			return r.Status == aside.StatusFallback
		})
		eventually(t, "and again", func() bool {
			r, err := aside.Lookup(t.Context(), c, short.Key("a"), value("loaded"))
			require.NoError(t, err)
			require.LessOrEqual(t, r.Age, life+bound)
			return r.Status == aside.StatusFallback
		})
		require.EqualValues(t, 2, c.Metrics().Labels["short"].Fallbacks)
	})
	t.Run("of the cache", func(t *testing.T) {
		t.Parallel()
		c := away(t, aside.Options{DegradedTTL: -1}, func(c *aside.Cache) { inMemory(t, c, items.Key("a"), value("before")) })
		for range 2 {
			requireLoaded(t, c, items.Key("a"))
		}
	})
	t.Run("and the TTL goes on", func(t *testing.T) {
		t.Parallel()
		brief := aside.Policy{Name: "brief", Category: "brief", TTL: 200 * time.Millisecond}
		c := away(t, aside.Options{}, func(*aside.Cache) {})
		requireLoaded(t, c, brief.Key("a"))
		eventually(t, "it is over", func() bool {
			r, err := aside.Lookup(t.Context(), c, brief.Key("a"), value("loaded"))
			require.NoError(t, err)
			return r.Status == aside.StatusFallback
		})
	})
}

func TestAnInvalidationEndsWhatIsStaleAtOnce(t *testing.T) {
	t.Parallel()
	ctx, key, tag := t.Context(), items.Key("a"), aside.WithTags("x")
	for name, invalidate := range map[string]func(c *aside.Cache) (aside.Receipt, error){
		"key":      func(c *aside.Cache) (aside.Receipt, error) { return c.Invalidate(ctx, key) },
		"tag":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateTags(ctx, "x") },
		"category": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateCategory(ctx, "items") },
		"all":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateAll(ctx) },
		"pattern": func(c *aside.Cache) (aside.Receipt, error) {
			return c.InvalidatePattern(ctx, items.Match(aside.Wildcard))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := away(t, aside.Options{}, func(c *aside.Cache) { inMemory(t, c, key, value("before"), tag) })
			requireStale(t, c, key, "before", tag)
			for range 2 { // what was there before the loss, and what was loaded since
				receipt, err := invalidate(c)
				require.NoError(t, err)
				require.False(t, receipt.Confirmed)
				requireLoaded(t, c, key, tag)
				requireStale(t, c, key, "loaded", tag)
			}
			// Nor is a load kept that was overtaken.
			load := newHeld()
			late := background(t, c, items.Key("b"), load.load("old"), tag)
			<-load.began
			_, err := invalidate(c)
			require.NoError(t, err)
			if name == "key" {
				_, err = c.Invalidate(ctx, items.Key("b"))
				require.NoError(t, err)
			}
			close(load.release)
			require.Equal(t, "old", <-late)
			requireLoaded(t, c, items.Key("b"), tag)
		})
	}
}

// What this process has invalidated while Redis was away is never read there again, though Redis still has it.
func TestAnInvalidationDuringAnOutageIsMadeUpFor(t *testing.T) {
	t.Parallel()
	ctx, key, tag := t.Context(), items.Key("a"), aside.WithTags("x")
	for name, invalidate := range map[string]func(c *aside.Cache) (aside.Receipt, error){
		"key":      func(c *aside.Cache) (aside.Receipt, error) { return c.Invalidate(ctx, key) },
		"tag":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateTags(ctx, "x") },
		"category": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateCategory(ctx, "items") },
		"all":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateAll(ctx) },
		"pattern": func(c *aside.Cache) (aside.Receipt, error) {
			return c.InvalidatePattern(ctx, items.Match(aside.Wildcard))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			w, other := watch(t, server), connected(t, at(server.Addr()))
			inMemory(t, w.Cache, key, value("old"), tag)
			inMemory(t, other, key, value("not this one"), tag)
			w.proxy.Refuse(true)
			w.proxy.CloseConnections()
			eventually(t, "the loss is noticed", func() bool { return w.Health().State == aside.StateDegraded })
			receipt, err := invalidate(w.Cache)
			require.NoError(t, err)
			require.False(t, receipt.Confirmed)
			short, cancel := context.WithCancel(ctx)
			cancel()
			require.ErrorIs(t, receipt.Wait(short), context.Canceled)
			r, err := aside.Lookup(ctx, w.Cache, key, value("new"), tag)
			require.NoError(t, err)
			require.Equal(t, "new", r.Value, "what was in memory is gone, though it could still be served as stale")
			require.Equal(t, aside.StatusFallback, r.Status)

			// Back, but for the replay: Redis answers reads, and what writes is held up.
			w.proxy.Refuse(false)
			held := 0
			for w.Health().State != aside.StateConnected || receipt.Wait(short) != nil {
				r, err := aside.Lookup(ctx, w.Cache, key, value("new"), tag)
				require.NoError(t, err)
				require.Equal(t, "new", r.Value)
				held++
			}
			require.Positive(t, held)
			require.NoError(t, receipt.Wait(ctx))
			removed, err := receipt.Swept(ctx)
			require.NoError(t, err)
			if name == "pattern" {
				require.EqualValues(t, 1, removed)
			}
			eventually(t, "the other process follows", func() bool {
				v, err := aside.GetOrLoad(ctx, other, key, value("new"), tag)
				require.NoError(t, err)
				return v == "new"
			})
			require.Equal(t, "new", inMemory(t, w.Cache, key, value("new"), tag), "and it is cached again")
		})
	}
}

func TestWaitEndsWithTheCache(t *testing.T) {
	t.Parallel()
	c := away(t, aside.Options{}, func(*aside.Cache) {})
	receipt, err := c.Invalidate(t.Context(), items.Key("a"))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.ErrorIs(t, receipt.Wait(t.Context()), aside.ErrClosed)
	require.NoError(t, aside.Receipt{Confirmed: true}.Wait(t.Context()))
}

// Hazard 8: a server comes back without an invalidation that it had confirmed.
func TestAConfirmedInvalidationThatTheServerHasForgottenIsSentAgain(t *testing.T) {
	t.Parallel()
	key := items.Key("a")
	for name, invalidate := range map[string]func(c *aside.Cache) (aside.Receipt, error){
		"key": func(c *aside.Cache) (aside.Receipt, error) { return c.Invalidate(t.Context(), key) },
		"pattern": func(c *aside.Cache) (aside.Receipt, error) {
			return c.InvalidatePattern(t.Context(), items.Match(aside.Wildcard))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			isSentAgain(t, key, invalidate)
		})
	}
}

func isSentAgain(t *testing.T, key aside.Key, invalidate func(c *aside.Cache) (aside.Receipt, error)) {
	server := redistest.Start(t)
	c := connected(t, at(server.Addr()))
	inMemory(t, c, key, value("old"))
	server.MustDo(t, "SAVE")
	receipt, err := invalidate(c)
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	server.Kill()
	eventually(t, "the loss is noticed", func() bool { return c.Health().State == aside.StateDegraded })
	server.Restart()
	require.EqualValues(t, 1, server.MustDo(t, "EXISTS", key.String()), "the server has the old value again")
	eventually(t, "it is back", func() bool {
		r, err := aside.Lookup(t.Context(), c, key, value("new"))
		require.NoError(t, err)
		require.Equal(t, "new", r.Value)
		return r.Status == aside.StatusHit
	})
}

// Promise 1, with Redis too slow to be asked and yet quick enough to tell: what is loaded meanwhile is not kept, not even as
// a stale value.
func TestALoadWithoutRedisIsNotKeptOverAPushThatCameDuringIt(t *testing.T) {
	t.Parallel()
	ctx, key := t.Context(), items.Key("a")
	for name, invalidate := range map[string]func(c *aside.Cache) (aside.Receipt, error){
		"key":      func(c *aside.Cache) (aside.Receipt, error) { return c.Invalidate(ctx, key) },
		"category": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateCategory(ctx, "items") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			proxy := redistest.StartProxy(t, server.Addr())
			o := at(proxy.Addr())
			o.OpTimeout = 100 * time.Millisecond
			a, b := connected(t, o), connected(t, at(server.Addr()))
			inMemory(t, a, key, value("v1"))
			held := proxy.HoldRequests(func([]string) bool { return true })
			defer held.Release()
			load := newHeld()
			late := background(t, a, key, load.load("old"), aside.Strong())
			<-load.began
			pushes := a.Metrics().Pushes
			receipt, err := invalidate(b)
			require.NoError(t, err)
			require.True(t, receipt.Confirmed)
			eventually(t, "it hears of the invalidation", func() bool { return a.Metrics().Pushes > pushes })
			close(load.release)
			require.Equal(t, "old", <-late)
			r, err := aside.Lookup(ctx, a, key, value("new"))
			require.NoError(t, err)
			require.Equal(t, "new", r.Value, r.Status)
		})
	}
}

// With the default DegradedTTL the origin sees one load of a key while Redis is away, also if Redis went away during it.
func TestAValueWhoseFillRedisHasNotTakenIsKeptInMemory(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := connected(t, at(server.Addr()))
	key := items.Key("a")
	load := newHeld()
	first := background(t, c, key, load.load("v"))
	<-load.began
	server.Kill()
	eventually(t, "the loss is noticed", func() bool { return c.Health().State == aside.StateDegraded })
	close(load.release)
	require.Equal(t, "v", <-first)
	eventually(t, "the fill has failed", func() bool { return c.Metrics().Labels["items"].RedisErrors > 0 })
	for range 3 {
		v, err := aside.GetOrLoad(t.Context(), c, key, load.load("v"))
		require.NoError(t, err)
		require.Equal(t, "v", v)
	}
	require.EqualValues(t, 1, load.loads.Load())
}

// Without tracking, and without the right to subscribe to what others say instead, what was invalidated once is invalidated once.
func TestAnInvalidationIsNotRepeatedForWantOfASubscription(t *testing.T) {
	t.Parallel()
	invalidatedOnce(t, "-subscribe")
}

func invalidatedOnce(t *testing.T, rule string) {
	server := redistest.Start(t)
	server.MustDo(t, "ACL", "SETUSER", "default", "-client|tracking", rule)
	o := anonymously(server.Addr())
	o.Policies = []aside.Policy{items}
	c := connected(t, o)
	require.False(t, c.Health().Tracking)
	receipt, err := c.InvalidateCategory(t.Context(), "items")
	require.NoError(t, err)
	require.NoError(t, receipt.Wait(t.Context()))
	generation := server.MustDo(t, "GET", "%c:items")
	require.NotNil(t, generation)
	select {
	case <-time.After(time.Second):
	case <-t.Context().Done():
	}
	require.Equal(t, generation, server.MustDo(t, "GET", "%c:items"), "nobody has invalidated it since")
}

// A caller who has waited for this process's own value to be stored does not wait for Redis a second time.
func TestWhoHasWaitedForAFillInVainDoesNotAskRedisToo(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	o := at(proxy.Addr())
	o.OpTimeout = 500 * time.Millisecond
	c := connected(t, o)
	gate := proxy.HoldRequests(func(args []string) bool { return isHead(args, "items:a") }) // by which a fill ends
	_, err := aside.GetOrLoad(t.Context(), c, items.Key("a"), value("v"))
	require.NoError(t, err)
	gate.Wait(t)
	eventually(t, "the fill is told of, so that nobody shares its flight any more", func() bool { return c.Metrics().Pushes > 0 })
	proxy.ResetCounts()
	r, err := aside.Lookup(t.Context(), c, items.Key("a"), value("v"))
	require.NoError(t, err)
	require.Equal(t, "v", r.Value)
	require.Equal(t, aside.StatusFallback, r.Status)
	require.Equal(t, "redis did not answer in time", r.Reason)
	require.Zero(t, c.Metrics().Labels["items"].RedisErrors, "it was not asked")
	gate.Release()
}

// A load that ends while Redis is away cannot give its lease back. It is given back afterwards: nobody waits until it runs out.
func TestALeaseIsGivenBackWhenRedisAnswersAgain(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	o := at(proxy.Addr())
	o.OpTimeout, o.LeaseTTL = time.Second, time.Hour
	c, other := connected(t, o), connected(t, at(server.Addr()))
	_, _ = aside.Get[string](t.Context(), c, items.Key("warm"))
	leases := func() int { return len(server.MustDo(t, "KEYS", "*!l").([]any)) }
	const loads = 1500 // more than are given back in one round trip
	load := newHeld()
	began := make(chan struct{}, loads)
	ids := make([]int, loads)
	for i := range ids {
		ids[i] = i
	}
	got := make(chan map[int]string, 1)
	go func() {
		many, _ := aside.GetOrLoadMany(t.Context(), c, ids, func(id int) aside.Key { return items.Key(id) }, func(_ context.Context, ids []int) (map[int]string, error) {
			began <- struct{}{}
			<-load.release
			values := make(map[int]string)
			for _, id := range ids {
				values[id] = "v"
			}
			return values, nil
		})
		got <- many
	}()
	<-began
	require.Positive(t, leases())
	proxy.Blackhole(true)
	degraded(t, c, "")
	failed := c.Metrics().Labels["items"].RedisErrors
	close(load.release)
	require.Len(t, <-got, loads)
	eventually(t, "nothing is stored", func() bool { return c.Metrics().Labels["items"].RedisErrors >= failed+loads })
	require.Equal(t, loads, leases(), "nobody could give them back")
	proxy.Blackhole(false)
	back(t, c)
	eventually(t, "they are given back", func() bool { return leases() == 0 })
	r, err := aside.Lookup(t.Context(), other, items.Key(0), value("w"))
	require.NoError(t, err)
	require.Equal(t, aside.TierOrigin, r.Tier)
}
