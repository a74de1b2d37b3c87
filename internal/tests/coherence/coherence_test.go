package coherence_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

func TestWhatWasLoadedOrReadIsThenServedFromMemory(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, w := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Watch(t, server)
	b := w.Cache
	key, src := asidetest.Items.Key("a"), &asidetest.Versioned{}
	r, err := aside.Lookup(t.Context(), a, key, src.Load)
	require.NoError(t, err)
	require.Equal(t, aside.TierOrigin, r.Tier)
	asidetest.InMemory(t, a, key, src.Load)
	r, err = aside.Lookup(t.Context(), b, key, src.Load)
	require.NoError(t, err)
	require.Equal(t, aside.TierRedis, r.Tier)
	r, err = aside.Lookup(t.Context(), b, key, src.Load)
	require.NoError(t, err)
	require.Equal(t, aside.TierMemory, r.Tier, "from the second read on")
	require.EqualValues(t, 1, src.Loads.Load())
	w.Proxy.ResetCounts()
	for range 100 {
		_, err := aside.GetOrLoad(t.Context(), b, key, src.Load)
		require.NoError(t, err)
	}
	require.False(t, slices.ContainsFunc(w.Proxy.Log(), func(args []string) bool { return slices.Contains(args, key.String()) }), "Redis is not asked")
}

func TestWhoLoadsAValueDoesNotDecodeIt(t *testing.T) {
	t.Parallel()
	c := asidetest.Connected(t, asidetest.At(redistest.Start(t).Addr()))
	loaded := &struct{ N int }{7}
	key := asidetest.Items.Key("a")
	load := func(context.Context) (*struct{ N int }, error) { return loaded, nil }
	require.Same(t, loaded, asidetest.InMemory(t, c, key, load))
	require.Zero(t, c.Metrics().Labels["items"].RedisHits)
}

// Every way to change what is cached reaches every memory: this process's before the call returns, others' by a push.
func TestAChangeReachesEveryMemory(t *testing.T) {
	t.Parallel()
	tagged := aside.WithTags("x", "y")
	for name, change := range map[string]func(ctx context.Context, c *aside.Cache, key aside.Key, v int64) error{
		"Invalidate": func(ctx context.Context, c *aside.Cache, key aside.Key, _ int64) error {
			_, err := c.Invalidate(ctx, key)
			return err
		},
		"Set": func(ctx context.Context, c *aside.Cache, key aside.Key, v int64) error {
			return aside.Set(ctx, c, key, v, tagged)
		},
		"Refresh": func(ctx context.Context, c *aside.Cache, key aside.Key, v int64) error {
			_, err := aside.GetOrLoad(ctx, c, key, func(context.Context) (int64, error) { return v, nil }, aside.Refresh(), tagged)
			return err
		},
		"InvalidateTags": func(ctx context.Context, c *aside.Cache, _ aside.Key, _ int64) error {
			_, err := c.InvalidateTags(ctx, "none", "y")
			return err
		},
		"InvalidatePattern": func(ctx context.Context, c *aside.Cache, _ aside.Key, _ int64) error {
			_, err := c.InvalidatePattern(ctx, asidetest.Items.Match(aside.Wildcard))
			return err
		},
		"InvalidateCategory": func(ctx context.Context, c *aside.Cache, _ aside.Key, _ int64) error {
			_, err := c.InvalidateCategory(ctx, "items")
			return err
		},
		"InvalidateAll": func(ctx context.Context, c *aside.Cache, _ aside.Key, _ int64) error {
			_, err := c.InvalidateAll(ctx)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test := func(t *testing.T, a, b *aside.Cache) {
				for _, c := range []*aside.Cache{a, b} {
					_, _ = aside.Get[int64](t.Context(), c, asidetest.Items.Key("other")) // so that it knows the category
				}
				key, src := asidetest.Items.Key("a"), &asidetest.Versioned{}
				for v := range int64(50) {
					src.Version.Store(v)
					require.NoError(t, change(t.Context(), a, key, v))
					got, err := aside.GetOrLoad(t.Context(), a, key, src.Load, tagged)
					require.NoError(t, err)
					require.Equal(t, v, got, "here at once")
					asidetest.Eventually(t, "the others follow", func() bool {
						got, err := aside.GetOrLoad(t.Context(), b, key, src.Load, tagged)
						require.NoError(t, err)
						return got == v
					})
					if b != a {
						asidetest.InMemory(t, b, key, src.Load, tagged)
					}
				}
			}
			t.Run("redis", func(t *testing.T) {
				t.Parallel()
				a, b := asidetest.Pair(t, redistest.Start(t).Addr())
				test(t, a, b)
			})
			t.Run("redis, four connections", func(t *testing.T) {
				t.Parallel()
				o := asidetest.At(redistest.Start(t).Addr())
				o.Redis.PipelineMultiplex = 2
				test(t, asidetest.Connected(t, o), asidetest.Connected(t, o))
			})
			t.Run("memory", func(t *testing.T) {
				t.Parallel()
				c := asidetest.NewCache(t, aside.Options{})
				test(t, c, c)
			})
		})
	}
}

func TestAnInvalidationSparesWhatItIsNotAbout(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{}), t.Context()
		others := aside.Policy{Name: "others", Category: "others", TTL: time.Hour}
		tagged, other := aside.WithTags("x"), aside.WithTags("x2")
		asidetest.Stored(t, c, asidetest.Items.Key("a"), "a")
		_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("b"), (&asidetest.Source{}).Load("b"), other)
		require.NoError(t, err)
		_, err = aside.GetOrLoad(ctx, c, others.Key("c"), (&asidetest.Source{}).Load("c"), tagged)
		require.NoError(t, err)
		asidetest.Stored(t, c, others.Key("d"), "d")
		hit := func(key aside.Key, opts ...aside.CallOption) {
			t.Helper()
			asidetest.Eventually(t, key.String()+" is cached", func() bool {
				v, err := aside.Get[string](ctx, c, key)
				return err == nil && v != ""
			})
		}
		hit(asidetest.Items.Key("b"))
		hit(others.Key("c"))

		_, err = c.InvalidateTags(ctx, "x", "nobody's")
		require.NoError(t, err)
		asidetest.Gone(t, c, others.Key("c"))
		hit(asidetest.Items.Key("b"))
		_, err = c.InvalidateCategory(ctx, "others")
		require.NoError(t, err)
		asidetest.Gone(t, c, others.Key("d"))
		hit(asidetest.Items.Key("a"))
		hit(asidetest.Items.Key("b"))
		_, err = c.InvalidateCategory(ctx, "item") // nobody's
		require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidArgument})
		hit(asidetest.Items.Key("a"))
		_, err = c.InvalidateAll(ctx)
		require.NoError(t, err)
		asidetest.Gone(t, c, asidetest.Items.Key("a"))
		asidetest.Gone(t, c, asidetest.Items.Key("b"))
	})
}

func TestATagThatTheLoaderNamesIsOneOfTheEntrys(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{}), t.Context()
		load := func(ctx context.Context) (string, error) {
			aside.CurrentLoad(ctx).Tag("owner 7", "x")
			aside.CurrentLoad(ctx).Tag("x")
			return "v", nil
		}
		for range 3 {
			_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), load, aside.WithTags("x"))
			require.NoError(t, err)
			asidetest.InMemory(t, c, asidetest.Items.Key("a"), load, aside.WithTags("x"))
			_, err = c.InvalidateTags(ctx, "owner 7")
			require.NoError(t, err)
			asidetest.Gone(t, c, asidetest.Items.Key("a"))
		}
	})
}

func TestEachIdOfABatchHasItsOwnTags(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{}), t.Context()
		l := aside.NewLoader(c, asidetest.Items, func(ctx context.Context, id string) (string, error) {
			aside.CurrentLoad(ctx).Tag("of " + id)
			return id, nil
		})
		_, err := l.GetMany(ctx, []string{"a", "b"})
		require.NoError(t, err)
		for _, id := range []string{"a", "b"} {
			asidetest.InMemory(t, c, l.Key(id), (&asidetest.Source{}).Load("another"))
		}
		_, err = c.InvalidateTags(ctx, "of a")
		require.NoError(t, err)
		asidetest.Gone(t, c, l.Key("a"))
		v, err := aside.Get[string](ctx, c, l.Key("b"))
		require.NoError(t, err)
		require.Equal(t, "b", v)
	})
}

func TestTagsOutOfBoundsAreRefused(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{}), t.Context()
		many, long := make([]string, 63), string(make([]byte, 200)) // escaped, each byte takes three
		for i := range many {
			many[i] = string(rune('A' + i))
		}
		for _, tags := range [][]string{{""}, {"a", ""}, {long}, many} {
			_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), (&asidetest.Source{}).Load("v"), aside.WithTags(tags...))
			require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidArgument})
			require.ErrorIs(t, aside.Set(ctx, c, asidetest.Items.Key("a"), "v", aside.WithTags(tags...)), &aside.Error{Code: aside.CodeInvalidArgument})
		}
		for _, tags := range [][]string{{""}, {long}} {
			_, err := c.InvalidateTags(ctx, tags...)
			require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidArgument})
		}
		for i, tags := range [][]string{{""}, {long}, many} {
			_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key(i), func(ctx context.Context) (string, error) {
				aside.CurrentLoad(ctx).Tag(tags...)
				return "v", nil
			})
			require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidArgument})
			asidetest.Eventually(t, "it is counted", func() bool { return c.Metrics().Labels["items"].LoadErrors == uint64(i)+1 })
			_, err = aside.Get[string](ctx, c, asidetest.Items.Key(i))
			require.ErrorIs(t, err, aside.ErrMiss)
		}
		_, err := c.InvalidateTags(ctx)
		require.NoError(t, err, "no tags, nothing to do")
		for _, category := range []string{"", "a:b", "*"} {
			_, err := c.InvalidateCategory(ctx, category)
			require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidArgument})
		}
	})
}

func TestAPrivateValueIsEachCallersOwn(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{}), t.Context()
		for name, codec := range map[string]aside.Codec{"json": aside.JSON, "cbor": aside.CBOR} {
			p := aside.Policy{Name: name, Category: name, TTL: time.Hour, CloneOnRead: true, Codec: codec}
			spoil := func(m map[string][]byte) { m["b"][0], m["new"] = 'X', nil }
			load := func(context.Context) (map[string][]byte, error) { return map[string][]byte{"b": []byte("bytes")}, nil }
			for range 20 {
				m, err := aside.GetOrLoad(ctx, c, p.Key("a"), load)
				require.NoError(t, err)
				require.Equal(t, map[string][]byte{"b": []byte("bytes")}, m)
				spoil(m)
			}
			own := map[string][]byte{"b": []byte("set")}
			asidetest.Stored(t, c, p.Key("a"), own)
			spoil(own)
			for range 3 {
				m, err := aside.Get[map[string][]byte](ctx, c, p.Key("a"))
				require.NoError(t, err)
				require.Equal(t, map[string][]byte{"b": []byte("set")}, m)
				spoil(m)
			}
		}
		p := aside.Policy{Name: "f", Category: "f", TTL: time.Hour, CloneOnRead: true}
		_, err := aside.GetOrLoad(ctx, c, p.Key("a"), func(context.Context) (func(), error) { return func() {}, nil })
		require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidArgument}, "what cannot be copied is not shared")
	})
}

func TestCallersWhoAskOneKeyForDifferentTypesEachGetARightAnswer(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{}), t.Context()
		for range 10 {
			n, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), func(context.Context) (int, error) { return 7, nil })
			require.NoError(t, err)
			require.Equal(t, 7, n)
			f, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), func(context.Context) (float64, error) { return 7, nil })
			require.NoError(t, err)
			require.InDelta(t, 7.0, f, 0)
			s, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), func(context.Context) (string, error) { return "7", nil })
			require.NoError(t, err)
			require.Equal(t, "7", s)
		}
	})
}

func TestAHitInRedisModeAllocatesNothing(t *testing.T) {
	server := redistest.Start(t)
	c, ctx := asidetest.Connected(t, asidetest.At(server.Addr())), t.Context()
	load := (&asidetest.Source{}).Load("v")
	tags := aside.WithTags("one", "two")
	for name, opts := range map[string][]aside.CallOption{"plain": nil, "two tags": {tags}} {
		key := asidetest.Items.Key(name)
		asidetest.InMemory(t, c, key, load, opts...)
		var allocs float64
		if len(opts) == 0 {
			allocs = testing.AllocsPerRun(1000, func() { _, _ = aside.GetOrLoad(ctx, c, key, load) })
		} else {
			allocs = testing.AllocsPerRun(1000, func() { _, _ = aside.GetOrLoad(ctx, c, key, load, tags) })
		}
		require.Zero(t, allocs, name)
	}
}

func TestAFailureIsBackedOff(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{Backoff: time.Hour, MaxBackoff: 90 * time.Minute}), t.Context() // a busy machine does not outlast that
		broken := errors.New("broken")
		var loads atomic.Int64
		load := func(context.Context) (string, error) { loads.Add(1); return "", broken }
		_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), load)
		require.Equal(t, broken, err, "the first caller gets the error itself")
		_, err = aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), load)
		require.Equal(t, broken, err, "one failure holds back nobody")
		for range 10 {
			_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), load)
			require.ErrorIs(t, err, broken)
			var e *aside.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, aside.CodeBackoff, e.Code)
			require.Positive(t, e.RetryAfter)
			require.LessOrEqual(t, e.RetryAfter, 75*time.Minute)
		}
		require.EqualValues(t, 2, loads.Load())
		_, err = aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), load, aside.Refresh())
		require.Equal(t, broken, err, "a Refresh is not held back")
		require.EqualValues(t, 3, loads.Load())
		_, err = c.Invalidate(ctx, asidetest.Items.Key("a"))
		require.NoError(t, err)
		v, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), (&asidetest.Source{}).Load("v"))
		require.NoError(t, err, "nor is anyone after an invalidation")
		require.Equal(t, "v", v)
		many, err := aside.GetOrLoadMany(ctx, c, []string{"a", "b"}, func(id string) aside.Key { return asidetest.Items.Key(id) },
			func(context.Context, []string) (map[string]string, error) { return nil, broken })
		require.ErrorIs(t, err, broken)
		require.Equal(t, map[string]string{"a": "v"}, many)
		_, err = aside.GetOrLoad(ctx, c, asidetest.Items.Key("b"), load)
		require.Equal(t, broken, err)
		_, err = aside.GetOrLoad(ctx, c, asidetest.Items.Key("b"), load)
		require.ErrorIs(t, err, &aside.Error{Code: aside.CodeBackoff}, "so are the ids of a batch")

		brief, held := newCache(aside.Options{Backoff: time.Second, MaxBackoff: 1500 * time.Millisecond}), false
		asidetest.Eventually(t, "it is held back, and then another load is made", func() bool {
			before := loads.Load()
			_, err := aside.GetOrLoad(ctx, brief, asidetest.Items.Key("brief"), load)
			require.ErrorIs(t, err, broken)
			held = held || loads.Load() == before
			return held && loads.Load() > before
		})
	})
}

func TestACancelledLoadIsNotBackedOff(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{Backoff: time.Hour, LoadGrace: time.Millisecond})
		for range 2 {
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), func(ctx context.Context) (string, error) {
				defer close(ended)
				cancel()
				<-ctx.Done()
				return "", errors.New("interrupted") // no error of the caller's context, which is excused anyway
			})
			require.ErrorIs(t, err, context.Canceled)
			<-ended
		}
		v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), (&asidetest.Source{}).Load("v"))
		require.NoError(t, err)
		require.Equal(t, "v", v)
	})
}

// miniredis has no client tracking.
func TestAServerWithoutTrackingIsFoundAndServedFor(t *testing.T) {
	t.Parallel()
	a, b := asidetest.Pair(t, asidetest.Mini(t))
	h := a.Health()
	require.False(t, h.Tracking)
	require.Contains(t, h.Reason, "no client tracking")
	key, src := asidetest.Items.Key("a"), &asidetest.Versioned{}
	for v := range int64(20) {
		src.Version.Store(v)
		_, err := a.Invalidate(t.Context(), key)
		require.NoError(t, err)
		asidetest.Eventually(t, "the other one hears of it", func() bool {
			got, err := aside.GetOrLoad(t.Context(), b, key, src.Load)
			require.NoError(t, err)
			return got == v
		})
		asidetest.InMemory(t, b, key, src.Load)
	}
	require.True(t, asidetest.Connected(t, asidetest.At(redistest.Start(t).Addr())).Health().Tracking)
}
