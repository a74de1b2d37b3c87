package contract_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// Here are policies of one category whose keys are the same.

type profile struct{ Name string }

func loaded[T any](v T) func(context.Context, string) (T, error) {
	return func(context.Context, string) (T, error) { return v, nil }
}

func TestNoPolicyGetsAnothersValue(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		ctx := t.Context()
		// Each has an id of its own: what another one's cache still stores in the background is of another key.
		for name, ask := range map[string]func(c *aside.Cache, id string) (asidetest.Credits, error){
			"Get": func(c *aside.Cache, id string) (asidetest.Credits, error) {
				_, err := aside.Get[asidetest.Credits](ctx, c, aside.TTL.UserCredits.Key(id))
				if !errors.Is(err, aside.ErrMiss) {
					return asidetest.Credits{}, fmt.Errorf("not a miss: %v", err)
				}
				return asidetest.Credits{Balance: 7}, nil
			},
			"GetOrLoad": func(c *aside.Cache, id string) (asidetest.Credits, error) {
				return aside.NewLoader(c, aside.TTL.UserCredits, loaded(asidetest.Credits{Balance: 7})).Get(ctx, id)
			},
			"Strong": func(c *aside.Cache, id string) (asidetest.Credits, error) {
				return aside.NewLoader(c, aside.TTL.UserCredits, loaded(asidetest.Credits{Balance: 7})).Get(ctx, id, aside.Strong())
			},
			"GetMany": func(c *aside.Cache, id string) (asidetest.Credits, error) {
				got, err := aside.NewLoader(c, aside.TTL.UserCredits, loaded(asidetest.Credits{Balance: 7})).GetMany(ctx, []string{id, id + "b"})
				return got[id], err
			},
			"a second cache": func(_ *aside.Cache, id string) (asidetest.Credits, error) {
				return aside.NewLoader(newCache(aside.Options{}), aside.TTL.UserCredits, loaded(asidetest.Credits{Balance: 7})).Get(ctx, id)
			},
		} {
			c, id := newCache(aside.Options{}), strings.ReplaceAll(name, " ", "-")
			profiles := aside.NewLoader(c, aside.TTL.UserProfile, loaded(profile{"Ann"}))
			_, err := profiles.Get(ctx, id, aside.Refresh())
			require.NoError(t, err, name)
			asidetest.Eventually(t, "it is stored", func() bool {
				v, err := aside.Get[profile](ctx, c, profiles.Key(id))
				return err == nil && v.Name == "Ann"
			})
			got, err := ask(c, id)
			require.NoError(t, err, name)
			require.Equal(t, asidetest.Credits{Balance: 7}, got, name)
			v, err := profiles.Get(ctx, id)
			require.NoError(t, err, name)
			require.Equal(t, profile{"Ann"}, v, name)
		}
	})
}

// The type says nothing of a policy: here it is the same.
func TestNoPolicyGetsAnothersValueOfTheSameType(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{}), t.Context()
		one, two := aside.TTL.RankingsModels, aside.TTL.RankingsApps
		asidetest.Stored(t, c, one.Key("top"), "models")
		_, err := aside.Get[string](ctx, c, two.Key("top"))
		require.ErrorIs(t, err, aside.ErrMiss)

		// Nor do they share a load, alone or in a batch.
		held := asidetest.NewHeld()
		first := asidetest.Background(t, c, one.Key("all"), held.Load("models"))
		<-held.Began
		second := asidetest.Background(t, c, two.Key("all"), func(context.Context) (string, error) { return "apps", nil })
		close(held.Release)
		require.Equal(t, "models", <-first)
		require.Equal(t, "apps", <-second)

		policies := []*aside.Policy{&one, &two}
		got, err := aside.GetOrLoadMany(ctx, c, []int{0, 1}, func(i int) aside.Key { return policies[i].Key("both") },
			func(_ context.Context, ids []int) (map[int]string, error) {
				values := map[int]string{}
				for _, i := range ids {
					values[i] = policies[i].Name
				}
				return values, nil
			})
		require.NoError(t, err)
		require.Equal(t, map[int]string{0: "RankingsModels", 1: "RankingsApps"}, got)

		// A "not found" and a failure are one policy's as well.
		_, err = aside.GetOrLoad(ctx, c, one.Key("none"), func(context.Context) (string, error) { return "", aside.ErrNotFound })
		require.ErrorIs(t, err, aside.ErrNotFound)
		v, err := aside.GetOrLoad(ctx, c, two.Key("none"), func(context.Context) (string, error) { return "apps", nil })
		require.NoError(t, err)
		require.Equal(t, "apps", v)
	})
}

func TestAFailureHoldsBackNoOtherPolicy(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{Backoff: time.Hour}), t.Context()
		fails := func(context.Context) (string, error) { return "", asidetest.ErrLoader }
		for range 2 { // the second one is held back at the latest
			_, err := aside.GetOrLoad(ctx, c, aside.TTL.RankingsModels.Key("all"), fails)
			require.ErrorIs(t, err, asidetest.ErrLoader)
		}
		v, err := aside.GetOrLoad(ctx, c, aside.TTL.RankingsApps.Key("all"), func(context.Context) (string, error) { return "apps", nil })
		require.NoError(t, err)
		require.Equal(t, "apps", v)
	})
}

// A key that somebody writes is that of all policies of its category.
func TestAnInvalidationReachesWhicheverPolicyTheKeyIsOf(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		ctx := t.Context()
		stored := aside.TTL.UserCredits
		for name, invalidate := range map[string]func(*aside.Cache) (aside.Receipt, error){
			"its own key":     func(c *aside.Cache) (aside.Receipt, error) { return c.Invalidate(ctx, stored.Key("u1")) },
			"the other's key": func(c *aside.Cache) (aside.Receipt, error) { return c.Invalidate(ctx, aside.TTL.UserProfile.Key("u1")) },
			"the other's parse": func(c *aside.Cache) (aside.Receipt, error) {
				k, _ := aside.TTL.UserProfile.ParseKey("user:u1")
				return c.Invalidate(ctx, k)
			},
			"category": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateCategory(ctx, "user") },
			"tag":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateTags(ctx, "x") },
			"pattern": func(c *aside.Cache) (aside.Receipt, error) {
				return c.InvalidatePattern(ctx, aside.TTL.UserProfile.Match("u1"))
			},
			"all": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateAll(ctx) },
		} {
			c := newCache(aside.Options{})
			asidetest.Stored(t, c, stored.Key("u1"), asidetest.Credits{Balance: 7}, aside.WithTags("x"))
			v, err := aside.Get[asidetest.Credits](ctx, c, stored.Key("u1"))
			require.NoError(t, err, name)
			require.Equal(t, asidetest.Credits{Balance: 7}, v, name)
			infos := 0
			for info, err := range c.Keys(ctx, aside.Pattern{}) {
				require.NoError(t, err)
				require.Equal(t, "user:u1", info.Key)
				require.Equal(t, []string{"x"}, info.Tags)
				infos++
			}
			require.Equal(t, 1, infos, name)
			receipt, err := invalidate(c)
			require.NoError(t, err, name)
			require.NoError(t, receipt.Wait(ctx), name)
			if name != "its own key" && name != "the other's key" && name != "the other's parse" && name != "pattern" {
				n, err := receipt.WaitCleanup(ctx)
				require.NoError(t, err, name)
				require.EqualValues(t, 1, n, name)
			}
			_, err = aside.Get[asidetest.Credits](ctx, c, stored.Key("u1"))
			require.ErrorIs(t, err, aside.ErrMiss, name)
		}
	})
}

func TestASharedKeyIsLoggedWithBothPolicies(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		var log asidetest.Logbook
		c := newCache(aside.Options{Logger: log.Logger()})
		for range 3 {
			asidetest.Stored(t, c, aside.TTL.UserProfile.Key("u1"), "p")
			r, err := aside.Lookup(t.Context(), c, aside.TTL.UserCredits.Key("u1"), func(context.Context) (string, error) { return "c", nil })
			require.NoError(t, err)
			require.Equal(t, "c", r.Value)
			require.Equal(t, "another policy's value is under this key", r.Reason)
		}
		asidetest.Eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), "two policies of one category") })
		require.Equal(t, 1, strings.Count(log.String(), "two policies of one category"))
		require.Contains(t, log.String(), `"policy":"UserCredits"`)
		require.Contains(t, log.String(), `"other":"UserProfile"`)
		require.Contains(t, log.String(), `"key":"user:u1"`)
	})
}

func startStranger(t *testing.T, addr string) (ask func(question string) string) {
	t.Helper()
	p := redistest.Spawn(t, "stranger", "ADDR="+addr)
	line, err := p.Line()
	require.NoError(t, err)
	require.Equal(t, "ready", line)
	var mu sync.Mutex
	return func(question string) string {
		mu.Lock()
		defer mu.Unlock()
		_, err := fmt.Fprintln(p.Stdin, question)
		require.NoError(t, err)
		line, err := p.Line()
		require.NoError(t, err)
		return line
	}
}

func TestAnotherProcessGetsItsOwnPolicysValueOnly(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, ask := asidetest.Connected(t, asidetest.At(server.Addr())), startStranger(t, server.Addr())
	asidetest.Stored(t, c, aside.TTL.UserProfile.Key("u1"), profile{"Ann"})
	require.Equal(t, `[{"Balance":7},"miss","\u003cnil\u003e"]`, ask("credits u1"))
	asidetest.Stored(t, c, aside.TTL.UserCredits.Key("u2"), asidetest.Credits{Balance: 5})
	require.Equal(t, `[{"Balance":5},"hit","\u003cnil\u003e"]`, ask("credits u2"))
}

func TestAnotherTypeIsAnsweredAlikeEverywhere(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{}), t.Context()
		asidetest.Stored(t, c, asidetest.Items.Key("n"), 7)
		n, err := aside.Get[int64](ctx, c, asidetest.Items.Key("n"))
		require.NoError(t, err)
		require.EqualValues(t, 7, n)
		m, err := aside.Get[int](ctx, c, asidetest.Items.Key("n"))
		require.NoError(t, err)
		require.Equal(t, 7, m)
		_, err = aside.Get[string](ctx, c, asidetest.Items.Key("n"))
		require.ErrorIs(t, err, aside.ErrMiss, "a number is no string")
		var src asidetest.Source
		s, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("n"), src.Load("text"))
		require.NoError(t, err)
		require.Equal(t, "text", s)
		asidetest.Eventually(t, "the string takes the number's place", func() bool {
			s, err := aside.Get[string](ctx, c, asidetest.Items.Key("n"))
			return err == nil && s == "text"
		})

		asidetest.Stored(t, c, asidetest.Items.Key("p"), &profile{"Ann"})
		p, err := aside.Get[profile](ctx, c, asidetest.Items.Key("p"))
		require.NoError(t, err)
		require.Equal(t, profile{"Ann"}, p)
		p.Name = "Bob"
		q, err := aside.Get[*profile](ctx, c, asidetest.Items.Key("p"))
		require.NoError(t, err)
		require.Equal(t, &profile{"Ann"}, q)

		asidetest.Stored(t, c, asidetest.Items.Key("b"), []byte("bytes"))
		b, err := aside.Get[string](ctx, c, asidetest.Items.Key("b"))
		require.NoError(t, err)
		require.Equal(t, "bytes", b)
	})
}

func TestAnotherProcessGetsAnotherType(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, ask := asidetest.Connected(t, asidetest.At(server.Addr())), startStranger(t, server.Addr())
	asidetest.Stored(t, c, asidetest.Items.Key("n"), 7)
	require.Equal(t, `[7,"\u003cnil\u003e"]`, ask("int64 n"))
}

func TestAPrivateCopyIsNeverShared(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		ctx := t.Context()
		plain := aside.Policy{Name: "plain", Category: "mixed", TTL: time.Hour}
		private := aside.Policy{Name: "private", Category: "mixed", TTL: time.Hour, CloneOnRead: true}

		// A load of the one is not shared with the other.
		c := newCache(aside.Options{})
		began, release := make(chan struct{}), make(chan struct{})
		results := make(chan []int, 2)
		get := func(p *aside.Policy, load func(context.Context) ([]int, error)) {
			v, err := aside.GetOrLoad(context.Background(), c, p.Key("a"), load)
			if err != nil {
				t.Error(err)
			}
			results <- v
		}
		go get(&plain, func(context.Context) ([]int, error) { close(began); <-release; return []int{1}, nil })
		<-began
		go get(&private, func(context.Context) ([]int, error) { return []int{1}, nil })
		close(release)
		first, second := <-results, <-results
		first[0] = 2
		require.Equal(t, []int{1}, second)

		// What the one has stored is none of the other's, in either order.
		for i, order := range [][2]*aside.Policy{{&plain, &private}, {&private, &plain}} {
			key := fmt.Sprint("b", i)
			asidetest.Stored(t, c, order[0].Key(key), []int{1})
			_, err := aside.Get[[]int](ctx, c, order[1].Key(key))
			require.ErrorIs(t, err, aside.ErrMiss)
		}

		// A type that a private value cannot be decoded into is a miss, not an error.
		asidetest.Stored(t, c, private.Key("c"), []int{1})
		_, err := aside.Get[[]int](ctx, c, private.Key("c"))
		require.NoError(t, err)
		_, err = aside.Get[string](ctx, c, private.Key("c"))
		require.ErrorIs(t, err, aside.ErrMiss)
		s, err := aside.GetOrLoad(ctx, c, private.Key("c"), func(context.Context) (string, error) { return "text", nil })
		require.NoError(t, err)
		require.Equal(t, "text", s)
		n, err := aside.GetOrLoad(ctx, c, private.Key("d"), func(context.Context) ([]int8, error) { return []int8{1}, nil })
		require.NoError(t, err)
		require.Equal(t, []int8{1}, n)
		asidetest.Eventually(t, "another type that it can be decoded into", func() bool {
			m, err := aside.Get[[]int](ctx, c, private.Key("d"))
			return err == nil && m[0] == 1
		})
	})
}

func TestTwoPoliciesOfOneNameAndCategoryAreNamed(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	plain := aside.Policy{Name: "mixed", Category: "mixture", TTL: time.Hour}
	private := plain
	private.CloneOnRead = true
	require.NoError(t, aside.Set(t.Context(), c, plain.Key(1), "v"))
	err := aside.Set(t.Context(), c, private.Key(1), "v")
	asidetest.RequireCode(t, err, aside.CodeInvalidOption)
	require.ErrorContains(t, err, `"mixed"`)
	require.ErrorContains(t, err, `"mixture"`)
}
