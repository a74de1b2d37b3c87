package redisstore

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

// TestASlotIsWhatTheSpecificationSays has slots that are known: the specification gives the CRC of 123456789, and documentation the
// others.
func TestASlotIsWhatTheSpecificationSays(t *testing.T) {
	t.Parallel()
	for name, slot := range map[string]uint16{
		"123456789": 0x31C3 % slots, "": 0, "foo": 12182, "bar": 5061, "somekey": 11058,
		"{foo}!l": 12182, "{foo}{bar}": 12182, "a{foo}b": 12182, "{foo": slotOf("{foo"), "foo{{bar}}zap": slotOf("{bar"),
	} {
		require.Equal(t, slot, slotOf(name), name)
	}
	require.NotEqual(t, slotOf(""), slotOf("{}foo"), "nothing between the braces: the whole counts")
	require.NotEqual(t, slotOf("foo"), slotOf("{}{foo}"), "only the first pair counts")
	const letters = "ab{}%:*é"
	for range 2000 {
		var text strings.Builder
		for range rand.N(12) {
			r, _ := utf8.DecodeRuneInString(letters[rand.N(len(letters)-1):])
			text.WriteRune(r)
		}
		require.EqualValues(t, redistest.Slot(text.String()), slotOf(text.String()), text.String())
	}
}

func TestAKeyAndWhatBelongsToItAreInOneSlot(t *testing.T) {
	t.Parallel()
	for _, n := range []namespace{"", "shop%:"} {
		for _, key := range []string{"models:all:all", "sessions:ABC:list:50:0", "user:%7Bx%7D:profile"} {
			name := n.name(key)
			require.Equal(t, slotOf(name), slotOf(leaseKey(name)))
			require.Equal(t, slotOf(name), slotOf(chunkKey(name, "00ff", 7)))
		}
	}
}

func TestSomeSlots(t *testing.T) {
	t.Parallel()
	var a, b slotSet
	require.True(t, a.empty())
	for _, slot := range []uint16{0, 63, 64, 16383} {
		a.add(slot)
		require.True(t, a.has(slot))
	}
	require.False(t, a.empty())
	require.False(t, a.has(1))
	require.False(t, a.less(&b), "it has all of nothing")
	require.True(t, b.less(&a))
	b = a
	require.False(t, b.less(&a))
	a.add(9)
	require.True(t, b.less(&a))
	require.False(t, a.less(&b))
}

// A name of this process's at a node is in a slot of the node, and the same as long as the node has that slot.
func TestANameOfOnesOwnIsInASlotOfTheNode(t *testing.T) {
	t.Parallel()
	require.Equal(t, "%mark:x", ownName(nil, "%mark:x"))
	require.Equal(t, "%mark:x", ownName(new(slotSet), "%mark:x"), "who has none cannot be asked anyway")
	for _, slot := range []uint16{0, 1, 8191, 16383} {
		var one slotSet
		one.add(slot)
		name := ownName(&one, "%mark:x")
		require.Equal(t, slot, slotOf(name))
		one.add(slot ^ 1)
		require.Contains(t, []uint16{slot, slot ^ 1}, slotOf(ownName(&one, "%mark:x")))
	}
}

// testTable is a table of two nodes and one that is about to get a slot, made as it is from views.
func testTable(t *testing.T, lines ...string) (*topology, *table) {
	t.Helper()
	v, err := parseNodeView(nodes(lines...), "asked:6379", false)
	require.NoError(t, err)
	topo := &topology{newLink: func(owned *slotSet) *link {
		// It never connects.
		l := &link{}
		l.owned.Store(owned)
		return l
	}}
	topo.table.Store(&table{})
	topo.options = rueidis.ClientOption{}
	topo.stop, topo.done = func() {}, make(chan struct{})
	close(topo.done)
	topo.options.InitAddress = []string{"127.0.0.1:1"}
	topo.apply([]nodeView{v})
	t.Cleanup(topo.Close)
	return topo, topo.table.Load()
}

func TestATableSaysWhoHasAName(t *testing.T) {
	t.Parallel()
	_, table := testTable(t,
		"aaa 127.0.0.1:1@2,one myself,master - 0 0 1 connected 0-12181 [5061->-ccc]",
		"bbb 127.0.0.2:1@2 master - 0 0 2 connected 12182-16382",
		"ccc 127.0.0.3:1@2 master - 0 0 0 connected",
		"ddd 127.0.0.4:1@2 slave aaa 0 0 1 connected",
	)
	require.Len(t, table.nodes, 3)
	require.Nil(t, table.only())
	one, two, three := table.byAddr("127.0.0.1:1"), table.byAddr("127.0.0.2:1"), table.byAddr("127.0.0.3:1")
	require.Same(t, two, table.of("foo"))
	require.Same(t, one, table.of("bar"))
	require.False(t, one.hasNoSlots())
	require.True(t, three.hasNoSlots())
	require.Nil(t, table.byAddr("127.0.0.4:1"), "a replica")
	require.Same(t, one, table.redirectTarget("127.0.0.1:1"))
	require.Same(t, one, table.redirectTarget("one:1"), "nodes may point to each other by name")
	require.Same(t, three, table.redirectTarget("127.0.0.3:1"))
	require.Nil(t, table.redirectTarget("127.0.0.4:1"))
	require.False(t, table.complete(), "nobody has the last slot")
	require.True(t, table.moving)
}

func TestTablesThatSayTheSame(t *testing.T) {
	t.Parallel()
	of := func(lines ...string) *table { _, table := testTable(t, lines...); return table }
	const other = "bbb 127.0.0.2:1@2 master - 0 0 2 connected 100-16383"
	a := of("aaa 127.0.0.1:1@2 myself,master - 0 0 1 connected 0-99", other)
	require.True(t, a.complete())
	require.True(t, a.same(of(other, "aaa 127.0.0.1:1@2 myself,master - 0 0 9 connected 0-99")))
	for _, line := range []string{
		"aaa 127.0.0.1:1@2 myself,master - 0 0 1 connected 0-98",
		"aaa 127.0.0.3:1@2 myself,master - 0 0 1 connected 0-99",
		"aaa 127.0.0.1:1@2 myself,master - 0 0 1 connected 0-99 [5->-bbb]",
		"aaa 127.0.0.1:1@2 myself,master - 0 0 1 connected 0-99 [100-<-bbb]",
	} {
		b := of(line, other)
		require.False(t, a.same(b), line)
		require.False(t, b.same(a), line)
	}
}

// Hazard 8: a node that nobody has been at yet knows nothing of what it was told. It may have taken the place of one that was, and have
// forgotten some of that; or it has got slots key by key, with all that was done to them, and then nothing is to be done again.
func TestWhatANewNodeMayHaveForgotten(t *testing.T) {
	t.Parallel()
	const (
		a     = "aaa 127.0.0.1:1@2 myself,master - 0 0 1 connected 0-99"
		other = "bbb 127.0.0.2:1@2 master - 0 0 2 connected 100-16383"
	)
	for name, c := range map[string]struct {
		next   []string
		handed bool
	}{
		"has got slots of two": {handed: true, next: []string{
			"aaa 127.0.0.1:1@2 myself,master - 0 0 1 connected 0-49", "bbb 127.0.0.2:1@2 master - 0 0 2 connected 200-16383",
			"ccc 127.0.0.3:1@2 master - 0 0 3 connected 50-199",
		}},
		"has taken the place of one": {next: []string{
			"aaa 127.0.0.1:1@2 myself,slave ccc 0 0 3 connected", other, "ccc 127.0.0.3:1@2 master - 0 0 3 connected 0-99",
		}},
		"has taken the place of one that believes it is about to get a slot": {next: []string{
			"aaa 127.0.0.1:1@2 myself,master - 0 0 1 connected 0-99 [100-<-bbb]", other, "ccc 127.0.0.3:1@2 master - 0 0 3 connected 0-99",
		}},
		"has got a slot, and another one has gone": {next: []string{
			"aaa 127.0.0.1:1@2 myself,master - 0 0 1 connected 0-49", "ccc 127.0.0.3:1@2 master - 0 0 3 connected 50-99",
			"ddd 127.0.0.4:1@2 master - 0 0 4 connected 100-16383",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topo, before := testTable(t, a, other)
			for _, l := range before.nodes {
				require.False(t, l.handedOver.Load(), "the first ones of all")
			}
			v, err := parseNodeView(nodes(c.next...), "asked:6379", false)
			require.NoError(t, err)
			topo.apply([]nodeView{v})
			l := topo.table.Load().byAddr("127.0.0.3:1")
			require.NotNil(t, l)
			require.Equal(t, c.handed, l.handedOver.Load())
		})
	}
}
