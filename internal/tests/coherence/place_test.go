package coherence_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

var (
	inMemoryAlone = aside.Policy{Category: "memoryalone", TTL: time.Hour, Place: aside.PlaceMemory}
	inRedisAlone  = aside.Policy{Category: "redisalone", TTL: time.Hour, Place: aside.PlaceRedis}
	brieflyKept   = aside.Policy{Category: "briefly", TTL: time.Hour, MemoryTTL: 20 * time.Millisecond}
)

func placed(server *redistest.Server) aside.Options {
	o := asidetest.At(server.Addr())
	o.Policies = []aside.Policy{inMemoryAlone, inRedisAlone, brieflyKept}
	return o
}

func TestAValueOfPlaceRedisIsNeverInMemory(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		there := c.Health().State != aside.StateMemory
		var source asidetest.Source
		other := aside.Policy{Category: "percall", TTL: time.Hour}
		for _, of := range []struct {
			key  aside.Key
			opts []aside.CallOption
		}{{inRedisAlone.Key(1), nil}, {other.Key(1), []aside.CallOption{aside.KeepIn(aside.PlaceRedis)}}} {
			before := source.Loads.Load()
			for range 5 {
				v, err := aside.GetOrLoad(t.Context(), c, of.key, source.Load("loaded"), of.opts...)
				require.NoError(t, err)
				require.Equal(t, "loaded", v)
				require.Zero(t, c.Metrics().InMemory.Entries)
			}
			if there {
				asidetest.Eventually(t, "redis answers", func() bool {
					r, err := aside.Lookup(t.Context(), c, of.key, source.Load("loaded"), of.opts...)
					require.NoError(t, err)
					return r.Tier == aside.TierRedis
				})
				require.Zero(t, c.Metrics().InMemory.Entries, "a value that was read is not kept")
			} else {
				require.EqualValues(t, 5, source.Loads.Load()-before, "nothing is kept")
			}
			require.NoError(t, aside.Set(t.Context(), c, of.key, "set", of.opts...))
			_, err := aside.GetOrLoad(t.Context(), c, of.key, source.Load("loaded"), append(of.opts, aside.Refresh())...)
			require.NoError(t, err)
			require.Zero(t, c.Metrics().InMemory.Entries)
		}
	})
}

func TestAnInvalidationByAnotherProcessReachesAValueOfPlaceMemory(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Connected(t, placed(server)), asidetest.Connected(t, placed(server))
	const rounds = 10
	reached := 0
	for name, invalidate := range map[string]func(key aside.Key) error{
		"key":      func(key aside.Key) error { _, err := b.Invalidate(t.Context(), key); return err },
		"tag":      func(aside.Key) error { _, err := b.InvalidateTags(t.Context(), "tagged"); return err },
		"category": func(aside.Key) error { _, err := b.InvalidateCategory(t.Context(), inMemoryAlone.Category); return err },
		"pattern": func(aside.Key) error {
			p, err := aside.ParsePattern("memoryalone:*")
			require.NoError(t, err)
			_, err = b.InvalidatePattern(t.Context(), p)
			return err
		},
		"all": func(aside.Key) error { _, err := b.InvalidateAll(t.Context()); return err },
		"set": func(key aside.Key) error { return aside.Set(t.Context(), b, key, "set") },
		"refresh": func(key aside.Key) error {
			_, err := aside.GetOrLoad(t.Context(), b, key, asidetest.Value("refreshed"), aside.Refresh())
			return err
		},
	} {
		for round := range rounds {
			key, old, now := inMemoryAlone.Key(name), fmt.Sprint("old ", round), fmt.Sprint("new ", round)
			_, err := a.Invalidate(t.Context(), key)
			require.NoError(t, err)
			require.Equal(t, old, asidetest.InMemory(t, a, key, asidetest.Value(old), aside.WithTags("tagged")), name)
			require.Empty(t, server.MustDo(t, "KEYS", inMemoryAlone.Category+":*"), "redis has no value")
			require.NoError(t, invalidate(key), name)
			require.Empty(t, server.MustDo(t, "KEYS", inMemoryAlone.Category+":*"), "redis still has no value")
			asidetest.Eventually(t, "the old value is not served any more after "+name, func() bool {
				v, err := aside.GetOrLoad(t.Context(), a, key, asidetest.Value(now), aside.WithTags("tagged"))
				require.NoError(t, err)
				return v == now
			})
			reached++
		}
	}
	require.Equal(t, 7*rounds, reached)
}

func TestAValueOfPlaceMemoryIsNotWhatRedisHolds(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Connected(t, placed(server)), asidetest.Connected(t, placed(server))
	p := aside.Policy{Category: "percall", TTL: time.Hour}
	require.NoError(t, aside.Set(t.Context(), b, p.Key(1), "in redis"))
	v := asidetest.InMemory(t, a, p.Key(1), asidetest.Value("loaded here"), aside.KeepIn(aside.PlaceMemory))
	require.Equal(t, "loaded here", v)
	v, err := aside.Get[string](t.Context(), b, p.Key(1))
	require.NoError(t, err)
	require.Equal(t, "in redis", v)
}

func TestTheLoadOfAValueOfPlaceMemoryTellsItsTTL(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		if s := c.Health(); s.State == aside.StateConnected && !s.Tracking {
			t.Skip("the server does not push changes")
		}
		n := 0
		asidetest.Repeatedly(t, "a value is kept by the load that returns it", func() bool {
			n++
			loaded, err := aside.Lookup(t.Context(), c, inMemoryAlone.Key(n), asidetest.Value("v"))
			require.NoError(t, err)
			kept, err := aside.Lookup(t.Context(), c, inMemoryAlone.Key(n), asidetest.Value("v"))
			require.NoError(t, err)
			require.Equal(t, kept.Tier == aside.TierMemory && kept.TTL > 0, loaded.TTL > 0, "%v, then %v", loaded, kept)
			return loaded.TTL > 0 && loaded.TTL >= kept.TTL
		})
		const key = "overtaken"
		r, err := aside.Lookup(t.Context(), c, inMemoryAlone.Key(key), func(ctx context.Context) (string, error) {
			_, err := c.Invalidate(ctx, inMemoryAlone.Key(key))
			return "older", err
		})
		require.NoError(t, err)
		require.Zero(t, r.TTL, "it was invalidated during its load")
	})
}

func TestStrategiesHoldForValuesOfPlaceMemory(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		if s := c.Health(); s.State == aside.StateConnected && !s.Tracking {
			t.Skip("the server does not push changes")
		}
		stale := aside.Policy{Name: "s", Category: "memorystale", TTL: 100 * time.Millisecond, Stale: time.Hour, Place: aside.PlaceMemory}
		asidetest.Repeatedly(t, "a value is past its TTL, and served meanwhile", func() bool {
			_, err := c.Invalidate(t.Context(), stale.Key(1))
			require.NoError(t, err)
			if asidetest.InMemory(t, c, stale.Key(1), asidetest.Value("old")) != "old" {
				return false
			}
			served := false
			asidetest.Eventually(t, "the value is loaded anew in the background", func() bool {
				r, err := aside.Lookup(t.Context(), c, stale.Key(1), asidetest.Value("new"))
				require.NoError(t, err)
				served = served || r.Status == aside.StatusStale && r.Value == "old"
				return r.Value == "new" && r.Tier == aside.TierMemory
			})
			return served
		})
		onError := aside.Policy{Name: "e", Category: "memoryerror", TTL: 50 * time.Millisecond, StaleIfError: time.Hour, Place: aside.PlaceMemory}
		asidetest.InMemory(t, c, onError.Key(1), asidetest.Value("old"))
		asidetest.Eventually(t, "the older value stands in for the error", func() bool {
			r, err := aside.Lookup(t.Context(), c, onError.Key(1), func(context.Context) (string, error) { return "", errors.New("away") })
			require.NoError(t, err)
			require.Equal(t, "old", r.Value)
			return r.Status == aside.StatusStale && r.Tier == aside.TierMemory
		})
	})
}

func TestMemoryTTLAsksRedisAgain(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for name, p := range map[string]aside.Policy{
		"plain":    brieflyKept,
		"strategy": {Category: "brieflystale", TTL: time.Hour, Stale: time.Hour, MemoryTTL: 20 * time.Millisecond},
	} {
		a := asidetest.Connected(t, placed(server))
		var source asidetest.Source
		load := func(ctx context.Context) (string, error) {
			aside.CurrentLoad(ctx).ETag("e")
			return source.Load("v")(ctx)
		}
		for range 3 { // the value that was stored here, and the one that was read
			require.Equal(t, "v", asidetest.InMemory(t, a, p.Key(1), load), name)
			asidetest.Eventually(t, "redis is asked again", func() bool {
				r, err := aside.Lookup(t.Context(), a, p.Key(1), load)
				require.NoError(t, err)
				require.Equal(t, "v", r.Value)
				require.Contains(t, []string{"e"}, r.ETag)
				return r.Tier == aside.TierRedis
			})
		}
		require.EqualValues(t, 1, source.Loads.Load(), name)
	}
	c := asidetest.NewCache(t, aside.Options{})
	var source asidetest.Source
	for end := time.Now().Add(2 * brieflyKept.MemoryTTL); time.Now().Before(end); {
		_, err := aside.GetOrLoad(t.Context(), c, brieflyKept.Key(1), source.Load("v"))
		require.NoError(t, err)
	}
	require.EqualValues(t, 1, source.Loads.Load(), "it means nothing in memory mode")
}

func TestWarmFillsMemoryAlone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, placed(server))
	loader := aside.NewLoader(c, inMemoryAlone, func(context.Context, string) (string, error) { return "v", nil })
	ids := func(yield func(string) bool) { yield("warm") }
	asidetest.Eventually(t, "the value is in memory", func() bool {
		w, err := loader.Warm(t.Context(), ids, aside.Warming{})
		require.NoError(t, err)
		return w.Fresh == 1
	})
	require.Empty(t, server.MustDo(t, "KEYS", inMemoryAlone.Category+":*"))
}

func TestWrongPlacesAreNamed(t *testing.T) {
	t.Parallel()
	for want, p := range map[string]aside.Policy{
		"Place is 3":       {Place: 3},
		"Place is -1":      {Place: -1},
		"MemoryTTL is -1s": {MemoryTTL: -time.Second},
		"MemoryTTL is 1µs": {MemoryTTL: time.Microsecond},
		"MemoryTTL is set, and Place is PlaceMemory": {MemoryTTL: time.Second, Place: aside.PlaceMemory},
		"MemoryTTL is set, and Place is PlaceRedis":  {MemoryTTL: time.Second, Place: aside.PlaceRedis},
	} {
		p.Category, p.TTL = "c", time.Hour
		_, err := aside.New(aside.Options{Policies: []aside.Policy{p}})
		require.ErrorContains(t, err, want)
	}
	c := asidetest.NewCache(t, aside.Options{})
	_, err := aside.GetOrLoad(t.Context(), c, inMemoryAlone.Key(1), asidetest.Value("v"), aside.KeepIn(7))
	asidetest.RequireCode(t, err, aside.CodeInvalidArgument)
	for _, change := range []func(*aside.Policy){func(p *aside.Policy) { p.Place = aside.PlaceRedis }, func(p *aside.Policy) { p.MemoryTTL = time.Second }} {
		p := aside.Policy{Category: "changed", TTL: time.Hour}
		_, err := aside.GetOrLoad(t.Context(), c, p.Key(1), asidetest.Value("v"))
		require.NoError(t, err)
		change(&p)
		_, err = aside.GetOrLoad(t.Context(), c, p.Key(2), asidetest.Value("v"))
		asidetest.RequireCode(t, err, aside.CodeInvalidOption)
	}
}
