package aside_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// aclRules are those that the README says a user needs, for the categories of these tests.
func aclRules(password string, categories ...string) (rules []string) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		panic(err)
	}
	found := regexp.MustCompile(`(?s)ACL SETUSER aside (.*?)\n\n`).FindSubmatch(readme)
	for _, rule := range strings.Fields(string(found[1])) {
		switch {
		case strings.Contains(rule, "models"):
			for _, category := range categories {
				rules = append(rules, strings.ReplaceAll(rule, "models", category))
			}
		case !strings.Contains(rule, "user"):
			rules = append(rules, strings.ReplaceAll(rule, "PASSWORD", password))
		}
	}
	return rules
}

// allCategories are those that the tests use where there is a server.
func allCategories() []string {
	all := []string{
		"a", "activity", "brief", "c", "codecs", "compared", "credits", "endless", "extreme", "f", "hanging", "items", "j", "json", "k", "late", "limits", "m", "mixed", "models", "cbor", "never",
		"others", "packed", "private", "quick", "rankings", "sessions", "shoppers", "short", "shortened", "slow", "stats", "tenants", "things", "user", "users", "versions",
	}
	for lane := range 64 {
		all = append(all, lanePolicy(lane).Category)
	}
	return all
}

func TestAUserWithTheDocumentedRulesLacksNothing(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MustDo(t, append([]string{"ACL", "SETUSER", "documented"}, aclRules("a-long-password", "items", "lane0")...)...)
	o := anonymously(server.Addr())
	o.Redis.Username, o.Redis.Password, o.LeaseTTL = "documented", "a-long-password", 100*time.Millisecond
	a, b := connected(t, o), connected(t, o)
	require.True(t, a.Health().Tracking)
	ctx, tags := t.Context(), aside.WithTags("x")
	for _, key := range []aside.Key{items.Key("a"), lanePolicy(0).Key("k")} {
		inMemory(t, a, key, value("v1"), tags)
		inMemory(t, b, key, value("not this one"), tags)
		_, err := aside.GetOrLoad(ctx, a, key, value("v2"), aside.Refresh())
		require.NoError(t, err)
		require.NoError(t, aside.Set(ctx, a, key, "v3", tags))
		v, err := aside.GetOrLoad(ctx, b, key, value("not this one"), aside.Strong())
		require.NoError(t, err)
		require.Equal(t, "v3", v)
		for _, invalidate := range []func() (aside.Receipt, error){
			func() (aside.Receipt, error) { return a.Invalidate(ctx, key) },
			func() (aside.Receipt, error) { return a.InvalidateTags(ctx, "x") },
			func() (aside.Receipt, error) { return a.InvalidateCategory(ctx, "items") },
			func() (aside.Receipt, error) { return a.InvalidateAll(ctx) },
		} {
			receipt, err := invalidate()
			require.NoError(t, err)
			require.True(t, receipt.Confirmed)
		}
	}
	load := newHeld()
	first := background(t, a, items.Key("b"), load.load("v"))
	<-load.began
	renewed := commands(t, server, "pexpire")
	eventually(t, "the lease is renewed", func() bool { return commands(t, server, "pexpire") > renewed })
	close(load.release)
	<-first
	require.NoError(t, a.Close())
	require.NoError(t, b.Close())
	require.Empty(t, server.MustDo(t, "ACL", "LOG"), "nothing was denied")
	m := a.Metrics()
	require.Zero(t, m.RedisErrors)
	for label, counts := range m.Labels {
		require.Zero(t, counts.RedisErrors, label)
	}
}
