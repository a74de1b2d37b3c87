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

func TestAProcessThatAsksForNothingRestsAfterAMinute(t *testing.T) {
	t.Parallel()
	if asidetest.InCluster {
		t.Skip("a node of a cluster goes on being asked for its slots")
	}
	server := redistest.Start(t)
	began := time.Now()
	o := asidetest.At(server.Addr())
	o.Redis.Dialer.KeepAlive, o.Redis.ConnWriteTimeout = 0, 0
	c := asidetest.Connected(t, o)
	var origin asidetest.Source
	get := func() aside.Tier {
		r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key("a"), origin.Load("value"))
		require.NoError(t, err)
		return r.Tier
	}
	require.Equal(t, aside.TierOrigin, get())
	asidetest.Eventually(t, "it is in memory", func() bool { return get() == aside.TierMemory })
	rate := func(during string) {
		sum := func() (n int) {
			for _, command := range []string{"echo", "get", "evalsha", "ping"} {
				n += server.Calls(t, command)
			}
			return n
		}
		from, before := time.Now(), sum()
		asidetest.Eventually(t, "some seconds have passed", func() bool { return time.Since(from) > 5*time.Second })
		t.Logf("%s: %.1f commands a second", during, float64(sum()-before)/time.Since(from).Seconds())
	}
	require.Eventually(t, func() bool { return server.Calls(t, "getrange") > 8 }, asidetest.Bound, 10*time.Millisecond, "generations are used")
	rate("while connections are tried")
	tries, pings := server.Calls(t, "evalsha"), server.Calls(t, "ping")
	require.Eventually(t, func() bool {
		if now := server.Calls(t, "evalsha"); now != tries {
			tries, pings = now, server.Calls(t, "ping")
		}
		return server.Calls(t, "ping") >= pings+6 // two between two tries, while connections are tried
	}, time.Minute+asidetest.Bound, 100*time.Millisecond)
	require.Greater(t, time.Since(began), time.Minute)
	m := c.Metrics()
	require.EqualValues(t, 1, m.TrackingPaused)
	require.EqualValues(t, 1, m.TrackingLost, "it is part of what was lost")
	rate("at rest")
	require.Equal(t, aside.TierRedis, get(), "what was in memory is read again")
	asidetest.Eventually(t, "the connection is tried again", func() bool { return server.Calls(t, "evalsha") > tries })
	asidetest.Eventually(t, "it is in memory", func() bool { return get() == aside.TierMemory })
	require.EqualValues(t, 1, ownConnections(t, server), "small values need no second one")
	require.EqualValues(t, 1, origin.Loads.Load())
}

// ownConnections is how many connections the caches of a test have to a server that nobody else but the test uses.
func ownConnections(t *testing.T, server *redistest.Server) (n int) {
	list := server.MustDo(t, "CLIENT", "LIST").(string)
	return strings.Count(list, "resp=3")
}
