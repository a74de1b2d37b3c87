package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

// outside are the options of a client for which the addresses that nodes have among themselves lead nowhere.
func outside(cluster *redistest.Cluster) Options {
	var addrs []string
	for _, addr := range cluster.Addrs() {
		addrs = append(addrs, strings.Replace(addr, "127.0.0.1", "localhost", 1))
	}
	o := inCluster(addrs...)
	o.Client.DialCtxFn = func(ctx context.Context, dst string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
		if strings.HasPrefix(dst, "127.0.0.1:") {
			return nil, errors.New("no route to " + dst)
		}
		return d.DialContext(ctx, "tcp4", dst)
	}
	return o
}

func TestNodesAreReachedByTheAddressesThatTheyTellClients(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"names":       {"--cluster-preferred-endpoint-type", "hostname", "--cluster-announce-hostname", "localhost"},
		"no endpoint": {"--cluster-preferred-endpoint-type", "unknown-endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := redistest.StartCluster(t, args...)
			s := up(t, outside(cluster))
			require.Len(t, s.table.Load().nodes, 3)
			all := func() bool {
				for _, key := range []string{"cat:a", "cat:b", "cat:c", "cat:d"} {
					if s.Get(t.Context(), Get{Key: key})[0].Err != nil {
						return false
					}
				}
				return true
			}
			require.True(t, all())
			// A slot moves to another node, which is pointed to as clients are to call it.
			key := "cat:a"
			from := cluster.NodeOf(key)
			to := cluster.Primaries()[0]
			if to == from {
				to = cluster.Primaries()[1]
			}
			cluster.MigrateSlot(redistest.Slot(key), to)
			require.NoError(t, s.Get(t.Context(), Get{Key: key})[0].Err)
			// And a replica takes over.
			cluster.Takeover(cluster.ReplicaOf(to))
			require.Eventually(t, func() bool { return all() && s.State().Up }, bound, 10*time.Millisecond)
		})
	}
}

func TestAViewWithTheAddressesThatNodesTellClients(t *testing.T) {
	t.Parallel()
	const text = "aaa 10.0.0.1:7000@17000,one.example myself,master - 0 0 1 connected 0 [0->-ccc]\n" +
		"bbb 10.0.0.2:7001@17001 master - 0 0 2 connected 1\n" +
		"ccc 10.0.0.3:7002@17002,three.example master - 0 0 0 connected\n"
	for name, c := range map[string]struct {
		wanted endpoints
		byName bool
		addrs  []string
		others [][]string
		target string
	}{
		"as they are": {
			addrs: []string{"10.0.0.1:7000", "10.0.0.2:7001", "10.0.0.3:7002"}, others: [][]string{nil, nil, nil}, target: "10.0.0.3:7002",
		},
		"by names, where they have one": {
			wanted: endpoints{of: map[string]string{"aaa": "one.example:7000"}, named: true},
			addrs:  []string{"one.example:7000", "10.0.0.2:7001", "three.example:7002"},
			others: [][]string{{"10.0.0.1:7000"}, nil, {"10.0.0.3:7002"}}, target: "three.example:7002",
		},
		"where it was asked": {
			wanted: endpoints{of: map[string]string{"aaa": "asked:7000", "bbb": "asked:7001"}, asked: true},
			addrs:  []string{"asked:7000", "asked:7001", "asked:7002"},
			others: [][]string{{":7000", "10.0.0.1:7000"}, {":7001", "10.0.0.2:7001"}, {":7002", "10.0.0.3:7002"}}, target: "asked:7002",
		},
		"by names for the sake of certificates": {
			wanted: endpoints{of: map[string]string{"aaa": "10.0.0.9:7000", "bbb": "10.0.0.2:7001"}}, byName: true,
			addrs: []string{"one.example:7000", "10.0.0.2:7001", "three.example:7002"}, others: [][]string{nil, nil, nil}, target: "three.example:7002",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, err := parseNodeViewWith(text, "asked:6379", c.byName, c.wanted)
			require.NoError(t, err)
			for i, m := range v.members {
				require.Equal(t, c.addrs[i], m.addr)
				require.Equal(t, c.others[i], m.others)
			}
			require.Equal(t, []string{c.target}, v.targets)
			plain, err := parseNodeView(text, "asked:6379", false)
			require.NoError(t, err)
			require.Equal(t, len(c.wanted.of) > 0, c.wanted.differ(plain))
		})
	}
}

// Two addresses that are no cluster lead to one server. Each is tried again whenever the connection is lost.
func TestEveryAddressOfAServerIsTriedAgain(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	one, other := redistest.StartProxy(t, server.Addr()), redistest.StartProxy(t, server.Addr())
	s := up(t, inCluster(one.Addr(), other.Addr()))
	for range 2 {
		require.Positive(t, one.Connections())
		one.Refuse(true)
		one.CloseConnections()
		require.Eventually(t, func() bool { return s.State().Up && other.Connections() > 0 }, bound, time.Millisecond)
		require.NoError(t, s.Get(t.Context(), Get{Key: key})[0].Err)
		one.Refuse(false)
		other.Refuse(true)
		other.CloseConnections()
		require.Eventually(t, func() bool { return s.State().Up && one.Connections() > 0 }, bound, time.Millisecond)
		other.Refuse(false)
	}
}
