package aside_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// A server that refuses a part of an invalidation would leave the others with the old value, and nobody would know.
func TestAServerThatRefusesInvalidationsIsSaidToAndNotTrusted(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--rename-command", "UNLINK", "OTHERWISE")
	var log logbook
	o := at(server.Addr())
	o.Logger = log.logger()
	c := newCache(t, o)
	const why = "redis answered ERR to UNLINK in a script"
	eventually(t, "it is said why", func() bool { return strings.Contains(c.Health().Reason, why) })
	require.Equal(t, aside.StateDegraded, c.Health().State)
	receipt, err := c.Invalidate(t.Context(), items.Key("a"))
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)
	require.Equal(t, 1, strings.Count(log.String(), why))
}

// The same where the permission is taken away while the cache is in use, and given back.
func TestAnInvalidationThatIsRefusedLaterIsSaidTo(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MayDeny()
	server.MustDo(t, append([]string{"ACL", "SETUSER", "limited"}, aclRules("a-long-password", "items")...)...)
	var log logbook
	o := at(server.Addr())
	o.Redis.Username, o.Redis.Password, o.Logger = "limited", "a-long-password", log.logger()
	a, b := connected(t, o), connected(t, at(server.Addr()))
	key := items.Key("a")
	inMemory(t, a, key, value("old"))
	inMemory(t, b, key, value("old"))
	server.MustDo(t, "ACL", "SETUSER", "limited", "-unlink")
	receipt, err := a.Invalidate(t.Context(), key)
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)
	const why = "redis answered NOPERM to UNLINK in a script: its user lacks a permission that the README lists"
	eventually(t, "it is noticed", func() bool { return a.Health().Reason == why })
	require.Equal(t, aside.StateDegraded, a.Health().State)
	eventually(t, "it is logged", func() bool { return strings.Count(log.String(), why) == 1 })
	server.MustDo(t, "ACL", "SETUSER", "limited", "+unlink")
	require.NoError(t, receipt.Wait(t.Context()))
	eventually(t, "others are told", func() bool {
		v, err := aside.GetOrLoad(t.Context(), b, key, value("new"))
		require.NoError(t, err)
		return v == "new"
	})
}

// A key that the user may not touch is no reason to do without Redis. But somebody should know.
func TestAnInvalidationThatIsForbiddenForItsKeyIsLogged(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MayDeny()
	server.MustDo(t, append([]string{"ACL", "SETUSER", "limited"}, aclRules("a-long-password", "items")...)...)
	foreign := aside.Policy{Name: "foreign", Category: "foreign", TTL: time.Hour}
	var log logbook
	o := at(server.Addr())
	o.Redis.Username, o.Redis.Password, o.Logger = "limited", "a-long-password", log.logger()
	c := connected(t, o)
	receipt, err := c.Invalidate(t.Context(), foreign.Key(1), items.Key("a"))
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)
	eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), "an invalidation is refused by redis") })
	require.Equal(t, aside.StateConnected, c.Health().State)
}

func TestHealthSaysWhereChangesCannotBeAnnounced(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MustDo(t, "ACL", "SETUSER", "default", "-client|tracking", "-publish")
	var log logbook
	o := anonymously(server.Addr())
	o.Logger = log.logger()
	c := connected(t, o)
	if inCluster {
		t.Skip("announcements are for single servers")
	}
	require.Contains(t, c.Health().Reason, "refuses PUBLISH")
	eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), "refuses PUBLISH") })
	server.MustDo(t, "ACL", "SETUSER", "default", "+publish")
	d := connected(t, anonymously(server.Addr()))
	require.NotContains(t, d.Health().Reason, "PUBLISH")
}

func TestAPlannedReconnectIsNotLogged(t *testing.T) {
	t.Parallel()
	var log logbook
	o := at(redistest.Start(t).Addr())
	o.Logger, o.Redis.ConnLifetime = log.logger(), time.Second
	c := connected(t, o)
	eventually(t, "several connections have come to their end", func() bool { return c.Metrics().Gaps > 1 })
	require.Len(t, log.lines(t), 1)
	require.Equal(t, aside.StateConnected, c.Health().State)
}
