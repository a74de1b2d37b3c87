package contract_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// namespaced is a cache in a namespace, as a user who may touch nothing else there is on the server.
func namespaced(t *testing.T, server *redistest.Server, namespace string) *aside.Cache {
	t.Helper()
	page := asidetest.Page(t, "docs/redis.md")
	const documented = "`~shop%:* ~{shop%:*}!*`"
	require.Contains(t, page, documented)
	rules := slices.DeleteFunc(asidetest.ACLRules("a-long-password"), func(rule string) bool { return rule[0] == '~' })
	for _, rule := range strings.Fields(strings.Trim(documented, "`")) {
		rules = append(rules, strings.ReplaceAll(rule, "shop", namespace))
	}
	server.MustDo(t, append([]string{"ACL", "SETUSER", namespace}, rules...)...)
	o := asidetest.Anonymously(server.Addr())
	o.Redis.Username, o.Redis.Password, o.Namespace = namespace, "a-long-password", namespace
	return asidetest.Connected(t, o)
}

// Two caches, and one without a namespace whose category is called as one of them, have the same keys, and never meet.
func TestNamespacesOnOneServerDoNotMeet(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	plain := asidetest.Connected(t, asidetest.Anonymously(server.Addr()))
	shop, other := namespaced(t, server, "shop"), namespaced(t, server, "shopping")
	asCategory := aside.Policy{Category: "shop", TTL: asidetest.Items.TTL}
	for _, part := range []string{"items:a", ":items:a", "%:items:a"} {
		asidetest.Stored(t, plain, asCategory.Key(part), "of plain")
	}

	caches := map[string]*aside.Cache{"": plain, "shop": shop, "shopping": other}
	tagged, key, big := asidetest.Items.Key("tagged"), asidetest.Items.Key("a"), asidetest.Items.Key("big")
	fill := func() {
		for name, c := range caches {
			asidetest.InMemory(t, c, key, asidetest.Value("a of "+name))
			asidetest.InMemory(t, c, tagged, asidetest.Value("tagged of "+name), aside.WithTags("x"))
			asidetest.InMemory(t, c, big, asidetest.Value(name+string(asidetest.Large(2*asidetest.Chunk))))
		}
	}
	have := func(name string, key aside.Key) bool {
		v, err := aside.Get[string](t.Context(), caches[name], key)
		if err != nil {
			require.ErrorIs(t, err, aside.ErrMiss)
			return false
		}
		require.Contains(t, v, name)
		return true
	}
	ctx := t.Context()
	for what, invalidate := range map[string]func(c *aside.Cache) (aside.Receipt, error){
		"key":      func(c *aside.Cache) (aside.Receipt, error) { return c.Invalidate(ctx, key, tagged, big) },
		"tag":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateTags(ctx, "x") },
		"category": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateCategory(ctx, "items") },
		"pattern": func(c *aside.Cache) (aside.Receipt, error) {
			return c.InvalidatePattern(ctx, asidetest.Items.Match(aside.Wildcard))
		},
		"one": func(c *aside.Cache) (aside.Receipt, error) {
			return c.InvalidatePattern(ctx, asidetest.Items.Match("tagged"))
		},
		"all": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateAll(ctx) },
	} {
		fill()
		receipt, err := invalidate(shop)
		require.NoError(t, err)
		require.True(t, receipt.Confirmed)
		gone := 3
		if what == "tag" || what == "one" {
			gone = 1
		}
		removed, err := receipt.WaitCleanup(ctx)
		require.NoError(t, err)
		require.EqualValues(t, gone, removed, what)
		require.False(t, have("shop", tagged), what)
		require.Equal(t, gone == 1, have("shop", key), what)
		for _, name := range []string{"", "shopping"} {
			require.True(t, have(name, key) && have(name, tagged) && have(name, big), what)
			require.Len(t, server.MustDo(t, "KEYS", inRedis(name, "items:*")), 3, what)
		}
		require.Len(t, asidetest.Infos(t, other, aside.Pattern{}), 3, what)
		require.Len(t, asidetest.Infos(t, other, asidetest.Items.Match(aside.Wildcard)), 3, what)
	}

	held := asidetest.NewHeld() // a lease, too
	load := asidetest.Background(t, shop, asidetest.Items.Key("held"), held.Load("v"))
	<-held.Began
	for _, c := range []*aside.Cache{shop, other} {
		require.Zero(t, c.Metrics().RedisErrors)
	}
	var inShop int
	for _, name := range server.MustDo(t, "KEYS", "*").([]any) {
		if strings.HasPrefix(name.(string), "shop%:") || strings.HasPrefix(name.(string), "{shop%:") {
			inShop++
		}
	}
	require.Greater(t, inShop, 5, "generations, a mark, a lease")
	close(held.Release)
	<-load
	require.Empty(t, server.MustDo(t, "ACL", "LOG"), "nobody has tried to touch what is not in the namespace")
	for _, part := range []string{"items:a", ":items:a", "%:items:a"} {
		require.Equal(t, 1, len(asidetest.Infos(t, plain, asCategory.Match(part))), "what only looks like it stays")
	}
}

// inRedis is what a key is called in Redis.
func inRedis(namespace, key string) string {
	if namespace == "" {
		return key
	}
	return namespace + "%:" + key
}

func TestAChangeReachesTheOthersOfANamespaceAlone(t *testing.T) {
	t.Parallel()
	for name, addr := range map[string]func(t *testing.T) string{
		"tracking":      func(t *testing.T) string { return redistest.Start(t).Addr() },
		"announcements": func(t *testing.T) string { return asidetest.Mini(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := asidetest.Anonymously(addr(t))
			if asidetest.AsUser && name == "announcements" {
				o.Redis.Username, o.Redis.Password = "aside", asidetest.Canary
			}
			foreign := asidetest.Connected(t, o)
			o.Namespace = "shop"
			a, b := asidetest.Connected(t, o), asidetest.Connected(t, o)
			key, src := asidetest.Items.Key("a"), &asidetest.Versioned{}
			for v := range int64(5) {
				src.Version.Store(v)
				_, err := a.Invalidate(t.Context(), key)
				require.NoError(t, err)
				asidetest.Eventually(t, "the other one hears of it", func() bool {
					got, err := aside.GetOrLoad(t.Context(), b, key, src.Load)
					require.NoError(t, err)
					return got == v
				})
				asidetest.InMemory(t, b, key, src.Load)
				asidetest.InMemory(t, foreign, key, func(context.Context) (int64, error) { return -1, nil })
			}
			own := asidetest.Pushes(t, b)
			asidetest.Eventually(t, "b is told, and does not only find out", func() bool {
				_, err := a.Invalidate(t.Context(), key)
				require.NoError(t, err)
				return b.Metrics().InvalidationMessages > own
			})
		})
	}
}

func TestALoadInFlightIsNotStoredInANamespaceEither(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.Anonymously(server.Addr())
	o.Namespace = "shop"
	a, b := asidetest.Connected(t, o), asidetest.Connected(t, o)
	held := asidetest.NewHeld()
	load := asidetest.Background(t, b, asidetest.Items.Key("a"), held.Load("old"))
	<-held.Began
	_, err := a.InvalidatePattern(t.Context(), asidetest.Items.Match(aside.Wildcard))
	require.NoError(t, err)
	close(held.Release)
	<-load
	asidetest.Eventually(t, "the fill is refused", func() bool { return b.Metrics().Labels["items"].FillsRejected == 1 })
	require.Empty(t, server.MustDo(t, "KEYS", "*items:a*"))
}

func TestAValueOfAnotherNamespaceIsAMiss(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.Anonymously(server.Addr())
	asidetest.Stored(t, asidetest.Connected(t, o), asidetest.Items.Key("a"), "foreign")
	o.Namespace = "shop"
	c := asidetest.Connected(t, o)
	server.MustDo(t, "SET", "shop%:items:a", server.MustDo(t, "GET", "items:a").(string))
	v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("own"))
	require.NoError(t, err)
	require.Equal(t, "own", v)
	require.EqualValues(t, 1, c.Metrics().Labels["items"].DecodeErrors)
}

func TestANamespaceIsPlain(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"a:b", "a*", "{a}", "50%", "a\n", "\xff", strings.Repeat("n", 65)} {
		_, err := aside.New(aside.Options{Namespace: bad})
		asidetest.RequireCode(t, err, aside.CodeInvalidOption)
		require.ErrorContains(t, err, "Options.Namespace")
	}
	for _, good := range []string{"shop", "shop-2/staging", "größe", strings.Repeat("n", 64)} {
		require.NotNil(t, asidetest.NewCache(t, aside.Options{Namespace: good}))
	}
}
