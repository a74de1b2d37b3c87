package contract_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
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

func usersNamed(ids []int) map[int]string {
	m := make(map[int]string, len(ids))
	for _, id := range ids {
		m[id] = "user " + strconv.Itoa(id)
	}
	return m
}

func TestEachIdGetsItsOwnWhateverTheLoaderDoesToItsSlice(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(ids []int){
		"sorts":    func(ids []int) { slices.Sort(ids) },
		"writes":   func(ids []int) { clear(ids) },
		"appends":  func(ids []int) { _ = append(ids[:1], 77, 78, 79) },
		"reverses": func(ids []int) { slices.Reverse(ids) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
				ctx := t.Context()
				for name, ask := range map[string]func(*aside.Cache, []int, func(context.Context, []int) (map[int]string, error)) (map[int]string, error){
					"GetOrLoadMany": func(c *aside.Cache, ids []int, load func(context.Context, []int) (map[int]string, error)) (map[int]string, error) {
						return aside.GetOrLoadMany(ctx, c, ids, asidetest.ItemKey, load)
					},
					"GetMany": func(c *aside.Cache, ids []int, load func(context.Context, []int) (map[int]string, error)) (map[int]string, error) {
						return aside.NewBatchLoader(c, asidetest.Items, load).GetMany(ctx, ids)
					},
					"Refresh": func(c *aside.Cache, ids []int, load func(context.Context, []int) (map[int]string, error)) (map[int]string, error) {
						return aside.NewBatchLoader(c, asidetest.Items, load).GetMany(ctx, ids, aside.Refresh())
					},
				} {
					c, ids := newCache(aside.Options{}), []int{3, 1, 2}
					got, err := ask(c, ids, func(_ context.Context, ids []int) (map[int]string, error) {
						values := usersNamed(ids)
						change(ids)
						return values, nil
					})
					require.NoError(t, err, name)
					require.Equal(t, usersNamed([]int{1, 2, 3}), got, name)
					require.Equal(t, []int{3, 1, 2}, ids, "%s: the caller's slice is its own", name)
					for _, id := range ids {
						asidetest.Eventually(t, "it is cached so", func() bool {
							v, err := aside.Get[string](ctx, c, asidetest.ItemKey(id))
							if err == nil && v != "user "+strconv.Itoa(id) {
								t.Errorf("%s: %d is cached as %q", name, id, v)
							}
							return err == nil
						})
					}
				}
			})
		})
	}
}

// What the loader was given and what it has returned it may go on changing: with the race detector this fails where the cache still
// looks at them.
func TestABatchLoaderKeepsWhatItWasGivenAndWhatItHasReturned(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{}), t.Context()
		var returned map[int]string
		var given []int
		var failed *aside.BatchError[int]
		started := make(chan struct{})
		var late sync.WaitGroup
		_, err := aside.GetOrLoadMany(ctx, c, []int{3, 1, 2, 4}, asidetest.ItemKey, func(ctx context.Context, ids []int) (map[int]string, error) {
			returned, given = usersNamed(ids[:2]), ids
			failed = &aside.BatchError[int]{Errors: map[int]error{9: asidetest.ErrLoader}} // another batch's: it is the error of those that have none
			return returned, failed
		})
		late.Go(func() {
			<-started
			for i := range given {
				given[i] = 100
			}
			clear(returned)
			failed.Errors[1000] = asidetest.ErrLoader
		})
		close(started)
		require.NotEmpty(t, err.Error())
		var batch *aside.BatchError[int]
		require.ErrorAs(t, err, &batch)
		require.Len(t, batch.Errors, 2)
		for _, e := range batch.Errors {
			require.ErrorContains(t, e, "an id of a batch failed")
		}
		late.Wait()
		v, err := aside.GetOrLoad(ctx, c, asidetest.ItemKey(1), func(context.Context) (string, error) { return "user 1", nil })
		require.NoError(t, err)
		require.Equal(t, "user 1", v)
	})
}

// several are errors that hold ErrNotFound beside a failure, or not as an answer.
func several() map[string]error {
	return map[string]error{
		"joined":       errors.Join(aside.ErrNotFound, io.ErrUnexpectedEOF),
		"two wrapped":  fmt.Errorf("%w after %w", aside.ErrNotFound, io.ErrUnexpectedEOF),
		"deep inside":  fmt.Errorf("wrapped: %w", errors.Join(io.ErrUnexpectedEOF, fmt.Errorf("again: %w", aside.ErrNotFound))),
		"a batch's":    &aside.BatchError[string]{Errors: map[string]error{"a": aside.ErrNotFound, "b": io.ErrUnexpectedEOF}},
		"one of batch": fmt.Errorf("wrapped: %w", &aside.BatchError[string]{Errors: map[string]error{"a": aside.ErrNotFound}}),
	}
}

func TestAFailureThatHoldsErrNotFoundIsAFailure(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{}), t.Context()
		for name, failure := range several() {
			for door, ask := range map[string]func(key aside.Key, load func(context.Context) (string, error)) error{
				"GetOrLoad": func(key aside.Key, load func(context.Context) (string, error)) error {
					_, err := aside.GetOrLoad(ctx, c, key, load)
					return err
				},
				"Strong": func(key aside.Key, load func(context.Context) (string, error)) error {
					_, err := aside.GetOrLoad(ctx, c, key, load, aside.Strong())
					return err
				},
				"Refresh": func(key aside.Key, load func(context.Context) (string, error)) error {
					_, err := aside.GetOrLoad(ctx, c, key, load, aside.Refresh())
					return err
				},
				"a batch": func(key aside.Key, load func(context.Context) (string, error)) error {
					got, err := aside.GetOrLoadMany(ctx, c, []int{1}, func(int) aside.Key { return key }, func(ctx context.Context, _ []int) (map[int]string, error) {
						_, err := load(ctx)
						return nil, err
					})
					require.Empty(t, got)
					var batch *aside.BatchError[int]
					require.ErrorAs(t, err, &batch, "%s: the failure is told", name)
					return batch.Errors[1]
				},
			} {
				key := asidetest.Items.Key(name, door)
				err := ask(key, func(context.Context) (string, error) { return "", failure })
				require.Equal(t, failure, err, "%s %s", name, door)
				_, err = aside.Get[string](ctx, c, key)
				require.ErrorIs(t, err, aside.ErrMiss, "%s %s: nothing is cached", name, door)
			}
		}
		require.EqualValues(t, 4*len(several()), c.Metrics().Labels["items"].LoadErrors)
	})
}

func TestAPanicWithErrNotFoundIsAPanic(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{}), t.Context()
		for name, value := range map[string]error{
			"bare": aside.ErrNotFound, "wrapped": fmt.Errorf("no user: %w", aside.ErrNotFound), "miss": aside.ErrMiss,
		} {
			boom := func(context.Context, string) (string, error) { panic(value) }
			one := aside.NewLoader(c, asidetest.Items, boom)
			_, err := one.Get(ctx, name)
			asidetest.RequireCode(t, err, aside.CodeLoaderPanic)
			require.NotErrorIs(t, err, value)
			require.ErrorContains(t, err, value.Error())
			_, err = one.GetMany(ctx, []string{name, name + "2"})
			require.NotErrorIs(t, err, value)
			asidetest.RequireCode(t, err.(*aside.BatchError[string]).Errors[name], aside.CodeLoaderPanic)
			_, err = aside.Get[string](ctx, c, asidetest.Items.Key(name))
			require.Equal(t, aside.ErrMiss, err)
		}
	})
}

// A loader that asks another batch hands on that batch's failure, which says nothing of its own ids.
func TestAnotherBatchsFailureFindsNothingNotFound(t *testing.T) {
	t.Parallel()
	outage := errors.New("outage")
	down := func(context.Context, []int) (map[int]string, error) { return nil, outage }
	things := aside.Policy{Category: "things", TTL: time.Hour}
	for name, test := range map[string]struct {
		load           func(c *aside.Cache) func(context.Context, []int) (map[int]string, error)
		failed, absent []int
	}{
		"of other ids": {func(c *aside.Cache) func(context.Context, []int) (map[int]string, error) {
			return func(ctx context.Context, ids []int) (map[int]string, error) {
				return aside.GetOrLoadMany(ctx, c, []int{101, 102}, func(id int) aside.Key { return things.Key(id) }, down)
			}
		}, []int{1, 2, 3}, nil},
		"of some of its ids": {func(c *aside.Cache) func(context.Context, []int) (map[int]string, error) {
			return func(ctx context.Context, ids []int) (map[int]string, error) {
				if _, err := aside.NewBatchLoader(c, things, down).GetMany(ctx, ids[:1]); err != nil {
					return map[int]string{}, err
				}
				return usersNamed(ids), nil
			}
		}, []int{1, 2, 3}, nil},
		"of its ids, all handed on": {func(c *aside.Cache) func(context.Context, []int) (map[int]string, error) {
			inner := aside.NewBatchLoader(c, things, func(_ context.Context, ids []int) (map[int]string, error) {
				return map[int]string{}, &aside.BatchError[int]{Errors: map[int]error{2: outage}}
			})
			return func(ctx context.Context, ids []int) (map[int]string, error) { return inner.GetMany(ctx, ids) }
		}, []int{2}, []int{1, 3}},
		"built of other ids": {func(*aside.Cache) func(context.Context, []int) (map[int]string, error) {
			return func(context.Context, []int) (map[int]string, error) {
				return map[int]string{}, &aside.BatchError[int]{Errors: map[int]error{1: outage, 9: outage}}
			}
		}, []int{1, 2, 3}, nil},
		"beside no map": {func(*aside.Cache) func(context.Context, []int) (map[int]string, error) {
			return func(context.Context, []int) (map[int]string, error) {
				return nil, &aside.BatchError[int]{Errors: map[int]error{1: outage}}
			}
		}, []int{1, 2, 3}, nil},
		"as it is meant": {func(*aside.Cache) func(context.Context, []int) (map[int]string, error) {
			return func(context.Context, []int) (map[int]string, error) {
				return map[int]string{}, &aside.BatchError[int]{Errors: map[int]error{1: outage}}
			}
		}, []int{1}, []int{2, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
				c, ctx := newCache(aside.Options{}), t.Context()
				got, err := aside.NewBatchLoader(c, asidetest.Items, test.load(c)).GetMany(ctx, []int{1, 2, 3})
				require.Empty(t, got)
				var batch *aside.BatchError[int]
				require.ErrorAs(t, err, &batch)
				require.Len(t, batch.Errors, len(test.failed))
				for _, id := range test.failed {
					require.ErrorIs(t, batch.Errors[id], outage)
					_, err := aside.Get[string](ctx, c, asidetest.ItemKey(id))
					require.ErrorIs(t, err, aside.ErrMiss)
				}
				for _, id := range test.absent {
					asidetest.Eventually(t, "it is cached as not found", func() bool {
						_, err := aside.Get[string](ctx, c, asidetest.ItemKey(id))
						return errors.Is(err, aside.ErrNotFound)
					})
				}
			})
		})
	}
	t.Run("of a single id", func(t *testing.T) {
		t.Parallel()
		c := asidetest.NewCache(t, aside.Options{})
		_, err := aside.NewBatchLoader(c, asidetest.Items, func(context.Context, []int) (map[int]string, error) {
			return nil, &aside.BatchError[int]{Errors: map[int]error{9: outage}}
		}).Get(t.Context(), 1)
		require.ErrorIs(t, err, outage)
		require.NotErrorIs(t, err, aside.ErrNotFound)
	})
}

func noUser() error { return fmt.Errorf("user 7: %w", &absentUser{}) }

type absentUser struct{}

func (*absentUser) Error() string { return "there is no such user" }

func (*absentUser) Unwrap() error { return aside.ErrNotFound }

func TestAMissAndANegativeHitHaveTheSameError(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx, key := newCache(aside.Options{}), t.Context(), asidetest.Items.Key("a")
		load := func(context.Context) (string, error) { return "", noUser() }
		check := func(err error) {
			t.Helper()
			require.ErrorIs(t, err, aside.ErrNotFound)
			require.EqualError(t, err, "user 7: there is no such user")
		}
		_, err := aside.GetOrLoad(ctx, c, key, load)
		check(err)
		var absent *absentUser
		require.ErrorAs(t, err, &absent)
		asidetest.Eventually(t, "memory has it", func() bool {
			r, err := aside.Lookup(ctx, c, key, load)
			check(err)
			return r.Status == aside.StatusHit && r.Tier == aside.TierMemory
		})
		_, err = aside.Get[string](ctx, c, key)
		check(err)
		if c.Health().State == aside.StateMemory {
			require.ErrorAs(t, err, &absent, "in memory it is the loader's own")
		}
		_, err = aside.Get[int](ctx, c, key)
		check(err)
		_, err = aside.GetOrLoad(ctx, newCache(aside.Options{}), key, load)
		check(err)
		_, err = aside.GetOrLoad(ctx, c, key, load, aside.Strong())
		check(err)
		for info, err := range c.Keys(ctx, asidetest.Items.Match("a")) {
			require.NoError(t, err)
			require.True(t, info.Negative)
		}
		got, err := aside.GetOrLoadMany(ctx, c, []string{"a"}, func(id string) aside.Key { return asidetest.Items.Key(id) },
			func(context.Context, []string) (map[string]string, error) { return nil, asidetest.ErrLoader })
		require.NoError(t, err)
		require.Empty(t, got)
	})
}

func TestAnotherProcessHasTheTextOfANotFound(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, ask := asidetest.Connected(t, asidetest.At(server.Addr())), startStranger(t, server.Addr())
	absent := func(id string, err error) {
		_, got := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key(id), func(context.Context) (string, error) { return "", err })
		require.Equal(t, err, got)
		asidetest.Eventually(t, "it is stored", func() bool { return server.MustDo(t, "EXISTS", "items:"+id) == int64(1) })
	}
	absent("a", noUser())
	require.Equal(t, `[true,"user 7: there is no such user"]`, ask("absent a"))
	absent("b", aside.ErrNotFound)
	require.Equal(t, `[true,"aside: not found"]`, ask("absent b"))
	absent("c", fmt.Errorf("%s: %w", strings.Repeat("x", 2000), aside.ErrNotFound))
	require.Equal(t, `[true,"aside: not found"]`, ask("absent c"), "a long text is not stored")
}

func TestALoadTimeoutIsADeadlineExceeded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{LoadTimeout: time.Second})
		for name, load := range map[string]func(context.Context) (string, error){
			"heeds it":   func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() },
			"ignores it": func(context.Context) (string, error) { time.Sleep(5 * time.Second); return "v", nil },
		} {
			_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key(name), load)
			asidetest.RequireCode(t, err, aside.CodeLoadTimeout)
			require.ErrorIs(t, err, context.DeadlineExceeded, name)
			_, err = aside.GetOrLoadMany(t.Context(), c, []int{1}, func(int) aside.Key { return asidetest.Items.Key(name, "many") },
				func(ctx context.Context, _ []int) (map[int]string, error) {
					_, err := load(ctx)
					return nil, err
				})
			require.ErrorIs(t, err, context.DeadlineExceeded, name)
		}
	})
}

func TestAPanicOfALoaderIsLoggedWithItsStack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log asidetest.Logbook
		c := asidetest.NewCache(t, aside.Options{Logger: log.Logger()})
		deep := strings.Repeat("p", 1<<16)
		load := func(_ context.Context, id int) (string, error) {
			if id == 4 {
				panic(deep)
			}
			asidetest.Explode()
			return "", nil
		}
		l := aside.NewLoader(c, asidetest.Items, load)
		lines := func() int { synctest.Wait(); return strings.Count(log.String(), "loader panicked, its callers") }
		for range 3 {
			_, err := l.Get(t.Context(), 1)
			asidetest.RequireCode(t, err, aside.CodeLoaderPanic)
		}
		require.Equal(t, 1, lines())
		require.Contains(t, log.String(), "asidetest.Explode")
		require.Contains(t, log.String(), "the loader's bug")
		require.Contains(t, log.String(), `"key":"items:1"`)
		time.Sleep(11 * time.Second)
		_, err := l.GetMany(t.Context(), []int{2, 3})
		require.Error(t, err)
		require.Equal(t, 2, lines(), "of a batch too")
		time.Sleep(11 * time.Second)
		before := len(log.String())
		_, err = l.Get(t.Context(), 4)
		require.Error(t, err)
		require.Equal(t, 3, lines())
		require.Less(t, len(log.String())-before, 16<<10, "bounded")
	})
}

func TestAnUnknownCategoryIsAnErrorThatNamesTheKnownOnes(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		ctx := t.Context()
		c := newCache(aside.Options{Policies: []aside.Policy{{Category: "listed", TTL: time.Hour}}})
		require.NoError(t, aside.Set(ctx, c, asidetest.Items.Key("a"), "v"))
		for _, known := range []string{"listed", "items"} {
			_, err := c.InvalidateCategory(ctx, known)
			require.NoError(t, err)
		}
		_, err := c.InvalidateCategory(ctx, "itmes")
		asidetest.RequireCode(t, err, aside.CodeInvalidArgument)
		require.ErrorContains(t, err, `"itmes"`)
		require.ErrorContains(t, err, "items, listed;")
		require.NotContains(t, err.Error(), "models", "nor are the table's rows named that nobody uses")
		_, err = newCache(aside.Options{}).InvalidateCategory(ctx, "nobody's")
		asidetest.RequireCode(t, err, aside.CodeInvalidArgument)
	})
}

func TestACategoryIsKnownWhereAnotherProcessHasUsedIt(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.Stored(t, a, asidetest.Items.Key("a"), "v")
	receipt, err := b.InvalidateCategory(t.Context(), "items")
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	_, err = aside.Get[string](t.Context(), b, asidetest.Items.Key("a"))
	require.ErrorIs(t, err, aside.ErrMiss)
}

func TestATablesRowCountsOnceItIsUsed(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		own := aside.Policy{Name: "UserProfile", Category: "shoppers", TTL: time.Hour}
		c := newCache(aside.Options{Policies: []aside.Policy{own}, TTLs: map[string]time.Duration{"ModelsAll": 2 * time.Second}})
		require.Equal(t, []aside.Policy{own}, c.Policies())
		require.NoError(t, aside.Set(t.Context(), c, own.Key(1), "v"))
		require.NoError(t, aside.Set(t.Context(), c, aside.TTL.ModelsAll.Key(1), "v"))
		require.Len(t, c.Policies(), 2)
		r, err := aside.Lookup(t.Context(), c, aside.TTL.ModelsAll.Key(1), func(context.Context) (string, error) { return "v", nil })
		require.NoError(t, err)
		require.LessOrEqual(t, r.TTL, 2*time.Second, "an override holds for a row that is used later")
		asidetest.RequireCode(t, aside.Set(t.Context(), c, aside.TTL.UserProfile.Key(1), "v"), aside.CodeInvalidOption)
		_, err = aside.New(aside.Options{TTLs: map[string]time.Duration{"Nobody": time.Second}})
		asidetest.RequireCode(t, err, aside.CodeInvalidOption)
	})
}

func TestALoaderOfABatchTagsOneIdByItsKey(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{}), t.Context()
		loads := 0
		l := aside.NewBatchLoader(c, asidetest.Items, func(ctx context.Context, ids []int) (map[int]string, error) {
			loads++
			for _, id := range ids {
				own := aside.CurrentLoad(ctx).Of(asidetest.Items.Key(id))
				if own == nil {
					t.Errorf("%d has no share", id)
				}
				own.Tag("supplier " + strconv.Itoa(id))
				if id == 3 {
					own.NoStore()
				}
				if id == 2 {
					own.TTL(time.Minute)
				}
			}
			aside.CurrentLoad(ctx).Tag("every")
			if aside.CurrentLoad(ctx).Of(asidetest.Items.Key("another")) != nil || aside.CurrentLoad(ctx).Of(aside.Key{}) != nil || aside.CurrentLoad(context.Background()).Of(asidetest.Items.Key(1)) != nil {
				t.Error("a share of a key that is not loaded")
			}
			aside.CurrentLoad(ctx).Of(asidetest.Items.Key("another")).Tag("nobody's")
			return usersNamed(ids), nil
		})
		_, err := l.GetMany(ctx, []int{1, 2, 3})
		require.NoError(t, err)
		tags, ttl := map[string][]string{}, map[string]time.Duration{}
		asidetest.Eventually(t, "they are stored", func() bool {
			for info, err := range c.Keys(ctx, asidetest.Items.Match(aside.Wildcard)) {
				require.NoError(t, err)
				slices.Sort(info.Tags)
				tags[info.Key], ttl[info.Key] = info.Tags, info.TTL
			}
			return len(tags) == 2
		})
		require.Equal(t, map[string][]string{"items:1": {"every", "supplier 1"}, "items:2": {"every", "supplier 2"}}, tags)
		require.Greater(t, ttl["items:1"], time.Minute)
		require.LessOrEqual(t, ttl["items:2"], time.Minute)
		_, err = c.InvalidateTags(ctx, "supplier 1")
		require.NoError(t, err)
		_, err = l.Get(ctx, 2)
		require.NoError(t, err)
		require.Equal(t, 1, loads, "the other one stays")
		_, err = l.Get(ctx, 1) // of one key it is that key's
		require.NoError(t, err)
		require.Equal(t, 2, loads)
	})
}

func TestTooManyTagsOfALoaderAreAnErrorOfTheLoad(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{}), t.Context()
		many := make([]string, 61)
		for i := range many {
			many[i] = "tag " + strconv.Itoa(i)
		}
		load := func(tags ...string) func(context.Context) (string, error) {
			return func(ctx context.Context) (string, error) {
				aside.CurrentLoad(ctx).Tag(many...)
				aside.CurrentLoad(ctx).Tag(many...) // twice is once
				aside.CurrentLoad(ctx).Tag(tags...)
				return "v", nil
			}
		}
		_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), load("one"))
		require.NoError(t, err)
		for name, ask := range map[string]func(key aside.Key) error{
			"63 of the loader": func(key aside.Key) error { _, err := aside.GetOrLoad(ctx, c, key, load("one", "two")); return err },
			"with the call's": func(key aside.Key) error {
				_, err := aside.GetOrLoad(ctx, c, key, load("one"), aside.WithTags("its own"))
				return err
			},
			"not found": func(key aside.Key) error {
				_, err := aside.GetOrLoad(ctx, c, key, func(ctx context.Context) (string, error) {
					_, _ = load("one", "two")(ctx)
					return "", aside.ErrNotFound
				})
				return err
			},
			"in a batch": func(key aside.Key) error {
				got, err := aside.GetOrLoadMany(ctx, c, []string{"63", "62"}, func(id string) aside.Key { return asidetest.Items.Key(key.String(), id) },
					func(ctx context.Context, ids []string) (map[string]string, error) {
						_, _ = load("one")(ctx)
						aside.CurrentLoad(ctx).Of(asidetest.Items.Key(key.String(), "63")).Tag("two")
						return map[string]string{"63": "v", "62": "v"}, nil
					})
				require.Equal(t, map[string]string{"62": "v"}, got)
				return err
			},
		} {
			err := ask(asidetest.Items.Key(name))
			require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidArgument}, name)
			require.ErrorContains(t, err, "63 tags", name)
			require.ErrorContains(t, err, "at most 62", name)
			_, err = aside.Get[string](ctx, c, asidetest.Items.Key(name))
			require.ErrorIs(t, err, aside.ErrMiss, name)
		}
	})
}

func TestSetHasTheTagsOfItsCallAlone(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx, key := newCache(aside.Options{}), t.Context(), asidetest.Items.Key("a")
		_, err := aside.GetOrLoad(ctx, c, key, func(ctx context.Context) (string, error) {
			aside.CurrentLoad(ctx).Tag("loader's")
			return "v", nil
		})
		require.NoError(t, err)
		asidetest.Stored(t, c, key, "w", aside.WithTags("set's"))
		for info, err := range c.Keys(ctx, asidetest.Items.Match("a")) {
			require.NoError(t, err)
			require.Equal(t, []string{"set's"}, info.Tags)
		}
	})
}

// What the documentation of LabelMetrics says of the counters.
func TestCountersAreInsideEachOtherAsDocumented(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{}), t.Context()
		absent := func(context.Context) (string, error) { return "", aside.ErrNotFound }
		_, _ = aside.GetOrLoad(ctx, c, asidetest.Items.Key("none"), absent)
		asidetest.Eventually(t, "it is in memory", func() bool {
			r, _ := aside.Lookup(ctx, c, asidetest.Items.Key("none"), absent)
			return r.Tier == aside.TierMemory
		})
		before := c.Metrics().Labels["items"]
		_, _ = aside.GetOrLoad(ctx, c, asidetest.Items.Key("none"), absent)
		after := c.Metrics().Labels["items"]
		require.EqualValues(t, 1, after.Hits-before.Hits)
		require.EqualValues(t, 1, after.MemoryHits-before.MemoryHits)
		require.EqualValues(t, 1, after.NegativeHits-before.NegativeHits)
		require.Equal(t, after.Hits, after.MemoryHits+after.RedisHits)
	})
}

func TestPushesCountOwnChangesToo(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.InMemory(t, c, asidetest.Items.Key("a"), asidetest.Value("v"))
	before := asidetest.Pushes(t, c)
	_, err := c.Invalidate(t.Context(), asidetest.Items.Key("a"))
	require.NoError(t, err)
	asidetest.Eventually(t, "Redis tells of it", func() bool { return c.Metrics().InvalidationMessages > before })
}

// Hazard 103: in another process a load of it may be under way that Redis knows nothing of.
func TestAnUnknownCategoryIsInvalidatedAllTheSame(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(proxy.Addr()))
	proxy.Refuse(true)
	proxy.CloseConnections()
	asidetest.Eventually(t, "Redis is away", func() bool { return b.Health().State == aside.StateDegraded })
	doomed := asidetest.NewHeld()
	first := asidetest.Background(t, b, asidetest.Items.Key("a"), doomed.Load("old"))
	<-doomed.Began
	proxy.Refuse(false)
	asidetest.Eventually(t, "Redis is back", func() bool { return b.Health().State == aside.StateConnected })
	receipt, err := a.InvalidateCategory(t.Context(), "items")
	asidetest.RequireCode(t, err, aside.CodeInvalidArgument)
	require.NoError(t, receipt.Wait(t.Context()))
	require.EqualValues(t, 1, server.MustDo(t, "EXISTS", "%c:items"), "it has a new generation")
	require.Equal(t, "new", <-asidetest.Background(t, b, asidetest.Items.Key("a"), asidetest.Value("new")))
	close(doomed.Release)
	require.Equal(t, "old", <-first)
	require.Equal(t, "new", asidetest.InMemory(t, b, asidetest.Items.Key("a"), asidetest.Value("not this one")))
}

// A loader of orders asks for the users 5 and 101. There is no user 5, and 101 fails. It hands on that failure, which is about another id
// too: nothing is known of order 5.
func TestAnIdThatAnotherBatchHasNotFoundIsNotNotFound(t *testing.T) {
	t.Parallel()
	users := aside.Policy{Category: "users", TTL: time.Hour}
	outage := errors.New("outage")
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		loadUsers := func(context.Context, []int) (map[int]string, error) {
			return map[int]string{}, &aside.BatchError[int]{Errors: map[int]error{101: outage}}
		}
		orders := aside.NewBatchLoader(c, asidetest.Items, func(ctx context.Context, _ []int) (map[int]string, error) {
			_, err := aside.GetOrLoadMany(ctx, c, []int{5, 101}, func(id int) aside.Key { return users.Key(id) }, loadUsers)
			return nil, err
		})
		_, err := orders.GetMany(t.Context(), []int{5, 6})
		require.Error(t, err)
		for _, id := range []int{5, 6} {
			_, err = aside.Get[string](t.Context(), c, orders.Key(id))
			require.ErrorIs(t, err, aside.ErrMiss, "order %d", id)
		}
		_, err = orders.Get(t.Context(), 5)
		require.ErrorIs(t, err, outage)
	})
}

// A loader of profiles asks for the credits of the same ids, in their own category. User 5 has none, and those of user 6 fail. It returns no
// profile: that user 5 has none is not known.
func TestAFailureWithoutValuesFindsNothingNotFound(t *testing.T) {
	t.Parallel()
	credits := aside.Policy{Category: "credits", TTL: time.Hour}
	outage := errors.New("outage")
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		inner := aside.NewBatchLoader(c, credits, func(context.Context, []int) (map[int]int, error) {
			return map[int]int{}, &aside.BatchError[int]{Errors: map[int]error{6: outage}}
		})
		profiles := aside.NewBatchLoader(c, asidetest.Items, func(ctx context.Context, ids []int) (map[int]string, error) {
			if _, err := inner.GetMany(ctx, ids); err != nil {
				return nil, err
			}
			return map[int]string{5: "five", 6: "six"}, nil
		})
		_, err := profiles.GetMany(t.Context(), []int{5, 6})
		require.Error(t, err)
		_, err = aside.Get[string](t.Context(), c, profiles.Key(5))
		require.ErrorIs(t, err, aside.ErrMiss)
	})
}

// sealedValue refuses to be encoded, since something that it needs for it is not found.
type sealedValue struct{ ID int }

func (sealedValue) MarshalJSON() ([]byte, error) {
	return nil, fmt.Errorf("the key of the tenant: %w", aside.ErrNotFound)
}

func (*sealedValue) UnmarshalJSON([]byte) error { return nil }

// A value that cannot be encoded is there all the same. Neither its callers nor a loader around them may take that for "not found".
func TestAValueThatCannotBeEncodedIsNotNotFound(t *testing.T) {
	t.Parallel()
	private := aside.Policy{Name: "private", Category: "private", TTL: time.Hour, CloneOnRead: true}
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		inner := func(ctx context.Context) (sealedValue, error) {
			return aside.GetOrLoad(ctx, c, private.Key("a"), func(context.Context) (sealedValue, error) { return sealedValue{1}, nil })
		}
		_, err := inner(t.Context())
		require.Error(t, err)
		require.False(t, errors.Is(err, aside.ErrNotFound), err)
		_, _ = aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("outer"), inner)
		_, err = aside.Get[sealedValue](t.Context(), c, asidetest.Items.Key("outer"))
		require.ErrorIs(t, err, aside.ErrMiss, "a failure is cached as not found")
	})
}
