package aside_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// staysOld reports for how long, of at most limit, c goes on serving "old" as a hit.
func staysOld(t *testing.T, c *aside.Cache, key aside.Key, limit time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	for time.Since(began) < limit {
		r, err := aside.Lookup(t.Context(), c, key, value("new"))
		require.NoError(t, err)
		if r.Value != "old" || r.Status != aside.StatusHit {
			t.Logf("after %v: %q, %v from %v: %s", time.Since(began), r.Value, r.Status, r.Tier, r.Reason)
			return time.Since(began)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return limit
}

// While a slot moves, what is missing at the node that is giving it away is made, and changed, at the other one. The node that
// was read tells of none of that.
//
//  1. B reads K at the node that has its slot: it is missing. B takes the lease and loads
//  2. the slot begins to move; K and its lease are not at one node any more
//  3. B's fill is answered TRYAGAIN, so B keeps what it has loaded: the node tells of changes of K
//  4. A invalidates K, and that is confirmed
//  5. the slot goes on moving, for minutes perhaps
func TestWhatIsKeptWhileASlotMovesIsHeardOf(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	a, b := connected(t, inClusterOf(cluster)), connected(t, inClusterOf(cluster))
	key := items.Key("a")
	load := newHeld()
	got := background(t, b, key, load.load("old"))
	<-load.began
	from := cluster.NodeOf(key.String())
	to := cluster.Primaries()[0]
	if to == from {
		to = cluster.Primaries()[1]
	}
	m := cluster.BeginMigration(redistest.Slot(key.String()), to)
	time.Sleep(2 * time.Second) // everybody has looked at the cluster since
	close(load.release)
	require.Equal(t, "old", <-got)
	eventually(t, "memory answers, or nobody does", func() bool {
		v, err := aside.Get[string](t.Context(), b, key)
		return err == nil && v == "old" || b.Metrics().RedisErrors > 0
	})
	receipt, err := a.Invalidate(t.Context(), key)
	require.NoError(t, err)
	require.NoError(t, receipt.Wait(t.Context()))
	require.Less(t, staysOld(t, b, key, 8*time.Second), 3*time.Second)
	m.Finish()
}

// Likewise for those who join the load: it was overtaken, and nobody says so.
func TestALoadThatIsOvertakenWhileItsSlotMovesIsNotJoined(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	o := inClusterOf(cluster)
	o.LeaseTTL = time.Minute
	a, b := connected(t, o), connected(t, o)
	key := items.Key("a")
	load := newHeld()
	got := background(t, b, key, load.load("old"))
	<-load.began
	to := cluster.Primaries()[0]
	if to == cluster.NodeOf(key.String()) {
		to = cluster.Primaries()[1]
	}
	m := cluster.BeginMigration(redistest.Slot(key.String()), to)
	time.Sleep(2 * time.Second) // everybody has looked at the cluster since
	receipt, err := a.Invalidate(t.Context(), key)
	require.NoError(t, err)
	require.NoError(t, receipt.Wait(t.Context()))
	time.Sleep(3 * time.Second)
	later := waiting(t, b, key, value("new"))
	time.Sleep(100 * time.Millisecond)
	close(load.release)
	require.Equal(t, "old", <-got)
	require.Equal(t, "new", <-later)
	m.Finish()
}

// A server that has become a replica, and is cut off from its primary, is told of nothing, and so tells of nothing. It says itself
// that it is a replica, each time that it is tried.
//
//  1. B has K in memory, read from a server
//  2. the server is made a replica of another one, which cannot be reached (REPLICAOF, as an operator or an orchestrator does it;
//     connections stay)
//  3. everything is changed and invalidated at the new primary
//  4. B serves the old value as a hit, for as long as it asks for nothing that has to be stored
func TestAServerThatHasBecomeAReplicaVouchesForNothing(t *testing.T) {
	t.Parallel()
	for name, serves := range map[string]string{"that answers READONLY": "yes", "that answers MASTERDOWN": "no"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if inCluster {
				t.Skip("a node of a cluster that becomes a replica says where its slots are")
			}
			server := redistest.Start(t)
			b := connected(t, at(server.Addr()))
			key := items.Key("a")
			inMemory(t, b, key, value("old"))
			server.MustDo(t, "CONFIG", "SET", "replica-serve-stale-data", serves)
			server.MustDo(t, "REPLICAOF", "127.0.0.1", "1")
			r := staysOld(t, b, key, 8*time.Second)
			strong, err := aside.Lookup(t.Context(), b, key, value("new"), aside.Strong())
			require.NoError(t, err)
			t.Logf("Strong: %q, %v from %v: %s; health %v", strong.Value, strong.Status, strong.Tier, strong.Reason, b.Health())
			require.Less(t, r, 3*time.Second)
			require.Equal(t, "new", strong.Value)
		})
	}
}

// A key that a connection is tried with may be removed by the server, or written by Receipt.Replicated, at any time: also after
// this process has counted the changes that it was told of, and before it writes the key itself.
func TestTheEvictionOfAKeyThatAConnectionIsTriedWithIsNoExchangeOfTheData(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	b := connected(t, at(proxy.Addr()))
	inMemory(t, b, items.Key("a"), value("v"))
	time.Sleep(1500 * time.Millisecond) // it was tried
	gaps := b.Metrics().Gaps
	gate := proxy.HoldRequests(isTouch)
	gate.Wait(t)
	for _, name := range server.MustDo(t, "KEYS", "*%probe:*").([]any) {
		server.MustDo(t, "DEL", name.(string)) // as an eviction does
	}
	gate.Release()
	require.Never(t, func() bool { return b.Metrics().Gaps != gaps }, 2*time.Second, 10*time.Millisecond)
	r, err := aside.Lookup(t.Context(), b, items.Key("a"), value("loaded again"))
	require.NoError(t, err)
	require.Equal(t, aside.TierMemory, r.Tier)
}

// isTouch reports whether a request writes a key that connections are tried with.
func isTouch(args []string) bool {
	return args[0] == "EVALSHA" && args[2] == "1" && len(args[3]) > 7 && args[3][:7] == "%probe:"
}
