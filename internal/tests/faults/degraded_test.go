package faults_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

func TestWhatMemoryHasIsServedAsStaleWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	a, b := asidetest.Items.Key("a"), asidetest.Items.Key("b")
	c := asidetest.Away(t, aside.Options{}, func(c *aside.Cache) { asidetest.InMemory(t, c, a, asidetest.Value("before")) })
	asidetest.RequireStale(t, c, a, "before")
	v, err := aside.Get[string](t.Context(), c, a)
	require.NoError(t, err)
	require.Equal(t, "before", v)
	_, err = aside.Get[string](t.Context(), c, b)
	require.ErrorIs(t, err, aside.ErrMiss)

	asidetest.RequireLoaded(t, c, b)
	asidetest.RequireStale(t, c, b, "loaded")
	many, err := aside.GetOrLoadMany(t.Context(), c, []string{"a", "b"}, func(id string) aside.Key { return asidetest.Items.Key(id) },
		func(context.Context, []string) (map[string]string, error) { panic("both are there") })
	require.NoError(t, err)
	require.Equal(t, map[string]string{"a": "before", "b": "loaded"}, many)

	m := c.Metrics().Labels["items"]
	require.EqualValues(t, 5, m.StaleHits)
	require.EqualValues(t, 1, m.Fallbacks)
	asidetest.RequireLoaded(t, c, a, aside.Strong())
	asidetest.RequireLoaded(t, c, a, aside.Refresh())
}

func TestANotFoundIsStaleToo(t *testing.T) {
	t.Parallel()
	key := asidetest.Items.Key("a")
	c := asidetest.Away(t, aside.Options{}, func(*aside.Cache) {})
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
		c := asidetest.Away(t, aside.Options{}, func(c *aside.Cache) {
			asidetest.InMemory(t, c, never.Key("a"), asidetest.Value("before"))
			asidetest.InMemory(t, c, short.Key("a"), asidetest.Value("before"))
		})
		for range 2 {
			asidetest.RequireLoaded(t, c, never.Key("a"))
		}
		asidetest.Eventually(t, "its time is over", func() bool {
			r, err := aside.Lookup(t.Context(), c, short.Key("a"), asidetest.Value("loaded"))
			require.NoError(t, err)
			return r.Status == aside.StatusFallback
		})
		asidetest.Eventually(t, "and again", func() bool {
			r, err := aside.Lookup(t.Context(), c, short.Key("a"), asidetest.Value("loaded"))
			require.NoError(t, err)
			require.LessOrEqual(t, r.Age, life+asidetest.Bound)
			return r.Status == aside.StatusFallback
		})
		require.EqualValues(t, 2, c.Metrics().Labels["short"].Fallbacks)
	})
	t.Run("of the cache", func(t *testing.T) {
		t.Parallel()
		c := asidetest.Away(t, aside.Options{DegradedTTL: -1}, func(c *aside.Cache) { asidetest.InMemory(t, c, asidetest.Items.Key("a"), asidetest.Value("before")) })
		for range 2 {
			asidetest.RequireLoaded(t, c, asidetest.Items.Key("a"))
		}
	})
	t.Run("and the TTL goes on", func(t *testing.T) {
		t.Parallel()
		brief := aside.Policy{Name: "brief", Category: "brief", TTL: 200 * time.Millisecond}
		c := asidetest.Away(t, aside.Options{}, func(*aside.Cache) {})
		asidetest.RequireLoaded(t, c, brief.Key("a"))
		asidetest.Eventually(t, "it is over", func() bool {
			r, err := aside.Lookup(t.Context(), c, brief.Key("a"), asidetest.Value("loaded"))
			require.NoError(t, err)
			return r.Status == aside.StatusFallback
		})
	})
}

// everyDoor are the ways to invalidate an item that carries the tag x.
func everyDoor(ctx context.Context, key aside.Key) map[string]func(c *aside.Cache) (aside.Receipt, error) {
	return map[string]func(c *aside.Cache) (aside.Receipt, error){
		"key":      func(c *aside.Cache) (aside.Receipt, error) { return c.Invalidate(ctx, key) },
		"tag":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateTags(ctx, "x") },
		"category": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateCategory(ctx, "items") },
		"all":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateAll(ctx) },
		"pattern": func(c *aside.Cache) (aside.Receipt, error) {
			return c.InvalidatePattern(ctx, asidetest.Items.Match(aside.Wildcard))
		},
	}
}

func TestAnInvalidationEndsWhatIsStaleAtOnce(t *testing.T) {
	t.Parallel()
	ctx, key, tag := t.Context(), asidetest.Items.Key("a"), aside.WithTags("x")
	for name, invalidate := range everyDoor(ctx, key) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := asidetest.Away(t, aside.Options{}, func(c *aside.Cache) { asidetest.InMemory(t, c, key, asidetest.Value("before"), tag) })
			asidetest.RequireStale(t, c, key, "before", tag)
			for range 2 { // what was there before the loss, and what was loaded since
				receipt, err := invalidate(c)
				require.NoError(t, err)
				require.False(t, receipt.Confirmed)
				asidetest.RequireLoaded(t, c, key, tag)
				asidetest.RequireStale(t, c, key, "loaded", tag)
			}
			// Nor is a load kept that was overtaken.
			load := asidetest.NewHeld()
			late := asidetest.Background(t, c, asidetest.Items.Key("b"), load.Load("old"), tag)
			<-load.Began
			_, err := invalidate(c)
			require.NoError(t, err)
			if name == "key" {
				_, err = c.Invalidate(ctx, asidetest.Items.Key("b"))
				require.NoError(t, err)
			}
			close(load.Release)
			require.Equal(t, "old", <-late)
			asidetest.RequireLoaded(t, c, asidetest.Items.Key("b"), tag)
		})
	}
}

// What this process has invalidated while Redis was away is never read there again, though Redis still has it.
func TestAnInvalidationDuringAnOutageIsMadeUpFor(t *testing.T) {
	t.Parallel()
	ctx, key, tag := t.Context(), asidetest.Items.Key("a"), aside.WithTags("x")
	for name, invalidate := range everyDoor(ctx, key) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			w, other := asidetest.Watch(t, server), asidetest.Connected(t, asidetest.At(server.Addr()))
			asidetest.InMemory(t, w.Cache, key, asidetest.Value("old"), tag)
			asidetest.InMemory(t, other, key, asidetest.Value("not this one"), tag)
			w.Proxy.Refuse(true)
			w.Proxy.CloseConnections()
			asidetest.Eventually(t, "the loss is noticed", func() bool { return w.Health().State == aside.StateDegraded })
			receipt, err := invalidate(w.Cache)
			require.NoError(t, err)
			require.False(t, receipt.Confirmed)
			short, cancel := context.WithCancel(ctx)
			cancel()
			require.ErrorIs(t, receipt.Wait(short), context.Canceled)
			r, err := aside.Lookup(ctx, w.Cache, key, asidetest.Value("new"), tag)
			require.NoError(t, err)
			require.Equal(t, "new", r.Value, "what was in memory is gone, though it could still be served as stale")
			require.Equal(t, aside.StatusFallback, r.Status)

			// Back, but for the replay: Redis answers reads, and what writes is held up.
			writes := w.Proxy.HoldRequests(func(args []string) bool { return args[0] == "EVALSHA" })
			w.Proxy.Refuse(false)
			writes.Wait(t)
			for held := 0; held == 0 || w.Health().State != aside.StateConnected || receipt.Wait(short) != nil; {
				r, err := aside.Lookup(ctx, w.Cache, key, asidetest.Value("new"), tag)
				require.NoError(t, err)
				require.Equal(t, "new", r.Value)
				held++
				writes.Release()
			}
			require.NoError(t, receipt.Wait(ctx))
			removed, err := receipt.WaitCleanup(ctx)
			require.NoError(t, err)
			if name == "pattern" {
				require.EqualValues(t, 1, removed)
			}
			asidetest.Eventually(t, "the other process follows", func() bool {
				v, err := aside.GetOrLoad(ctx, other, key, asidetest.Value("new"), tag)
				require.NoError(t, err)
				return v == "new"
			})
			require.Equal(t, "new", asidetest.InMemory(t, w.Cache, key, asidetest.Value("new"), tag), "and it is cached again")
		})
	}
}

func TestWaitEndsWithTheCache(t *testing.T) {
	t.Parallel()
	c := asidetest.Away(t, aside.Options{}, func(*aside.Cache) {})
	receipt, err := c.Invalidate(t.Context(), asidetest.Items.Key("a"))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.ErrorIs(t, receipt.Wait(t.Context()), aside.ErrClosed)
	require.NoError(t, aside.Receipt{Confirmed: true}.Wait(t.Context()))
}

// Hazard 8: a server comes back without an invalidation that it had confirmed.
func TestAConfirmedInvalidationThatTheServerHasForgottenIsSentAgain(t *testing.T) {
	t.Parallel()
	key := asidetest.Items.Key("a")
	for name, invalidate := range map[string]func(c *aside.Cache) (aside.Receipt, error){
		"key": func(c *aside.Cache) (aside.Receipt, error) { return c.Invalidate(t.Context(), key) },
		"pattern": func(c *aside.Cache) (aside.Receipt, error) {
			return c.InvalidatePattern(t.Context(), asidetest.Items.Match(aside.Wildcard))
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
	proxy := redistest.StartProxy(t, server.Addr())
	c := asidetest.Connected(t, asidetest.At(proxy.Addr()))
	asidetest.InMemory(t, c, key, asidetest.Value("old"))
	server.MustDo(t, "SAVE")
	receipt, err := invalidate(c)
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	server.Kill()
	asidetest.Eventually(t, "the loss is noticed", func() bool { return c.Health().State == aside.StateDegraded })
	proxy.Refuse(true)
	server.Restart()
	require.EqualValues(t, 1, server.MustDo(t, "EXISTS", key.String()), "the server has the old value again")
	proxy.Refuse(false)
	asidetest.Eventually(t, "it is back", func() bool {
		r, err := aside.Lookup(t.Context(), c, key, asidetest.Value("new"))
		require.NoError(t, err)
		require.Equal(t, "new", r.Value)
		return r.Status == aside.StatusHit
	})
}

// Promise 1, with Redis too slow to be asked and yet quick enough to tell: what is loaded meanwhile is not kept, not even as
// a stale value.
func TestALoadWithoutRedisIsNotKeptOverAPushThatCameDuringIt(t *testing.T) {
	t.Parallel()
	ctx, key := t.Context(), asidetest.Items.Key("a")
	for name, invalidate := range map[string]func(c *aside.Cache) (aside.Receipt, error){
		"key":      func(c *aside.Cache) (aside.Receipt, error) { return c.Invalidate(ctx, key) },
		"category": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateCategory(ctx, "items") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			proxy := redistest.StartProxy(t, server.Addr())
			o := asidetest.At(proxy.Addr())
			o.OpTimeout = 100 * time.Millisecond
			a, b := asidetest.Connected(t, o), asidetest.Connected(t, asidetest.At(server.Addr()))
			asidetest.InMemory(t, a, key, asidetest.Value("v1"))
			held := proxy.HoldRequests(func([]string) bool { return true })
			defer held.Release()
			load := asidetest.NewHeld()
			late := asidetest.Background(t, a, key, load.Load("old"), aside.Strong())
			<-load.Began
			pushes := asidetest.Pushes(t, a)
			receipt, err := invalidate(b)
			require.NoError(t, err)
			require.True(t, receipt.Confirmed)
			asidetest.Eventually(t, "it hears of the invalidation", func() bool {
				ended, end := context.WithCancel(ctx)
				end() // memory alone answers
				_, err := aside.Get[string](ended, a, key)
				return err != nil && a.Metrics().InvalidationMessages > pushes
			})
			close(load.Release)
			require.Equal(t, "old", <-late)
			r, err := aside.Lookup(ctx, a, key, asidetest.Value("new"))
			require.NoError(t, err)
			require.Equal(t, "new", r.Value, r.Status)
		})
	}
}

// With the default DegradedTTL the origin sees one load of a key while Redis is away, also if Redis went away during it.
func TestAValueWhoseFillRedisHasNotTakenIsKeptInMemory(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	key := asidetest.Items.Key("a")
	load := asidetest.NewHeld()
	first := asidetest.Background(t, c, key, load.Load("v"))
	<-load.Began
	server.Kill()
	asidetest.Eventually(t, "the loss is noticed", func() bool { return c.Health().State == aside.StateDegraded })
	close(load.Release)
	require.Equal(t, "v", <-first)
	asidetest.Eventually(t, "the fill has failed", func() bool { return c.Metrics().Labels["items"].RedisErrors > 0 })
	for range 3 {
		v, err := aside.GetOrLoad(t.Context(), c, key, load.Load("v"))
		require.NoError(t, err)
		require.Equal(t, "v", v)
	}
	require.EqualValues(t, 1, load.Loads.Load())
}

// Without tracking, and without the right to subscribe to what others say instead, what was invalidated once is invalidated once.
func TestAnInvalidationIsNotRepeatedForWantOfASubscription(t *testing.T) {
	t.Parallel()
	invalidatedOnce(t, "-subscribe")
}

func invalidatedOnce(t *testing.T, rule string) {
	server := redistest.Start(t)
	server.MustDo(t, "ACL", "SETUSER", "default", "-client|tracking", rule)
	o := asidetest.Anonymously(server.Addr())
	o.Policies = []aside.Policy{asidetest.Items}
	c := asidetest.Connected(t, o)
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
	asidetest.Repeatedly(t, "the connection stays", func() bool { return doesNotAskTwice(t) })
}

// doesNotAskTwice reports whether the connection has stayed: a busy machine may take it for a silent one.
func doesNotAskTwice(t *testing.T) bool {
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	o := asidetest.At(proxy.Addr())
	o.OpTimeout = 2 * time.Second // shorter than a connection may be silent
	c := asidetest.Connected(t, o)
	gate := proxy.HoldRequests(func(args []string) bool { return asidetest.IsHead(args, "items:a") }) // by which a fill ends
	var pushes uint64                                                                                 // of the lease, which is written before the load begins
	_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), func(context.Context) (string, error) {
		pushes = asidetest.Pushes(t, c)
		return "v", nil
	})
	require.NoError(t, err)
	gate.Wait(t)
	asidetest.Eventually(t, "the fill is told of, so that nobody shares its flight any more", func() bool { return c.Metrics().InvalidationMessages > pushes })
	proxy.ResetCounts()
	r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("v"))
	require.NoError(t, err)
	require.Equal(t, "v", r.Value)
	if c.Metrics().TrackingLost > 0 {
		gate.Release()
		return false
	}
	require.Equal(t, aside.StatusFallback, r.Status)
	require.Equal(t, "redis did not answer in time", r.Reason)
	require.EqualValues(t, 1, c.Metrics().Labels["items"].RedisErrors, "the fill's: it was not asked")
	gate.Release()
	return true
}

// A load that ends while Redis is away cannot give its lease back. It is given back afterwards: nobody waits until it runs out.
func TestALeaseIsGivenBackWhenRedisAnswersAgain(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	o := asidetest.At(proxy.Addr())
	o.LeaseTTL = time.Hour
	c, other := asidetest.Connected(t, o), asidetest.Connected(t, asidetest.At(server.Addr()))
	_, _ = aside.Get[string](t.Context(), c, asidetest.Items.Key("warm"))
	leases := func() int { return len(server.MustDo(t, "KEYS", "*!l").([]any)) }
	const loads = 1500 // more than are given back in one round trip
	load := asidetest.NewHeld()
	began := make(chan struct{}, loads)
	ids := make([]int, loads)
	for i := range ids {
		ids[i] = i
	}
	got := make(chan map[int]string, 1)
	go func() {
		many, _ := aside.GetOrLoadMany(t.Context(), c, ids, func(id int) aside.Key { return asidetest.Items.Key(id) }, func(_ context.Context, ids []int) (map[int]string, error) {
			began <- struct{}{}
			<-load.Release
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
	close(load.Release)
	require.Len(t, <-got, loads)
	asidetest.Eventually(t, "nothing is stored", func() bool { return c.Metrics().Labels["items"].RedisErrors >= failed+loads })
	require.Equal(t, loads, leases(), "nobody could give them back")
	proxy.Blackhole(false)
	back(t, c)
	asidetest.Eventually(t, "they are given back", func() bool { return leases() == 0 })
	r, err := aside.Lookup(t.Context(), other, asidetest.Items.Key(0), asidetest.Value("w"))
	require.NoError(t, err)
	require.Equal(t, aside.TierOrigin, r.Tier)
}
