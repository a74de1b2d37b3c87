package asidehttp_test

import (
	"io"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// What the page shows of Redis: servers, keys and a value there, and what it shows when Redis is gone.
func TestADashboardOnRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := onRedis(t, server, tables()...)
	key := aside.TTL.ModelsGateway.Key("open\u202erouter", "all")
	asidetest.Stored(t, c, key, "the value", aside.WithTags("supplier 3"))
	o := dashboardOptions(io.Discard)
	o.Values = true
	h := asidehttp.Dashboard(c, o)
	type nodes struct {
		Nodes []aside.Node
		Trips []struct{ Of string }
	}
	n := answerOf[nodes](t, ask(h, "GET", "/nodes.json", "", "Bearer "+keyRead))
	require.Equal(t, server.Addr(), n.Nodes[0].Addr)
	require.True(t, n.Nodes[0].Up)
	require.Len(t, n.Trips, 5)

	type listing struct {
		Rows  []struct{ Key, Codec string }
		Error string
	}
	rows := answerOf[listing](t, ask(h, "GET", "/keys.json?pattern=models:*", "", "Bearer "+keyRead)).Rows
	require.Equal(t, key.String(), rows[0].Key)
	require.Equal(t, "raw", rows[0].Codec)

	entry := func() shownEntry {
		return answerOf[shownEntry](t, ask(h, "GET", "/entry.json?key="+url.QueryEscape(key.String()), "", "Bearer "+keyValues))
	}
	e := entry()
	require.Equal(t, "served", e.Verdict)
	require.Equal(t, "the value", e.Value.Text)
	require.Equal(t, []string{"all", "category", "tag"}, kindsOf(e), "each with its generation")
	_, err := c.InvalidateTags(t.Context(), "supplier 3")
	require.NoError(t, err)
	eventually(t, "it is not served, or is gone", func() bool { return entry().Verdict != "served" })

	asidetest.Stored(t, c, key, "the value")
	server.Kill()
	eventually(t, "the loss is noticed", func() bool { return c.Health().State == aside.StateDegraded })
	n = answerOf[nodes](t, ask(h, "GET", "/nodes.json", "", "Bearer "+keyRead))
	require.False(t, n.Nodes[0].Up)
	require.NotEmpty(t, n.Nodes[0].Reason)
	require.NotEmpty(t, answerOf[listing](t, ask(h, "GET", "/keys.json?pattern=models:*", "", "Bearer "+keyRead)).Error)
	e = entry()
	require.Contains(t, e.Error, "reading the value in Redis failed")
	require.Empty(t, e.Verdict)
	require.Nil(t, e.Value)
	require.Equal(t, 200, ask(h, "GET", "/overview.json", "", "Bearer "+keyRead).Code)
}

func kindsOf(e shownEntry) (kinds []string) {
	for _, g := range e.Generations {
		kinds = append(kinds, g.Kind)
		if !g.Current {
			kinds = append(kinds, "invalidated")
		}
	}
	return kinds
}
