package faults_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// A server that refuses a part of an invalidation would leave the others with the old value, and nobody would know.
func TestAServerThatRefusesInvalidationsIsSaidToAndNotTrusted(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--rename-command", "UNLINK", "OTHERWISE")
	var log asidetest.Logbook
	o := asidetest.At(server.Addr())
	o.Logger = log.Logger()
	c := asidetest.NewCache(t, o)
	const why = "redis answered ERR to UNLINK in a script"
	asidetest.Eventually(t, "it is said why", func() bool { return strings.Contains(c.Health().Reason, why) })
	require.Equal(t, aside.StateDegraded, c.Health().State)
	receipt, err := c.Invalidate(t.Context(), asidetest.Items.Key("a"))
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)
	asidetest.Eventually(t, "it is logged once", func() bool { return log.With("aside: redis unavailable", why) == 1 })
}

// The same where the permission is taken away while the cache is in use, and given back.
func TestAnInvalidationThatIsRefusedLaterIsSaidTo(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MayDeny()
	server.MustDo(t, append([]string{"ACL", "SETUSER", "limited"}, asidetest.ACLRules("a-long-password", "items")...)...)
	var log asidetest.Logbook
	o := asidetest.At(server.Addr())
	o.Redis.Username, o.Redis.Password, o.Logger = "limited", "a-long-password", log.Logger()
	a, b := asidetest.Connected(t, o), asidetest.Connected(t, asidetest.At(server.Addr()))
	key := asidetest.Items.Key("a")
	asidetest.InMemory(t, a, key, asidetest.Value("old"))
	asidetest.InMemory(t, b, key, asidetest.Value("old"))
	server.MustDo(t, "ACL", "SETUSER", "limited", "-unlink")
	receipt, err := a.Invalidate(t.Context(), key)
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)
	const why = "redis answered NOPERM to UNLINK in a script: its user lacks a permission that docs/redis.md lists"
	asidetest.Eventually(t, "it is noticed", func() bool { return a.Health().Reason == why })
	require.Equal(t, aside.StateDegraded, a.Health().State)
	asidetest.Eventually(t, "it is logged", func() bool { return log.With("aside: redis unavailable", why) == 1 })
	server.MustDo(t, "ACL", "SETUSER", "limited", "+unlink")
	require.NoError(t, receipt.Wait(t.Context()))
	asidetest.Eventually(t, "others are told", func() bool {
		v, err := aside.GetOrLoad(t.Context(), b, key, asidetest.Value("new"))
		require.NoError(t, err)
		return v == "new"
	})
}

// A key that the user may not touch is no reason to do without Redis. But somebody should know.
func TestAnInvalidationThatIsForbiddenForItsKeyIsLogged(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MayDeny()
	server.MustDo(t, append([]string{"ACL", "SETUSER", "limited"}, asidetest.ACLRules("a-long-password", "items")...)...)
	foreign := aside.Policy{Name: "foreign", Category: "foreign", TTL: time.Hour}
	var log asidetest.Logbook
	o := asidetest.At(server.Addr())
	o.Redis.Username, o.Redis.Password, o.Logger = "limited", "a-long-password", log.Logger()
	c := asidetest.Connected(t, o)
	receipt, err := c.Invalidate(t.Context(), foreign.Key(1), asidetest.Items.Key("a"))
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)
	asidetest.Eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), "redis refuses an invalidation") })
	require.Equal(t, aside.StateConnected, c.Health().State)
}

func TestHealthSaysWhereChangesCannotBeAnnounced(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MustDo(t, "ACL", "SETUSER", "default", "-client|tracking", "-publish")
	var log asidetest.Logbook
	o := asidetest.Anonymously(server.Addr())
	o.Logger = log.Logger()
	c := asidetest.Connected(t, o)
	if asidetest.InCluster {
		t.Skip("announcements are for single servers")
	}
	require.Contains(t, c.Health().Reason, "refuses PUBLISH")
	asidetest.Eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), "refuses PUBLISH") })
	server.MustDo(t, "ACL", "SETUSER", "default", "+publish")
	d := asidetest.Connected(t, asidetest.Anonymously(server.Addr()))
	require.NotContains(t, d.Health().Reason, "PUBLISH")
}

func TestAPlannedReconnectIsNotLogged(t *testing.T) {
	t.Parallel()
	var log asidetest.Logbook
	o := asidetest.At(redistest.Start(t).Addr())
	o.Logger, o.Redis.ConnLifetime = log.Logger(), time.Second
	c := asidetest.Connected(t, o)
	asidetest.Eventually(t, "several connections have come to their end", func() bool { return c.Metrics().TrackingLost > 1 })
	require.Len(t, log.Lines(t), 1)
	require.Equal(t, aside.StateConnected, c.Health().State)
}
