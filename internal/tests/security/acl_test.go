package security_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

func TestAUserWithTheDocumentedRulesLacksNothing(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MustDo(t, append([]string{"ACL", "SETUSER", "documented"}, asidetest.ACLRules("a-long-password", "items", "lane0")...)...)
	o := asidetest.Anonymously(server.Addr())
	o.Redis.Username, o.Redis.Password, o.LeaseTTL = "documented", "a-long-password", 2*time.Second
	a, b := asidetest.Connected(t, o), asidetest.Connected(t, o)
	require.True(t, a.Health().Tracking)
	ctx, tags := t.Context(), aside.WithTags("x")
	for _, key := range []aside.Key{asidetest.Items.Key("a"), asidetest.LanePolicy(0).Key("k")} {
		asidetest.InMemory(t, a, key, asidetest.Value("v1"), tags)
		asidetest.InMemory(t, b, key, asidetest.Value("not this one"), tags)
		_, err := aside.GetOrLoad(ctx, a, key, asidetest.Value("v2"), aside.Refresh())
		require.NoError(t, err)
		asidetest.Stored(t, a, key, "v3", tags)
		v, err := aside.GetOrLoad(ctx, b, key, asidetest.Value("not this one"), aside.Strong())
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
	load := asidetest.NewHeld()
	first := asidetest.Background(t, a, asidetest.Items.Key("b"), load.Load("v"))
	<-load.Began
	renewed := asidetest.Commands(t, server, "pexpire")
	asidetest.Eventually(t, "the lease is renewed", func() bool { return asidetest.Commands(t, server, "pexpire") > renewed })
	close(load.Release)
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
