package contract_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

func TestNodesHaveTheServer(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	nodes := c.Nodes()
	require.Len(t, nodes, 1)
	n := nodes[0]
	trips := map[string]uint64{"broken": 0, "timeout": 0, "slow": 0, "silent": 0, "unready": 0, "refused": 0}
	require.Equal(t, aside.Node{Addr: server.Addr(), Up: true, Since: c.Health().Since, Tracking: true, Trips: trips, ClockOffset: n.ClockOffset, ClockWithin: n.ClockWithin}, n)
	require.Positive(t, n.ClockWithin, "its clock is read before it is used")
	require.InDelta(t, 0, n.ClockOffset, float64(n.ClockWithin+time.Millisecond), "both are on this machine")

	server.Kill()
	asidetest.Eventually(t, "the loss is noticed", func() bool { return c.Health().Reason == asidetest.ConnectionRefused })
	n = c.Nodes()[0]
	trips["broken"] = 1
	require.Equal(t, aside.Node{
		Addr: server.Addr(), Since: c.Health().Since, Reason: asidetest.ConnectionRefused, Trips: trips, ClockOffset: n.ClockOffset, ClockWithin: n.ClockWithin,
	}, n)
	server.Restart()
	asidetest.Eventually(t, "it is back", func() bool { return c.Nodes()[0].Up })

	require.NoError(t, c.Close())
	require.Empty(t, c.Nodes())
	require.Empty(t, (*aside.Cache)(nil).Nodes())
	require.Empty(t, new(aside.Cache).Nodes())
	require.Empty(t, asidetest.NewCache(t, aside.Options{}).Nodes(), "in memory mode there is no server")
}

func TestNodesSayThatAServerDoesNotTrack(t *testing.T) {
	t.Parallel()
	c := asidetest.Connected(t, asidetest.Anonymously(asidetest.StartUntracked(t).Addr()))
	n := c.Nodes()[0]
	require.True(t, n.Up)
	require.False(t, n.Tracking)
	require.Equal(t, c.Health().Reason, n.Reason)
	require.NotEmpty(t, n.Reason)
}

func TestANodeInJSON(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	text, err := json.Marshal(aside.Node{Addr: "h:1", Up: true, Since: at, Tracking: true, Trips: map[string]uint64{"slow": 2}, ClockOffset: -1500 * time.Millisecond, ClockWithin: time.Millisecond})
	require.NoError(t, err)
	const shape = `{"addr":"h:1","up":%v,"since":"2026-01-02T03:04:05Z","tracking":%[1]v%s,"trips":%v,"clockOffsetSeconds":%v,"clockWithinSeconds":%v}`
	require.JSONEq(t, fmt.Sprintf(shape, true, "", `{"slow":2}`, -1.5, 0.001), string(text))
	text, err = json.Marshal(aside.Node{Addr: "h:1", Since: at, Reason: "why"})
	require.NoError(t, err)
	require.JSONEq(t, fmt.Sprintf(shape, false, `,"reason":"why"`, "null", 0, 0), string(text))
}
