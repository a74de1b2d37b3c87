package redisstore

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redistest"
)

// viaProxies is options for a cluster each of whose primaries has a proxy before it, where a test can hold things up for longer than
// a connection may be silent as a rule.
func viaProxies(cluster *redistest.Cluster) Options {
	for _, node := range cluster.Primaries() {
		cluster.Proxy(node)
	}
	o := inCluster(cluster.Addrs()...)
	o.Client.ConnWriteTimeout = bound
	o.Client.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
		return d.DialContext(ctx, "tcp", cluster.Via(addr))
	}
	return o
}

// nameAt is a name in a slot of the node with a number in the table, a different one for each text.
func nameAt(s *Store, n int, text string) string {
	t := s.table.Load()
	for i := 0; ; i++ {
		if name := text + strconv.Itoa(i); t.of(name) == t.nodes[n] {
			return name
		}
	}
}

// at is the node with a number in the table.
func at(t *testing.T, cluster *redistest.Cluster, s *Store, n int) *redistest.Server {
	t.Helper()
	i := slices.IndexFunc(cluster.Nodes(), func(node *redistest.Server) bool { return node.Addr() == s.table.Load().addrs[n] })
	require.NotEqual(t, -1, i)
	return cluster.Nodes()[i]
}

func newMemory(t *testing.T) *near.Cache {
	clock := near.NewClock()
	t.Cleanup(clock.Stop)
	memory := near.New(near.Options{MaxEntries: 100, MaxBytes: 1 << 20}, clock)
	t.Cleanup(memory.Close)
	return memory
}

// look is a tracked read of key.
func lookAt(t *testing.T, s *Store, memory *near.Cache, key string) Read {
	f := memory.Fence(key, nil)
	t.Cleanup(f.End)
	return s.Get(context.Background(), Get{Key: key, Fence: f})[0]
}

// Hazards 6 and 7: what a node says of a key gets no validity where it has lost the key by the time that the reply is there.
// Its earlier validities end with that.
func TestAReadThatIsUnderWayWhenItsKeyMovesIsNotVouchedFor(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	s, memory := up(t, viaProxies(cluster)), newMemory(t)
	key := nameAt(s, 0, "cat:moves")
	from, to := at(t, cluster, s, 0), at(t, cluster, s, 1)
	from.MustDo(t, "SET", key, "value")
	before := lookAt(t, s, memory, key)
	require.NoError(t, before.Err)
	require.True(t, before.Validity.Valid())
	held := cluster.Proxy(from).HoldReplies(func(args []string) bool { return args[0] == "GETRANGE" && args[1] == key })
	reads := make(chan Read, 1)
	go func() { reads <- lookAt(t, s, memory, key) }()
	held.Wait(t)
	cluster.MigrateSlot(redistest.Slot(key), to)
	require.Eventually(t, func() bool { return s.table.Load().of(key) == s.table.Load().byAddr(to.Addr()) }, bound, time.Millisecond)
	require.Eventually(t, func() bool { return !before.Validity.Valid() }, bound, time.Millisecond)
	held.Release()
	r := <-reads
	require.NoError(t, r.Err)
	require.Equal(t, "value", string(r.Value))
	require.Nil(t, r.Validity)
	r = lookAt(t, s, memory, key)
	require.NoError(t, r.Err)
	require.True(t, r.Validity.Valid(), "its new node tracks it")
}

// Hazard 7: a primary that is cut off from the others may have been replaced. Its connections are sound, and nobody else can be asked.
func TestAPrimaryThatServesNobodyVouchesForNothing(t *testing.T) {
	t.Parallel()
	for _, callers := range []bool{false, true} {
		t.Run("callers come: "+strconv.FormatBool(callers), func(t *testing.T) {
			t.Parallel()
			cluster := redistest.StartCluster(t)
			s, memory := up(t, inCluster(cluster.Addrs()...)), newMemory(t)
			key := nameAt(s, 0, "cat:cut-off")
			own := at(t, cluster, s, 0)
			own.MustDo(t, "SET", key, "value")
			r := lookAt(t, s, memory, key)
			require.NoError(t, r.Err)
			for _, node := range cluster.Nodes() {
				if node != own {
					node.Pause()
				}
			}
			require.Eventually(t, func() bool {
				if callers { // who may find it out before the heartbeat does
					s.Get(context.Background(), Get{Key: key})
				}
				return !r.Validity.Valid()
			}, bound, time.Millisecond)
			l := s.table.Load().byAddr(own.Addr())
			require.False(t, l.latest.Load().broken.Load(), "it is not the connection that has ended it")
			for _, node := range cluster.Nodes() {
				if node != own {
					node.Resume()
				}
			}
		})
	}
}

// Hazard 9: an invalidator changes the sequence of all tags before any of them, wherever they are.
func TestTheFirstTagIsBumpedBeforeTheOthersOfOtherNodes(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	s := up(t, inCluster(cluster.Addrs()...))
	first, other := nameAt(s, 0, "%t:a"), nameAt(s, 1, "%t:b")
	s.table.Load().nodes[0].session.Store(nil) // the first one fails, and with it all
	for i, g := range s.Bump(t.Context(), Tag{Key: first}, Tag{Key: other}) {
		require.ErrorIs(t, g.Err, ErrUnavailable, i)
	}
	require.EqualValues(t, 0, at(t, cluster, s, 1).MustDo(t, "EXISTS", other))
}

// Hazard 9: who takes a tag that a load has chosen looks at the sequence after it.
func TestTheLastTagIsReadAfterTheOthersOfOtherNodes(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	o := viaProxies(cluster)
	o.OpTimeout = bound
	s := up(t, o)
	first, last := nameAt(s, 0, "%t:a"), nameAt(s, 1, "%tags")
	at(t, cluster, s, 1).MustDo(t, "SET", last, "1")
	held := cluster.Proxy(at(t, cluster, s, 0)).HoldReplies(func(args []string) bool { return args[0] == "EVALSHA" })
	done := make(chan []Generation, 1)
	go func() { done <- s.Ensure(t.Context(), Tag{Key: first}, Tag{Key: last}) }()
	held.Wait(t)
	at(t, cluster, s, 1).MustDo(t, "SET", last, "2")
	held.Release()
	gens := <-done
	require.NoError(t, gens[0].Err)
	require.NoError(t, gens[1].Err)
	require.EqualValues(t, 2, gens[1].Value)
}

// While a slot moves, lease and value are removed by two commands: the lease's first, or a fill could come in between.
func TestALeaseIsRemovedBeforeItsValueWhereTheyAreApart(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	o := viaProxies(cluster)
	o.OpTimeout = bound
	s := up(t, o)
	key := nameAt(s, 0, "cat:apart")
	from, to := at(t, cluster, s, 0), at(t, cluster, s, 1)
	from.MustDo(t, "SET", key, entry(1, 0, 0, "value"))
	from.MustDo(t, "SET", leaseKey(key), "nonce")
	m := cluster.BeginMigration(redistest.Slot(key), to)
	m.Move(key) // its lease stays
	held := cluster.Proxy(from).HoldRequests(func(args []string) bool { return args[0] == "UNLINK" && args[1] == key })
	type removed struct {
		n    int64
		errs []error
	}
	done := make(chan removed, 1)
	go func() {
		n, errs := s.Remove(context.Background(), key)
		done <- removed{n, errs}
	}()
	held.Wait(t)
	_, err := from.Do("GET", leaseKey(key))
	require.ErrorContains(t, err, "ASK", "it is there no more")
	held.Release()
	require.Equal(t, removed{n: 1}, <-done)
	m.Finish()
	require.EqualValues(t, 0, to.MustDo(t, "EXISTS", key))
	require.EqualValues(t, 0, to.MustDo(t, "EXISTS", leaseKey(key)))
}

// Hazard 2, of a cluster: a key can go from a node that has not been gone through yet to one that has.
func TestAKeyThatMovesWhileAllAreGoneThroughIsSeen(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	s := up(t, inCluster(cluster.Addrs()...))
	key, between := nameAt(s, 2, "cat:moves"), nameAt(s, 1, "cat:stays")
	from, to := at(t, cluster, s, 2), at(t, cluster, s, 0)
	from.MustDo(t, "SET", key, "value")
	at(t, cluster, s, 1).MustDo(t, "SET", between, "value")
	m := cluster.BeginMigration(redistest.Slot(key), to)
	var seen []string
	require.NoError(t, s.Scan(t.Context(), func(keys []string) error {
		seen = append(seen, keys...)
		if slices.Contains(keys, between) {
			m.Move(key) // which has been gone through, from the one that is still to come
		}
		return nil
	}, "cat:*"))
	require.Contains(t, seen, key)
	m.Finish()
}

func TestWhatIsGoneThroughWhileASlotChangesHandsIsNotAll(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	s := up(t, inCluster(cluster.Addrs()...))
	key, between := nameAt(s, 2, "cat:moves"), nameAt(s, 1, "cat:stays")
	at(t, cluster, s, 2).MustDo(t, "SET", key, "value")
	at(t, cluster, s, 1).MustDo(t, "SET", between, "value")
	to := at(t, cluster, s, 0)
	moved := false
	scan := func() error {
		return s.Scan(t.Context(), func(keys []string) error {
			if slices.Contains(keys, between) && !moved {
				moved = true
				cluster.MigrateSlot(redistest.Slot(key), to)
			}
			return nil
		}, "cat:*")
	}
	require.ErrorIs(t, scan(), ErrMoved)
	require.Eventually(t, func() bool { return scan() == nil }, bound, time.Millisecond)
}

// Nodes that are replaced by others take nothing with them, and leave nothing behind.
func TestANodeThatIsReplacedLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	s, memory := up(t, inCluster(cluster.Addrs()...)), newMemory(t)
	for range 2 {
		key := nameAt(s, 0, "cat:taken-over")
		old := s.table.Load().of(key)
		own := at(t, cluster, s, 0)
		cluster.WaitReplicated()
		r := lookAt(t, s, memory, key)
		require.NoError(t, r.Err)
		require.True(t, r.Validity.Valid())
		cluster.Takeover(cluster.ReplicaOf(own))
		require.Eventually(t, func() bool {
			now := s.table.Load().of(key)
			return now != nil && now != old && now.Up()
		}, bound, time.Millisecond)
		require.False(t, r.Validity.Valid())
		select {
		case <-old.done:
		case <-time.After(bound):
			t.Fatal("the old link is not closed")
		}
		cluster.WaitOK()
		require.Len(t, s.table.Load().nodes, 3)
	}
}
