package redisstore

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// nodes are lines of CLUSTER NODES.
func nodes(lines ...string) string { return strings.Join(lines, "\n") + "\n" }

func TestAViewIsWhatCLUSTERNODESSays(t *testing.T) {
	t.Parallel()
	at := func(addr string, epoch uint64, ranges ...[2]uint16) member {
		return member{addr: addr, epoch: epoch, ranges: ranges}
	}
	for name, c := range map[string]struct {
		text   string
		byName bool
		want   nodeView
	}{
		"primaries and replicas": {
			text: nodes(
				"aaa 10.0.0.1:6379@16379 myself,master - 0 0 7 connected 0-5460 5462 5464-5465",
				"bbb 10.0.0.2:6379@16379 slave aaa 0 1700000000000 7 connected",
				"ccc 10.0.0.3:6379@16379 master,fail - 1700000000000 1700000000000 2 disconnected 5463",
				"ddd 10.0.0.4:6379@16379 handshake - 1700000000000 0 0 connected",
			),
			want: nodeView{members: []member{
				at("10.0.0.1:6379", 7, [2]uint16{0, 5460}, [2]uint16{5462, 5462}, [2]uint16{5464, 5465}),
				at("10.0.0.2:6379", 7), at("10.0.0.3:6379", 2, [2]uint16{5463, 5463}), at("10.0.0.4:6379", 0),
			}},
		},
		"a node that was never told its address": {
			text: nodes("aaa :7000@17000 myself,master - 0 0 1 connected 0", "bbb 10.0.0.2:7001@17001 master - 0 0 2 connected 1"),
			want: nodeView{members: []member{at("asked:7000", 1, [2]uint16{0, 0}), at("10.0.0.2:7001", 2, [2]uint16{1, 1})}},
		},
		"one that nobody knows how to reach": {
			text: nodes("aaa 10.0.0.1:7000@17000 myself,master - 0 0 1 connected 0", "bbb :0@0 master,noaddr - 0 0 2 disconnected 1-9",
				"ccc :0@0,,tls-port=0,shard-id=f master,fail,noaddr - 0 0 2 disconnected 10", "ddd 10.0.0.4:7000@17000 slave aaa 0 0 1 connected"),
			want: nodeView{members: []member{at("10.0.0.1:7000", 1, [2]uint16{0, 0}), at("10.0.0.4:7000", 1)}},
		},
		"who is alone is found where it was asked": {
			text: nodes("aaa 10.0.0.1:7000@17000 myself,master - 0 0 1 connected 0-16383"),
			want: nodeView{members: []member{at("asked:6379", 1, [2]uint16{0, 16383})}},
		},
		"version 6 and IPv6": {
			text: nodes("aaa ::1:7000@17000 myself,master - 0 0 1 connected 0", "bbb 2001:db8::2:7001@17001 master - 0 0 2 connected 16383"),
			want: nodeView{members: []member{at("[::1]:7000", 1, [2]uint16{0, 0}), at("[2001:db8::2]:7001", 2, [2]uint16{16383, 16383})}},
		},
		"version 4": {
			text: nodes("aaa 10.0.0.1:7000 myself,master - 0 0 1 connected 0", "bbb 10.0.0.2:7000 slave aaa 0 0 1 connected"),
			want: nodeView{members: []member{at("10.0.0.1:7000", 1, [2]uint16{0, 0}), at("10.0.0.2:7000", 1)}},
		},
		"names, by addresses": {
			text: nodes("aaa 10.0.0.1:7000@17000,one.example myself,master - 0 0 1 connected 0",
				"bbb 10.0.0.2:7000@17000,,tls-port=0,shard-id=f master - 0 0 2 connected 1"),
			want: nodeView{members: []member{
				{addr: "10.0.0.1:7000", alias: "one.example:7000", epoch: 1, ranges: [][2]uint16{{0, 0}}}, at("10.0.0.2:7000", 2, [2]uint16{1, 1}),
			}},
		},
		"names, by name": {
			byName: true,
			text: nodes("aaa 10.0.0.1:7000@17000,one.example,tls-port=7000 myself,master - 0 0 1 connected 0",
				"bbb 10.0.0.2:7000@17000,,shard-id=f master - 0 0 2 connected 1"),
			want: nodeView{members: []member{
				{addr: "one.example:7000", alias: "10.0.0.1:7000", epoch: 1, ranges: [][2]uint16{{0, 0}}}, at("10.0.0.2:7000", 2, [2]uint16{1, 1}),
			}},
		},
		"by RESP3, and the first is the one that slots are on their way to": {
			text: "txt:" + nodes("bbb 10.0.0.2:7000@17000 master - 0 0 0 connected", "aaa 10.0.0.1:7000@17000 myself,master - 0 0 1 connected 0 [0->-bbb]"),
			want: nodeView{moving: true, migrating: []uint16{0}, targets: []string{"10.0.0.2:7000"}, members: []member{
				at("10.0.0.2:7000", 0), at("10.0.0.1:7000", 1, [2]uint16{0, 0}),
			}},
		},
		"slots on their way": {
			text: nodes("aaa 10.0.0.1:7000@17000 myself,master - 0 0 1 connected 0-9 [7->-bbb] [8->-ccc] [11-<-ddd]",
				"bbb 10.0.0.2:7000@17000 master - 0 0 0 connected", "ccc :0@0 master,noaddr - 0 0 0 disconnected",
				"ddd 10.0.0.4:7000@17000 master - 0 0 4 connected 10-11"),
			want: nodeView{moving: true, migrating: []uint16{7, 8}, targets: []string{"10.0.0.2:7000", "10.0.0.1:7000"}, members: []member{
				at("10.0.0.1:7000", 1, [2]uint16{0, 9}), at("10.0.0.2:7000", 0), at("10.0.0.4:7000", 4, [2]uint16{10, 11}),
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, err := parseNodeView(c.text, "asked:6379", c.byName)
			require.NoError(t, err)
			require.Equal(t, c.want, v)
		})
	}
}

func TestWhatIsNoViewIsRefused(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"aaa 10.0.0.1:7000@17000 master - 0 0 1",
		"aaa nowhere master - 0 0 1 connected",
		"aaa 10.0.0.1:7000@17000 master - 0 0 first connected",
		"aaa 10.0.0.1:7000@17000 master - 0 0 1 connected 0-16384",
		"aaa 10.0.0.1:7000@17000 master - 0 0 1 connected 9-8",
		"aaa 10.0.0.1:7000@17000 master - 0 0 1 connected -1",
		"aaa 10.0.0.1:7000@17000 master - 0 0 1 connected all",
	} {
		_, err := parseNodeView(nodes(line), "asked:6379", false)
		require.Error(t, err, line)
	}
}

// Of two nodes that claim a slot, one has taken it from the other in a later epoch, whoever tells of it, and in whatever order.
func TestALaterEpochHasTheSlot(t *testing.T) {
	t.Parallel()
	parse := func(lines ...string) nodeView {
		v, err := parseNodeView(nodes(lines...), "asked:6379", false)
		require.NoError(t, err)
		return v
	}
	replaced := parse( // by a node that it cannot reach
		"aaa 10.0.0.1:7000@17000 myself,master - 0 0 1 connected 0-9",
		"bbb 10.0.0.2:7000@17000 master,fail? - 0 0 2 connected 10-19",
		"ccc 10.0.0.3:7000@17000 slave,fail? aaa 0 0 1 connected",
	)
	others := parse(
		"bbb 10.0.0.2:7000@17000 myself,master - 0 0 2 connected 10-19",
		"ccc 10.0.0.3:7000@17000 master - 0 0 3 connected 0-9",
		"aaa 10.0.0.1:7000@17000 master,fail - 0 0 1 disconnected",
	)
	for _, views := range [][]nodeView{{replaced, others}, {others, replaced}} {
		claims, targets, moving := merge(views)
		require.False(t, moving)
		require.Empty(t, targets)
		require.Equal(t, slotClaim{"10.0.0.3:7000", 3}, claims[0])
		require.Equal(t, slotClaim{"10.0.0.3:7000", 3}, claims[9])
		require.Equal(t, slotClaim{"10.0.0.2:7000", 2}, claims[10])
		require.Equal(t, slotClaim{}, claims[20])
	}
	// A slot that has moved: its new owner knows first.
	before := parse("aaa 10.0.0.1:7000@17000 myself,master - 0 0 5 connected 0-9", "bbb 10.0.0.2:7000@17000 master - 0 0 2 connected 10-19")
	after := parse("bbb 10.0.0.2:7000@17000 myself,master - 0 0 6 connected 9-19", "aaa 10.0.0.1:7000@17000 master - 0 0 5 connected 0-8")
	claims, _, _ := merge([]nodeView{before, after})
	require.Equal(t, slotClaim{"10.0.0.1:7000", 5}, claims[8])
	require.Equal(t, slotClaim{"10.0.0.2:7000", 6}, claims[9])
}
