package coherence_test

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// These tests are about servers and connections that look sound, and do not tell of changes.

// staysOld reports for how long c goes on serving "old" as a hit: for 5 s at most, which is longer than it may.
func staysOld(t *testing.T, c *aside.Cache, key aside.Key) (stayed time.Duration) {
	t.Helper()
	began := time.Now()
	asidetest.Eventually(t, "something else is served", func() bool {
		r, err := aside.Lookup(t.Context(), c, key, asidetest.Value("new"))
		require.NoError(t, err)
		stayed = time.Since(began)
		return r.Value != "old" || r.Status != aside.StatusHit
	})
	return stayed
}

// requireSoonNew requires that c serves "old" for no longer than it takes to notice what no push has told.
func requireSoonNew(t *testing.T, c *aside.Cache, key aside.Key) {
	t.Helper()
	atMost := asidetest.Allowing(t)
	stayed := staysOld(t, c, key)
	require.Less(t, stayed, atMost(3500*time.Millisecond))
}

// tracked is a cache behind a proxy that has "old" in memory.
func tracked(t *testing.T) (server *redistest.Server, proxy *redistest.Proxy, c *aside.Cache, key aside.Key) {
	t.Helper()
	server = redistest.Start(t)
	proxy = redistest.StartProxy(t, server.Addr())
	c, key = asidetest.Connected(t, asidetest.Anonymously(proxy.Addr())), asidetest.Items.Key("a")
	asidetest.InMemory(t, c, key, asidetest.Value("old"))
	return server, proxy, c, key
}

// looksAt waits until two processes, each of which looks at the cluster every second, have both done so at a node.
func looksAt(t *testing.T, node *redistest.Server) {
	t.Helper()
	looked := node.Calls(t, "cluster|nodes")
	asidetest.Eventually(t, "everybody has looked at the cluster since", func() bool { return node.Calls(t, "cluster|nodes") >= looked+6 })
}

// tried waits until a connection has been tried n more times, and the one before the last of these is over.
func tried(t *testing.T, p *redistest.Proxy, n int) {
	t.Helper()
	before := touches(p)
	p.Await(t, "the connection is tried", func() bool { return touches(p) >= before+n })
}

// touches is how often connections through p were tried.
func touches(p *redistest.Proxy) (n int) {
	for _, args := range p.Log() {
		if isTouch(args) {
			n++
		}
	}
	return n
}

// isTouch reports whether a request writes a key that connections are tried with.
func isTouch(args []string) bool {
	return args[0] == "EVALSHA" && args[2] == "1" && strings.HasPrefix(args[3], "%watch:")
}

// isTouchRead reports whether a request reads such a key.
func isTouchRead(args []string) bool {
	return args[0] == "GET" && strings.HasPrefix(args[1], "%watch:")
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
	a, b := asidetest.Connected(t, asidetest.InClusterOf(cluster)), asidetest.Connected(t, asidetest.InClusterOf(cluster))
	key := asidetest.Items.Key("a")
	load := asidetest.NewHeld()
	got := asidetest.Background(t, b, key, load.Load("old"))
	<-load.Began
	from := cluster.NodeOf(key.String())
	to := cluster.Primaries()[0]
	if to == from {
		to = cluster.Primaries()[1]
	}
	m := cluster.BeginMigration(redistest.Slot(key.String()), to)
	looksAt(t, from)
	close(load.Release)
	require.Equal(t, "old", <-got)
	asidetest.Eventually(t, "memory answers, or nobody does", func() bool {
		v, err := aside.Get[string](t.Context(), b, key)
		return err == nil && v == "old" || b.Metrics().Labels["items"].RedisErrors > 0
	})
	receipt, err := a.Invalidate(t.Context(), key)
	require.NoError(t, err)
	require.NoError(t, receipt.Wait(t.Context()))
	atMost := asidetest.Allowing(t)
	stayed := staysOld(t, b, key)
	require.Less(t, stayed, atMost(3*time.Second))
	m.Finish()
}

// Likewise for those who join the load: it was overtaken, and nobody says so.
func TestALoadThatIsOvertakenWhileItsSlotMovesIsNotJoined(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	o := asidetest.InClusterOf(cluster)
	o.LeaseTTL = time.Minute
	a, b := asidetest.Connected(t, o), asidetest.Connected(t, o)
	key := asidetest.Items.Key("a")
	load := asidetest.NewHeld()
	got := asidetest.Background(t, b, key, load.Load("old"))
	<-load.Began
	from, to := cluster.NodeOf(key.String()), cluster.Primaries()[0]
	if to == from {
		to = cluster.Primaries()[1]
	}
	m := cluster.BeginMigration(redistest.Slot(key.String()), to)
	looksAt(t, from)
	receipt, err := a.Invalidate(t.Context(), key)
	require.NoError(t, err)
	require.NoError(t, receipt.Wait(t.Context()))
	looksAt(t, from)
	later := asidetest.Waiting(t, b, key, asidetest.Value("new"))
	close(load.Release)
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
			if asidetest.InCluster {
				t.Skip("a node of a cluster that becomes a replica says where its slots are")
			}
			server := redistest.Start(t)
			b := asidetest.Connected(t, asidetest.At(server.Addr()))
			key := asidetest.Items.Key("a")
			asidetest.InMemory(t, b, key, asidetest.Value("old"))
			server.MustDo(t, "CONFIG", "SET", "replica-serve-stale-data", serves)
			server.MustDo(t, "REPLICAOF", "127.0.0.1", "1")
			atMost := asidetest.Allowing(t)
			r := staysOld(t, b, key)
			strong, err := aside.Lookup(t.Context(), b, key, asidetest.Value("new"), aside.Strong())
			require.NoError(t, err)
			require.Less(t, r, atMost(3*time.Second))
			require.Equal(t, "new", strong.Value)
		})
	}
}

// A key that a connection is tried with may be removed by the server, or written by Receipt.Replicated, at any time: also after
// this process has counted the changes that it was told of, and before it writes the key itself.
func TestTheEvictionOfAKeyThatAConnectionIsTriedWithIsNoExchangeOfTheData(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]bool{"before it is written": false, "when it is written and read": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			proxy := redistest.StartProxy(t, server.Addr())
			b := asidetest.Connected(t, asidetest.At(proxy.Addr()))
			asidetest.InMemory(t, b, asidetest.Items.Key("a"), asidetest.Value("v"))
			tried(t, proxy, 1)
			gaps := b.Metrics().TrackingLost
			gate := proxy.HoldRequests(isTouch)
			gate.Wait(t)
			if again {
				read := proxy.HoldReplies(isTouchRead)
				gate.Release()
				read.Wait(t)
				gate = read
			}
			for _, name := range server.MustDo(t, "KEYS", "*%watch:*").([]any) {
				server.MustDo(t, "DEL", name.(string)) // as an eviction does
			}
			gate.Release()
			tried(t, proxy, 3)
			require.Equal(t, gaps, b.Metrics().TrackingLost)
			r, err := aside.Lookup(t.Context(), b, asidetest.Items.Key("a"), asidetest.Value("loaded again"))
			require.NoError(t, err)
			require.Equal(t, aside.TierMemory, r.Tier)
		})
	}
}

// The same, by Receipt.Replicated, which writes such a key by a connection of its own.
func TestReplicatedIsNoExchangeOfTheData(t *testing.T) {
	t.Parallel()
	if asidetest.InCluster {
		t.Skip("a replica in a cluster is made otherwise")
	}
	server, replica := redistest.Start(t), redistest.Start(t)
	replica.MustDo(t, "REPLICAOF", "127.0.0.1", strconv.Itoa(server.Port()))
	proxy := redistest.StartProxy(t, server.Addr())
	b := asidetest.Connected(t, asidetest.Anonymously(proxy.Addr()))
	asidetest.InMemory(t, b, asidetest.Items.Key("a"), asidetest.Value("v"))
	receipt, err := b.Invalidate(t.Context(), asidetest.Items.Key("another"))
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	require.NoError(t, receipt.Replicated(t.Context(), 1), "the replica is there")
	tried(t, proxy, 1)
	gaps := b.Metrics().TrackingLost
	gate := proxy.HoldRequests(isTouch)
	gate.Wait(t)
	require.NoError(t, receipt.Replicated(t.Context(), 1))
	gate.Release()
	tried(t, proxy, 3)
	require.Equal(t, gaps, b.Metrics().TrackingLost)
}

// With several connections, what is written to try one of them may be told by another one too: the one by which the script was
// sent that has read the key before it wrote it. That says nothing of the one that is tried.
func TestASilentConnectionIsFoundOutAmongSeveral(t *testing.T) {
	t.Parallel()
	if asidetest.InCluster {
		t.Skip("a cluster's nodes are dialed by their addresses")
	}
	server := redistest.Start(t)
	a := asidetest.Connected(t, asidetest.Anonymously(server.Addr()))
	o := asidetest.Anonymously(server.Addr())
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
	b := asidetest.Connected(t, o)
	key := asidetest.Items.Key("a")
	asidetest.Stored(t, a, key, "old")
	require.Equal(t, "old", asidetest.InMemory(t, b, key, asidetest.Value("not this one")))
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
	asidetest.Stored(t, a, key, "new")
	requireSoonNew(t, b, key)
}

// Other data are made ready in a database that is emptied first, and then put in place. What is told of that, as of any FLUSHDB,
// says nothing of the data that are in use.
func TestAnExchangeOfTheDatabasesIsNoticedRightAfterAFlushOfAnother(t *testing.T) {
	t.Parallel()
	if asidetest.InCluster {
		t.Skip("nodes of a cluster have one database")
	}
	asidetest.Repeatedly(t, "the databases are exchanged within one round", func() bool { return exchangedAfterAFlush(t) })
}

// exchangedAfterAFlush reports whether the machine was fast enough to do so between two rounds of trials.
func exchangedAfterAFlush(t *testing.T) bool {
	server, proxy, b, key := tracked(t)
	tried(t, proxy, 1)
	other := redistest.Raw(t, server.Addr())
	do := func(args ...string) {
		_, err := other.Do(args...)
		require.NoError(t, err)
	}
	do("SELECT", "1")
	gate := proxy.HoldRequests(isTouch)
	gate.Wait(t)
	read := proxy.HoldReplies(isTouchRead)
	gate.Release()
	read.Wait(t) // so what is told of the flush comes behind the reply
	gaps := b.Metrics().TrackingLost
	proxy.ResetCounts()
	do("FLUSHDB")
	read.Release()
	do("SET", "something", "else")
	asidetest.Eventually(t, "the flush is told", func() bool { return b.Metrics().TrackingLost > gaps })
	asidetest.InMemory(t, b, key, asidetest.Value("loaded again"))
	do("SWAPDB", "0", "1")
	if slices.ContainsFunc(proxy.Log(), func(args []string) bool { return isTouch(args) || isTouchRead(args) }) {
		return false
	}
	requireSoonNew(t, b, key)
	return true
}

// Between the write of a probe key and the read that is to find it, the databases are exchanged. The push about the write has come.
func TestAnExchangeOfTheDatabasesBehindAProbesWriteIsNoticed(t *testing.T) {
	t.Parallel()
	if asidetest.InCluster {
		t.Skip("nodes of a cluster have one database")
	}
	server, proxy, b, key := tracked(t)
	tried(t, proxy, 1)
	write := proxy.HoldRequests(isTouch)
	write.Wait(t)
	read := proxy.HoldRequests(isTouchRead)
	write.Release()
	read.Wait(t)
	server.MustDo(t, "SWAPDB", "0", "1")
	read.Release()
	requireSoonNew(t, b, key)
}

// A round has found the data the same, and has not written its key yet. What it writes then is in the other data.
//
//  1. B reads what it has written in the round before: the data is the same
//  2. the databases are exchanged
//  3. B writes, reads what it has written, and receives the push about it
func TestAnExchangeOfTheDatabasesBeforeAProbesWriteIsNoticed(t *testing.T) {
	t.Parallel()
	if asidetest.InCluster {
		t.Skip("nodes of a cluster have one database")
	}
	server, proxy, b, key := tracked(t)
	tried(t, proxy, 1)
	write := proxy.HoldRequests(isTouch)
	write.Wait(t)
	server.MustDo(t, "SWAPDB", "0", "1")
	write.Release()
	requireSoonNew(t, b, key)
}

// Rounds fail, and the connection stays. What was written before them is compared once they succeed again.
//
//  1. the server refuses the reads, or the writes, of keys that connections are tried with
//  2. the databases are exchanged
//  3. the server refuses nothing any more
func TestAnExchangeOfTheDatabasesWhileProbesFailIsNoticed(t *testing.T) {
	t.Parallel()
	if asidetest.InCluster {
		t.Skip("nodes of a cluster have one database")
	}
	for name, rights := range map[string][]string{"reads": nil, "writes": {"%R~%watch:*"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asidetest.Repeatedly(t, "the connection stays", func() bool {
				server, proxy, b, key := tracked(t)
				server.MayDeny()
				tried(t, proxy, 2)
				others := []string{"ACL", "SETUSER", "default", "resetkeys", "~items:*", "~{*", "~%all", "~%tags", "~%c:*", "~%mark:*", "~%probe:*"}
				server.MustDo(t, append(others, rights...)...)
				attempts := func() (n int) {
					for _, args := range proxy.Log() {
						if isTouch(args) || isTouchRead(args) {
							n++
						}
					}
					return n
				}
				before := attempts()
				proxy.Await(t, "rounds have failed", func() bool { return attempts() >= before+6 })
				server.MustDo(t, "SWAPDB", "0", "1")
				r, err := aside.Lookup(t.Context(), b, key, asidetest.Value("new"))
				require.NoError(t, err)
				if r.Value != "old" {
					return false // the connection has not stayed
				}
				server.MustDo(t, "ACL", "SETUSER", "default", "allkeys")
				requireSoonNew(t, b, key)
				return true
			})
		})
	}
}
