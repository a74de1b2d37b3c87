package aside_test

import (
	"context"
	"crypto/tls"
	"net"
	"strconv"
	"sync"
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
	looked := from.Calls(t, "cluster|nodes")
	eventually(t, "everybody has looked at the cluster since", func() bool { return from.Calls(t, "cluster|nodes") >= looked+6 })
	close(load.release)
	require.Equal(t, "old", <-got)
	eventually(t, "memory answers, or nobody does", func() bool {
		v, err := aside.Get[string](t.Context(), b, key)
		return err == nil && v == "old" || b.Metrics().Labels["items"].RedisErrors > 0
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
	for _, name := range server.MustDo(t, "KEYS", "*%watch:*").([]any) {
		server.MustDo(t, "DEL", name.(string)) // as an eviction does
	}
	gate.Release()
	require.Never(t, func() bool { return b.Metrics().Gaps != gaps }, 2*time.Second, 10*time.Millisecond)
	r, err := aside.Lookup(t.Context(), b, items.Key("a"), value("loaded again"))
	require.NoError(t, err)
	require.Equal(t, aside.TierMemory, r.Tier)
}

// The same, by Receipt.Replicated, which writes such a key by a connection of its own.
func TestReplicatedIsNoExchangeOfTheData(t *testing.T) {
	t.Parallel()
	if inCluster {
		t.Skip("a replica in a cluster is made otherwise")
	}
	server, replica := redistest.Start(t), redistest.Start(t)
	replica.MustDo(t, "REPLICAOF", "127.0.0.1", strconv.Itoa(server.Port()))
	proxy := redistest.StartProxy(t, server.Addr())
	b := connected(t, at(proxy.Addr()))
	inMemory(t, b, items.Key("a"), value("v"))
	receipt, err := b.Invalidate(t.Context(), items.Key("another"))
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	require.NoError(t, receipt.Replicated(t.Context(), 1)) // the replica is there
	time.Sleep(1500 * time.Millisecond)                    // it was tried
	gaps := b.Metrics().Gaps
	gate := proxy.HoldRequests(isTouch)
	gate.Wait(t)
	require.NoError(t, receipt.Replicated(t.Context(), 1))
	gate.Release()
	require.Never(t, func() bool { return b.Metrics().Gaps != gaps }, 2*time.Second, 10*time.Millisecond)
}

// isTouch reports whether a request writes a key that connections are tried with.
func isTouch(args []string) bool {
	return args[0] == "EVALSHA" && args[2] == "1" && len(args[3]) > 7 && args[3][:7] == "%watch:"
}

// With several connections, what is written to try one of them may be told by another one too: the one by which the script was
// sent that has read the key before it wrote it. That says nothing of the one that is tried.
func TestASilentConnectionIsFoundOutAmongSeveral(t *testing.T) {
	t.Parallel()
	if inCluster {
		t.Skip("a cluster's nodes are dialed by their addresses")
	}
	server := redistest.Start(t)
	a := connected(t, at(server.Addr()))
	o := at(server.Addr())
	o.Redis.PipelineMultiplex = 3
	var mu sync.Mutex
	var proxies []*redistest.Proxy
	o.Redis.DialCtxFn = func(ctx context.Context, _ string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		p := redistest.StartProxy(t, server.Addr())
		proxies = append(proxies, p)
		return d.DialContext(ctx, "tcp", p.Addr())
	}
	b := connected(t, o)
	key := items.Key("a")
	stored(t, a, key, "old")
	require.Equal(t, "old", inMemory(t, b, key, value("not this one")))
	mu.Lock()
	for _, p := range proxies {
		for _, args := range p.Log() {
			if isRead(args, key.String()) {
				defer p.DropPushes(nil)()
				t.Log("one of", len(proxies), "connections is silent")
				break
			}
		}
	}
	mu.Unlock()
	stored(t, a, key, "new")
	require.Less(t, staysOld(t, b, key, 20*time.Second), 3500*time.Millisecond)
}

// Other data are made ready in a database that is emptied first, and then put in place. What is told of that, as of any FLUSHDB,
// says nothing of the data that are in use.
func TestAnExchangeOfTheDatabasesIsNoticedRightAfterAFlushOfAnother(t *testing.T) {
	t.Parallel()
	if inCluster {
		t.Skip("nodes of a cluster have one database")
	}
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	b := connected(t, at(proxy.Addr()))
	key := items.Key("a")
	inMemory(t, b, key, value("old"))
	time.Sleep(1500 * time.Millisecond) // it was tried
	other := redistest.Raw(t, server.Addr())
	do := func(args ...string) {
		_, err := other.Do(args...)
		require.NoError(t, err)
	}
	do("SELECT", "1")
	gate := proxy.HoldRequests(isTouch)
	gate.Wait(t)
	gate.Release()
	time.Sleep(100 * time.Millisecond)
	began := time.Now()
	do("FLUSHDB")
	do("SET", "something", "else")
	time.Sleep(100 * time.Millisecond) // everybody is told
	inMemory(t, b, key, value("loaded again"))
	do("SWAPDB", "0", "1")
	require.Less(t, time.Since(began), 800*time.Millisecond, "within one round")
	require.Less(t, staysOld(t, b, key, 8*time.Second), 3500*time.Millisecond)
}
