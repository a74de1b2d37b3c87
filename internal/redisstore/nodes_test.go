package redisstore

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

func TestNodesHaveTheAddressInUse(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	dead := redistest.StartProxy(t, server.Addr())
	dead.Blackhole(true)
	for name, o := range map[string]Options{
		"the only one":           {Client: clientOf(server.Addr())},
		"one of several":         {Client: clients(dead.Addr(), server.Addr())},
		"that of Sentinels":      bySentinels(redistest.StartSentinel(t, watched, server, 1).Addr()),
		"the second of the list": {Client: clients(server.Addr(), dead.Addr())},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o.Format = format
			nodes := up(t, o).Nodes()
			require.Len(t, nodes, 1)
			require.Equal(t, server.Addr(), nodes[0].Addr)
		})
	}
}

func TestTheAddressThatSentinelsHaveNotNamedIsEmpty(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	nodes := open(t, bySentinels(redistest.StartSentinel(t, "another", server, 1).Addr())).Nodes()
	require.Len(t, nodes, 1)
	require.Empty(t, nodes[0].Addr)
	require.Zero(t, nodes[0].Within, "nothing is known of its clock")
}

func TestTheOffsetOfAClock(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := connected(t, server.Addr())
	l := only(s)
	l.clock.best.Store(nil)
	n := s.Nodes()[0]
	require.Zero(t, n.Offset)
	require.Zero(t, n.Within)
	for _, offset := range []time.Duration{time.Hour, -time.Hour} {
		l.clock.best.Store(nil)
		l.clock.note(time.Now(), time.Now().Add(offset).UnixMicro())
		n = s.Nodes()[0]
		require.Positive(t, n.Within)
		require.InDelta(t, offset, n.Offset, float64(n.Within+2*time.Microsecond))
	}
}
