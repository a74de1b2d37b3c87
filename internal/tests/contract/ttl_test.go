package contract_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

func TestEveryRowOfTheTTLTable(t *testing.T) {
	t.Parallel()
	table := &aside.TTL
	for _, row := range []struct {
		policy   *aside.Policy
		name     string
		seconds  int
		category string
		label    string
	}{
		{&table.ModelsAll, "ModelsAll", 3600, "models", "models"},
		{&table.ModelsGateway, "ModelsGateway", 3600, "models", "models"},
		{&table.ModelDetail, "ModelDetail", 3600, "models", "models"},
		{&table.SessionsList, "SessionsList", 300, "sessions", "sessions"},
		{&table.SessionDetail, "SessionDetail", 300, "sessions", "sessions"},
		{&table.SearchResults, "SearchResults", 300, "sessions", "sessions"},
		{&table.ChatStats, "ChatStats", 600, "stats", "stats"},
		{&table.UserProfile, "UserProfile", 600, "user", "user_profile"},
		{&table.UserCredits, "UserCredits", 300, "user", "user_credits"},
		{&table.ActivityStats, "ActivityStats", 1800, "activity", "activity"},
		{&table.RankingsModels, "RankingsModels", 14400, "rankings", "rankings"},
		{&table.RankingsApps, "RankingsApps", 14400, "rankings", "rankings"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ttl := time.Duration(row.seconds) * time.Second
				c := asidetest.NewCache(t, aside.Options{})
				require.Equal(t, ttl, asidetest.TTLOf(t, c, row.policy))
				require.Equal(t, row.category+":x", row.policy.Key("x").String())
				labels := c.Metrics().Labels
				require.Len(t, labels, 1)
				require.Contains(t, labels, row.label)

				// Overridable by its name, which New knows without any registration.
				c = asidetest.NewCache(t, aside.Options{TTLs: map[string]time.Duration{row.name: ttl + time.Second}})
				require.Equal(t, ttl+time.Second, asidetest.TTLOf(t, c, row.policy))
			})
		})
	}
}

func TestTTLsOverridesPoliciesByName(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		named := aside.Policy{Name: "mine", Category: "m", TTL: time.Hour}
		unnamed := aside.Policy{Category: "unnamed", TTL: time.Hour}
		sibling := aside.Policy{Name: "sibling", Category: "m", TTL: time.Hour}
		c := asidetest.NewCache(t, aside.Options{
			Policies: []aside.Policy{named, unnamed, sibling},
			TTLs: map[string]time.Duration{
				"mine": 7 * time.Second, "unnamed": 8 * time.Second, "UserProfile": time.Millisecond * 1500,
			},
		})
		require.Equal(t, 7*time.Second, asidetest.TTLOf(t, c, &named))
		require.Equal(t, 8*time.Second, asidetest.TTLOf(t, c, &unnamed), "a policy without a name goes by its category")
		require.Equal(t, 1500*time.Millisecond, asidetest.TTLOf(t, c, &aside.TTL.UserProfile))
		require.Equal(t, time.Hour, asidetest.TTLOf(t, c, &sibling))
		require.Equal(t, 5*time.Minute, asidetest.TTLOf(t, c, &aside.TTL.UserCredits))

		// One call, and the load itself, have the last word.
		require.Equal(t, 3*time.Second, asidetest.TTLOf(t, c, &named, aside.WithTTL(3*time.Second)))
		require.Equal(t, 7*time.Second, asidetest.TTLOf(t, c, &named))
		require.NoError(t, aside.Set(t.Context(), c, named.Key("set"), "v"))
		set, err := aside.Lookup[string](t.Context(), c, named.Key("set"), asidetest.Unreachable)
		require.NoError(t, err)
		require.Equal(t, 7*time.Second, set.TTL)

		// Another cache of the process has overrides of its own.
		plain := asidetest.NewCache(t, aside.Options{Policies: []aside.Policy{named}})
		require.Equal(t, time.Hour, asidetest.TTLOf(t, plain, &named))
	})
}

func TestAnOverrideThatCannotBeIsRefused(t *testing.T) {
	t.Parallel()
	_, err := aside.New(aside.Options{
		Policies: []aside.Policy{{Name: "mine", Category: "m", TTL: time.Hour}},
		TTLs:     map[string]time.Duration{"UserProfil": time.Hour},
	})
	asidetest.RequireCode(t, err, aside.CodeInvalidOption)
	for _, part := range []string{"Options.TTLs", `"UserProfil"`, "mine", "Options.Policies"} {
		require.ErrorContains(t, err, part)
	}
	require.NotContains(t, err.Error(), "ModelsAll", "the program does not use the table")
	for _, d := range []time.Duration{0, -time.Second, time.Millisecond - 1, math.MinInt64} {
		_, err := aside.New(aside.Options{TTLs: map[string]time.Duration{"UserProfile": d}})
		asidetest.RequireCode(t, err, aside.CodeInvalidOption, d)
		require.ErrorContains(t, err, `Options.TTLs["UserProfile"]`)
		require.ErrorContains(t, err, "at least 1ms")
	}
	c, err := aside.New(aside.Options{TTLs: map[string]time.Duration{"UserProfile": time.Millisecond}})
	require.NoError(t, err)
	require.NoError(t, c.Close())
}

// badPolicies are policies that a cache must refuse, by what the error must say: the policy, the field, and the remedy.
func badPolicies() map[string]struct {
	policy aside.Policy
	says   []string
} {
	type bad = struct {
		policy aside.Policy
		says   []string
	}
	of := func(change func(*aside.Policy), says ...string) bad {
		p := aside.Policy{Name: "wrong", Category: "w", TTL: time.Hour}
		change(&p)
		return bad{p, append(says, `policy "wrong"`)}
	}
	all := map[string]bad{
		"no category":              of(func(p *aside.Policy) { p.Category = "" }, "no Category", "set the first part"),
		"zero TTL":                 of(func(p *aside.Policy) { p.TTL = 0 }, "TTL is 0s", "positive"),
		"negative TTL":             of(func(p *aside.Policy) { p.TTL = -time.Second }, "TTL is -1s", "positive"),
		"TTL without a unit":       of(func(p *aside.Policy) { p.TTL = 300 }, "TTL is 300ns", "at least 1ms"),
		"TTL just under 1 ms":      of(func(p *aside.Policy) { p.TTL = time.Millisecond - 1 }, "TTL", "at least 1ms"),
		"negative load time-out":   of(func(p *aside.Policy) { p.LoadTimeout = -1 }, "LoadTimeout", "positive"),
		"negative jitter":          of(func(p *aside.Policy) { p.Jitter = -0.1 }, "Jitter", "from 0 to less than 1"),
		"jitter of all":            of(func(p *aside.Policy) { p.Jitter = 1 }, "Jitter", "from 0 to less than 1"),
		"jitter of infinity":       of(func(p *aside.Policy) { p.Jitter = math.Inf(1) }, "Jitter", "from 0 to less than 1"),
		"jitter that is no number": of(func(p *aside.Policy) { p.Jitter = math.NaN() }, "Jitter", "from 0 to less than 1"),
		"codec without a name":     of(func(p *aside.Policy) { p.Codec = renamed{aside.JSON, ""} }, "Codec", "Name is empty"),
		"category too long":        of(func(p *aside.Policy) { p.Category = strings.Repeat("c", 510) }, "Category", "510 bytes", "at most 509"),
		"codec named json":         of(func(p *aside.Policy) { p.Codec = renamed{aside.CBOR, "json"} }, "Codec", `"json"`, "give it another"),
	}
	for _, category := range []string{"a:b", ":", "a*", "a?", "[a", "a]", `a\`, "{a", "a}", "50%", "a\nb", "\x00", "a\u0085", "a\xff"} {
		all[fmt.Sprintf("category %q", category)] = of(func(p *aside.Policy) { p.Category = category }, "Category", "leave it out")
	}
	return all
}

func TestTheLongestCategoryIsCachedLikeAnyOther(t *testing.T) {
	t.Parallel()
	if asidetest.AsUser {
		t.Skip("the user of this run may touch the categories of the other tests alone")
	}
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{Namespace: strings.Repeat("n", 64)}), t.Context()
		p := aside.Policy{Name: "longest", Category: strings.Repeat("c", 509), TTL: time.Hour}
		asidetest.Stored(t, c, p.Key(1), "v")
		v, err := aside.Get[string](ctx, c, p.Key(1))
		require.NoError(t, err)
		require.Equal(t, "v", v)
		_, err = c.InvalidateCategory(ctx, p.Category)
		require.NoError(t, err)
		_, err = aside.Get[string](ctx, c, p.Key(1))
		require.ErrorIs(t, err, aside.ErrMiss)
	})
}

// renamed is a codec under another name.
type renamed struct {
	aside.Codec
	name string
}

func (r renamed) Name() string { return r.name }

func TestAWrongPolicyIsRefusedWhereItIsRegistered(t *testing.T) {
	t.Parallel()
	for name, bad := range badPolicies() {
		_, err := aside.New(aside.Options{Policies: []aside.Policy{{Category: "fine", TTL: time.Hour}, bad.policy}})
		asidetest.RequireCode(t, err, aside.CodeInvalidOption, name)
		require.ErrorContains(t, err, "Options.Policies[1]", name)
		for _, part := range bad.says {
			require.ErrorContains(t, err, part, name)
		}
	}
}

func TestAWrongPolicyThatWasNeverRegisteredIsRefusedAtItsFirstUse(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	for name, bad := range badPolicies() {
		calls := asidetest.KeyCalls(t.Context(), c, bad.policy.Key("x"))
		loader := aside.NewLoader(c, bad.policy, func(_ context.Context, id int) (string, error) { return "v", nil })
		calls["Loader.Get"] = func() error { _, err := loader.Get(t.Context(), 1); return err }
		calls["Loader.Lookup"] = func() error { _, err := loader.Lookup(t.Context(), 1); return err }
		calls["Loader.GetMany"] = func() error { _, err := loader.GetMany(t.Context(), []int{1}); return err }
		calls["Loader.Invalidate"] = func() error { _, err := loader.Invalidate(t.Context(), 1); return err }
		for call, do := range calls {
			for range 2 { // the first refusal leaves nothing behind that would let a second one pass
				err := do()
				asidetest.RequireCode(t, err, aside.CodeInvalidOption, "%s: %s", name, call)
				for _, part := range bad.says {
					require.ErrorContains(t, err, part, "%s: %s", name, call)
				}
			}
		}
	}
	require.Empty(t, c.Metrics().Labels)
}

func TestARightPolicyNeedsNoRegistration(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{})
		for _, p := range []aside.Policy{
			{Category: "ü nicode-1_2.3/4", TTL: time.Millisecond},
			{Name: "long", Category: "l", TTL: 100 * 365 * 24 * time.Hour},
			{Name: "jittery", Category: "j", TTL: time.Hour, Jitter: math.Nextafter(1, 0)},
			{Name: "never negative", Category: "n", TTL: time.Hour, NegativeTTL: -1},
			{Name: "packed", Category: "p", TTL: time.Hour, Codec: aside.CBOR},
			{Name: "own", Category: "o", TTL: time.Hour, Codec: renamed{aside.JSON, "json2"}},
		} {
			require.NoError(t, aside.Set(t.Context(), c, p.Key("x"), "v"), p.Name)
		}
	})
}

func TestTwoPoliciesOfOneNameAreAConflict(t *testing.T) {
	t.Parallel()
	first := aside.Policy{Name: "shared", Category: "s", TTL: time.Hour}
	for what, change := range map[string]func(*aside.Policy){
		"category":      func(p *aside.Policy) { p.Category = "other" },
		"label":         func(p *aside.Policy) { p.Label = "other" },
		"TTL":           func(p *aside.Policy) { p.TTL = time.Minute },
		"negative TTL":  func(p *aside.Policy) { p.NegativeTTL = time.Minute },
		"load time-out": func(p *aside.Policy) { p.LoadTimeout = time.Minute },
		"jitter":        func(p *aside.Policy) { p.Jitter = 0.5 },
		"codec":         func(p *aside.Policy) { p.Codec = aside.CBOR },
	} {
		second := first
		change(&second)
		requireConflict := func(err error) {
			t.Helper()
			asidetest.RequireCode(t, err, aside.CodeInvalidOption, what)
			for _, part := range []string{`"shared"`, "its own Name", "Options.TTLs"} {
				require.ErrorContains(t, err, part, what)
			}
		}
		_, err := aside.New(aside.Options{Policies: []aside.Policy{first, second}})
		requireConflict(err)

		c := asidetest.NewCache(t, aside.Options{})
		for range 2 {
			require.NoError(t, aside.Set(t.Context(), c, first.Key("x"), "v"))
			requireConflict(aside.Set(t.Context(), c, second.Key("x"), "v"))
			_, err := aside.GetOrLoad(t.Context(), c, second.Key("x"), func(context.Context) (string, error) { return "w", nil })
			requireConflict(err) // also where the key's text is the same: a hit of one policy is none of the other
		}
	}
	_, err := aside.New(aside.Options{Policies: []aside.Policy{{Name: "UserProfile", Category: "user", TTL: time.Hour}, aside.TTL.UserProfile}})
	asidetest.RequireCode(t, err, aside.CodeInvalidOption)
	require.ErrorContains(t, err, `"UserProfile"`)
	c, err := aside.New(aside.Options{Policies: []aside.Policy{first, first, aside.TTL.UserProfile}})
	require.NoError(t, err, "listed twice, or listed beside the table, is no conflict")
	c.Close()
}

func TestAPolicyBuiltAnewForEachCallIsOnePolicy(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	loads := 0
	for range 1000 {
		p := &aside.Policy{Name: "anew", Category: "a", TTL: time.Hour, Codec: renamed{aside.JSON, "json2"}}
		_, err := aside.GetOrLoad(t.Context(), c, p.Key("x"), func(context.Context) (int, error) { loads++; return loads, nil })
		require.NoError(t, err)
	}
	require.Equal(t, 1, loads)
	require.EqualValues(t, 999, c.Metrics().Labels["a"].Hits)
}

func TestAPolicyChangedAfterItsUseIsReported(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(*aside.Policy){
		"TTL":      func(p *aside.Policy) { p.TTL = time.Minute },
		"category": func(p *aside.Policy) { p.Category = "other" },
		"label":    func(p *aside.Policy) { p.Label = "other" },
		"jitter":   func(p *aside.Policy) { p.Jitter = 0.5 },
	} {
		c := asidetest.NewCache(t, aside.Options{})
		p := aside.Policy{Name: "fickle", Category: "f", TTL: time.Hour}
		for i := range 3 {
			require.NoError(t, aside.Set(t.Context(), c, p.Key(i), "v"))
		}
		change(&p)
		for call, do := range asidetest.KeyCalls(t.Context(), c, p.Key("new")) {
			err := do()
			asidetest.RequireCode(t, err, aside.CodeInvalidOption, "%s: %s", what, call)
			require.ErrorContains(t, err, `"fickle"`)
			require.ErrorContains(t, err, "changed after its first use")
		}
	}
}

func TestARegisteredPolicyIsACopyOfTheVariable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		variable := aside.Policy{Name: "mine", Category: "m", TTL: time.Hour}
		list := []aside.Policy{variable}
		c := asidetest.NewCache(t, aside.Options{Policies: list, TTLs: map[string]time.Duration{"mine": time.Minute}})
		require.Equal(t, time.Minute, asidetest.TTLOf(t, c, &variable))
		require.Equal(t, time.Minute, asidetest.TTLOf(t, c, &list[0]))
		require.Equal(t, time.Minute, asidetest.TTLOf(t, c, &variable))
		list[0].TTL = 2 * time.Hour
		require.Equal(t, time.Minute, asidetest.TTLOf(t, c, &variable), "the caller's slice is the caller's")
	})
}

func TestJitterOnlyShortensAndKeepsToItsFraction(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{})
		const ttl, fraction, keys = 100 * time.Second, 0.2, 2000
		p := aside.Policy{Name: "jittery", Category: "j", TTL: ttl, Jitter: fraction}
		shortest := ttl - time.Duration(fraction*float64(ttl))
		for _, how := range []string{"loaded", "set"} {
			var quarters [4]int
			for i := range keys {
				key := p.Key(how, i)
				if how == "set" {
					require.NoError(t, aside.Set(t.Context(), c, key, "v"))
				}
				r, err := aside.Lookup(t.Context(), c, key, func(context.Context) (string, error) { return "v", nil })
				require.NoError(t, err)
				require.LessOrEqual(t, r.TTL, ttl)
				require.GreaterOrEqual(t, r.TTL, shortest)
				quarters[min(3, 4*(r.TTL-shortest)/(ttl-shortest))]++
			}
			for _, n := range quarters {
				// Even shares of 500, with a standard deviation of 19.
				require.InDelta(t, keys/4, n, 150, "%s: %v", how, quarters)
			}
		}
		steady := aside.Policy{Name: "steady", Category: "s", TTL: ttl}
		for range 100 {
			require.Equal(t, ttl, asidetest.TTLOf(t, c, &steady))
		}
	})
}
