package cluster_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// spread are keys in slots of all nodes.
func spread(n int) []aside.Key {
	keys := make([]aside.Key, n)
	for i := range keys {
		keys[i] = asidetest.Items.Key(i)
	}
	return keys
}

func TestAClusterIsCoherentAsOneServerIs(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	a, b := asidetest.Connected(t, asidetest.InClusterOf(cluster)), asidetest.Connected(t, asidetest.InClusterOf(cluster))
	require.True(t, a.Health().Tracking)
	ctx, keys := t.Context(), spread(30)
	nodes := make(map[*redistest.Server]bool)
	for _, key := range keys {
		nodes[cluster.NodeOf(key.String())] = true
	}
	require.Len(t, nodes, 3)
	invalidations := map[string]func() (aside.Receipt, error){
		"keys":     func() (aside.Receipt, error) { return a.Invalidate(ctx, keys...) },
		"tag":      func() (aside.Receipt, error) { return a.InvalidateTags(ctx, "x") },
		"late tag": func() (aside.Receipt, error) { return a.InvalidateTags(ctx, "late") },
		"category": func() (aside.Receipt, error) { return a.InvalidateCategory(ctx, "items") },
		"pattern":  func() (aside.Receipt, error) { return a.InvalidatePattern(ctx, asidetest.Items.Match(aside.Wildcard)) },
		"all":      func() (aside.Receipt, error) { return a.InvalidateAll(ctx) },
	}
	for what, invalidate := range invalidations {
		old, next := "before "+what, "after "+what
		for _, key := range keys {
			load := func(ctx context.Context) (string, error) {
				aside.CurrentLoad(ctx).Tag("late")
				return old, nil
			}
			require.Equal(t, old, asidetest.InMemory(t, a, key, load, aside.WithTags("x")), what)
			require.Equal(t, old, asidetest.InMemory(t, b, key, load, aside.WithTags("x")), what)
		}
		receipt, err := invalidate()
		require.NoError(t, err)
		require.True(t, receipt.Confirmed, what)
		for _, key := range keys {
			v, err := aside.GetOrLoad(ctx, a, key, asidetest.Value(next), aside.WithTags("x"))
			require.NoError(t, err)
			require.Equal(t, next, v, what)
			asidetest.Eventually(t, "the other one hears of it: "+what, func() bool {
				v, err := aside.GetOrLoad(ctx, b, key, asidetest.Value(next), aside.WithTags("x"))
				require.NoError(t, err)
				return v == next
			})
		}
		if what != "keys" && what != "pattern" { // what has been loaded since is in their place
			removed, err := receipt.WaitCleanup(ctx)
			require.NoError(t, err)
			require.LessOrEqual(t, removed, int64(len(keys)))
		}
		_, err = a.Invalidate(ctx, keys...)
		require.NoError(t, err)
	}
	for _, key := range keys {
		asidetest.Stored(t, a, key, "v")
	}
	require.Len(t, asidetest.Infos(t, b, asidetest.Items.Match(aside.Wildcard)), len(keys))
	receipt, err := b.InvalidateCategory(ctx, "items")
	require.NoError(t, err)
	removed, err := receipt.WaitCleanup(ctx)
	require.NoError(t, err)
	require.EqualValues(t, len(keys), removed)
	require.Empty(t, asidetest.Infos(t, b, asidetest.Items.Match(aside.Wildcard)))
	require.Zero(t, a.Metrics().RedisErrors+b.Metrics().RedisErrors)
}

func TestALargeValueIsStoredInChunksInACluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	a, b := asidetest.Connected(t, asidetest.InClusterOf(cluster)), asidetest.Connected(t, asidetest.InClusterOf(cluster))
	want := asidetest.Large(10 * asidetest.Chunk)
	for _, key := range spread(6) {
		asidetest.InMemory(t, a, key, func(context.Context) ([]byte, error) { return want, nil })
		r, err := aside.Lookup(t.Context(), b, key, func(context.Context) ([]byte, error) { panic("it is in Redis") })
		require.NoError(t, err)
		require.Equal(t, aside.TierRedis, r.Tier)
		require.True(t, bytes.Equal(want, r.Value))
	}
}

func TestABatchReadsAClusterInOneRoundTripPerNode(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	other := asidetest.Connected(t, asidetest.InClusterOf(cluster))
	var ids []int
	for id := range 100 {
		ids = append(ids, id)
		asidetest.Stored(t, other, asidetest.ItemKey(id), id*id)
	}
	proxies := make([]*redistest.Proxy, 0, 3)
	for _, node := range cluster.Primaries() {
		proxies = append(proxies, cluster.Proxy(node))
	}
	o := asidetest.InClusterOf(cluster)
	o.Redis.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
		return d.DialContext(ctx, "tcp", cluster.Via(addr))
	}
	reads := func(p *redistest.Proxy) (n int) {
		for _, command := range p.Log() {
			if command[0] == "GETRANGE" && strings.HasPrefix(command[1], "items:") {
				n++
			}
		}
		return n
	}
	// A heartbeat may come in between: then it is tried again, with a process that has just begun.
	asidetest.Eventually(t, "one round trip for each node", func() bool {
		fresh := asidetest.Connected(t, o)
		defer fresh.Close()
		for _, p := range proxies {
			p.ResetCounts()
		}
		got, err := aside.GetOrLoadMany(t.Context(), fresh, ids, asidetest.ItemKey, func(context.Context, []int) (map[int]int, error) {
			panic("all of it is in Redis")
		})
		require.NoError(t, err)
		require.Len(t, got, 100)
		total := 0
		for _, p := range proxies {
			if p.Requests() != 1 {
				return false
			}
			total += reads(p)
		}
		return total >= 100
	})
}

// served waits until a cache reads and stores a key in Redis.
func served(t *testing.T, c *aside.Cache, key aside.Key) {
	t.Helper()
	asidetest.Eventually(t, "the key is read in Redis", func() bool {
		_, err := c.Invalidate(t.Context(), key)
		require.NoError(t, err)
		r, err := aside.Lookup(t.Context(), c, key, asidetest.Value("v"))
		require.NoError(t, err)
		return r.Status == aside.StatusMiss
	})
}

func TestAnInvalidationIsCarriedOutWhileItsSlotMoves(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	a, b := asidetest.Connected(t, asidetest.InClusterOf(cluster)), asidetest.Connected(t, asidetest.InClusterOf(cluster))
	ctx := t.Context()
	for _, where := range []string{"before it has moved", "after it has moved"} {
		for how, invalidate := range map[string]func(key aside.Key) (aside.Receipt, error){
			"key": func(key aside.Key) (aside.Receipt, error) { return a.Invalidate(ctx, key) },
			"pattern": func(aside.Key) (aside.Receipt, error) {
				return a.InvalidatePattern(ctx, asidetest.Items.Match("moves", aside.Wildcard))
			},
			"one": func(aside.Key) (aside.Receipt, error) {
				return a.InvalidatePattern(ctx, asidetest.Items.Match("moves", where))
			},
		} {
			key := asidetest.Items.Key("moves", where)
			asidetest.InMemory(t, a, key, asidetest.Value("old"))
			asidetest.InMemory(t, b, key, asidetest.Value("never"))
			primaries := cluster.Primaries()
			at := slices.Index(primaries, cluster.NodeOf(key.String()))
			m := cluster.BeginMigration(redistest.Slot(key.String()), primaries[(at+1)%len(primaries)])
			if where == "after it has moved" {
				m.Move(key.String())
			}
			receipt, err := invalidate(key)
			require.NoError(t, err)
			// A connection that is lost meanwhile has it sent again.
			confirmed, cancel := context.WithTimeout(ctx, asidetest.Bound)
			require.NoError(t, receipt.Wait(confirmed), "%s, %s", how, where)
			cancel()
			v, err := aside.GetOrLoad(ctx, a, key, asidetest.Value("new"))
			require.NoError(t, err)
			require.Equal(t, "new", v)
			asidetest.Eventually(t, "the other one hears of it", func() bool {
				v, err := aside.GetOrLoad(ctx, b, key, asidetest.Value("new"))
				require.NoError(t, err)
				return v == "new"
			})
			m.Finish()
			served(t, a, key)
		}
	}
}

func TestWithOneNodeLostTheOthersServe(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	o := asidetest.InClusterOf(cluster)
	c := asidetest.Connected(t, o)
	keys := spread(30)
	other := asidetest.Connected(t, asidetest.InClusterOf(cluster))
	for _, key := range keys {
		asidetest.Stored(t, other, key, "v")
	}
	lost := cluster.NodeOf(keys[0].String())
	at := make(map[aside.Key]bool)
	for _, key := range keys {
		at[key] = cluster.NodeOf(key.String()) == lost
	}
	// Generations may be on the lost node as well, and nothing is trusted without them.
	for _, key := range keys {
		asidetest.InMemory(t, c, key, asidetest.Value("never"))
	}
	lost.Kill()
	asidetest.Eventually(t, "it is noticed", func() bool { return c.Health().State == aside.StateDegraded })
	for _, key := range keys {
		if !at[key] {
			_, err := aside.Lookup(t.Context(), c, key, asidetest.Value("loaded"))
			require.NoError(t, err)
		}
	}
	asidetest.Eventually(t, "its replica has taken its place", func() bool { return c.Health().State == aside.StateConnected })
	for _, key := range keys {
		served(t, c, key)
	}
	lost.Restart()
	cluster.WaitOK()
}

// What a primary had confirmed, and had not passed on to its replica when it died, is confirmed by nobody: it is sent again.
func TestAnInvalidationThatAFailoverHasLostIsSentAgain(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	a, b := asidetest.Connected(t, asidetest.InClusterOf(cluster)), asidetest.Connected(t, asidetest.InClusterOf(cluster))
	key := asidetest.Items.Key("a")
	asidetest.InMemory(t, a, key, asidetest.Value("old"))
	primary := cluster.NodeOf(key.String())
	replica := cluster.ReplicaOf(primary)
	cluster.WaitReplicated()
	replica.Pause()
	receipt, err := a.Invalidate(t.Context(), key)
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	primary.Kill()
	replica.Resume()
	cluster.Takeover(replica)
	asidetest.Eventually(t, "what the replica still had is gone", func() bool {
		n, err := replica.Do("EXISTS", key.String())
		return err == nil && n == int64(0)
	})
	for _, c := range []*aside.Cache{a, b} {
		asidetest.Eventually(t, "they are connected", func() bool { return c.Health().State == aside.StateConnected })
		v, err := aside.GetOrLoad(t.Context(), c, key, asidetest.Value("new"))
		require.NoError(t, err)
		require.Equal(t, "new", v)
	}
	primary.Restart()
	cluster.WaitOK()
}

// staleness notes how long a reader is served what was out of date.
type staleness struct {
	mu      sync.Mutex
	current []int64     // of each key the version that its source has
	since   []time.Time // when the invalidation of that version returned
	worst   time.Duration
}

// TestFault08NothingStaysStaleThroughTheChangesOfACluster moves slots, promotes replicas and has them take over while the source of many
// keys changes and each change is followed by an invalidation: no process serves an older version for long.
func TestFault08NothingStaysStaleThroughTheChangesOfACluster(t *testing.T) {
	t.Parallel()
	migrations, promotions, takeovers := 4, 2, 1
	if asidetest.AtLength() {
		migrations, promotions, takeovers = 60, 20, 10
	}
	allowed := asidetest.Allowing(t)
	cluster := redistest.StartCluster(t)
	o := asidetest.InClusterOf(cluster)
	o.OpTimeout, o.DegradedTTL = 0, -1
	writer, reader := asidetest.Connected(t, o), asidetest.Connected(t, o)
	keys := spread(48)
	st := &staleness{current: make([]int64, len(keys)), since: make([]time.Time, len(keys))}
	var versions [48]atomic.Int64
	load := func(i int) func(context.Context) (int64, error) {
		return func(context.Context) (int64, error) { return versions[i].Load(), nil }
	}
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var writes, reads, unconfirmed atomic.Int64
	all.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			i := n % len(keys)
			v := versions[i].Add(1)
			var receipt aside.Receipt
			var err error
			if n%7 == 0 {
				receipt, err = writer.InvalidateTags(ctx, fmt.Sprint("tag", i))
			} else {
				receipt, err = writer.Invalidate(ctx, keys[i])
			}
			if err != nil {
				t.Error(err)
				return
			}
			if !receipt.Confirmed {
				unconfirmed.Add(1)
				if receipt.Wait(ctx) != nil {
					return
				}
			}
			st.mu.Lock()
			st.current[i], st.since[i] = v, time.Now()
			st.mu.Unlock()
			writes.Add(1)
			time.Sleep(time.Millisecond) // a pace, not a wait: the machine is needed for the others too
		}
	})
	read := func(c *aside.Cache, i int, strict bool) (fresh bool) {
		st.mu.Lock()
		want, since := st.current[i], st.since[i]
		st.mu.Unlock()
		v, err := aside.GetOrLoad(ctx, c, keys[i], load(i), aside.WithTags(fmt.Sprint("tag", i)))
		if err != nil {
			return true
		}
		reads.Add(1)
		if v >= want {
			return true
		}
		if strict {
			t.Errorf("the process that has invalidated version %d reads %d", want, v)
		}
		st.mu.Lock()
		st.worst = max(st.worst, time.Since(since))
		st.mu.Unlock()
		return false
	}
	for _, c := range []*aside.Cache{writer, reader} {
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				read(c, n%len(keys), c == writer)
				if n%16 == 0 {
					time.Sleep(100 * time.Microsecond)
				}
			}
		})
	}
	settled := func(what string) {
		for i := range keys {
			asidetest.Eventually(t, "nothing stays stale after "+what, func() bool { return read(reader, i, false) && read(writer, i, true) })
		}
	}
	for n := range migrations {
		slot := redistest.Slot(keys[n%len(keys)].String())
		primaries := cluster.Primaries()
		at := slices.Index(primaries, cluster.OwnerOf(slot))
		cluster.MigrateSlot(slot, primaries[(at+1)%len(primaries)])
	}
	settled("migrations")
	for n := range promotions {
		cluster.Promote(cluster.ReplicaOf(cluster.Primaries()[n%3]))
		cluster.WaitOK()
		settled("a promotion")
	}
	for n := range takeovers {
		cluster.Takeover(cluster.ReplicaOf(cluster.Primaries()[n%3]))
		settled("a takeover")
		cluster.WaitOK()
	}
	stop()
	all.Wait()
	require.Less(t, st.worst, allowed(3*time.Second))
	require.Positive(t, writes.Load())
	asidetest.Seen(t, 8, "slots moved, replicas promoted, takeovers by force", "followed; no entry stays stale; at most 3 s late",
		"%d migrations, %d promotions, %d takeovers; %d changes, %d not confirmed at once, %d reads, none older than this process's own, others %.0f ms late at most",
		migrations, promotions, takeovers, writes.Load(), unconfirmed.Load(), reads.Load(), float64(st.worst)/1e6)
}

func TestAReceiptWaitsForReplicas(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	c := asidetest.Connected(t, asidetest.InClusterOf(cluster))
	key := asidetest.Items.Key("a")
	asidetest.Stored(t, c, key, "v")
	replica := cluster.ReplicaOf(cluster.NodeOf(key.String()))
	cluster.WaitReplicated()
	replica.Pause()
	receipt, err := c.Invalidate(t.Context(), key)
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, receipt.Replicated(short, 1), context.DeadlineExceeded)
	require.NoError(t, receipt.Replicated(t.Context(), 0))
	replica.Resume()
	require.NoError(t, receipt.Replicated(t.Context(), 1))
	require.Empty(t, replica.MustDo(t, "KEYS", key.String()))
	asidetest.RequireCode(t, receipt.Replicated(t.Context(), -1), aside.CodeInvalidArgument)

	retired, err := c.InvalidateCategory(t.Context(), "items")
	require.NoError(t, err)
	require.NoError(t, retired.Replicated(t.Context(), 1))
	done := make(chan error, 1)
	go func() { done <- retired.Replicated(context.Background(), 2) }() // which there are not
	require.NoError(t, c.Close())
	require.ErrorIs(t, <-done, aside.ErrClosed)
	require.NoError(t, aside.Receipt{Confirmed: true}.Replicated(t.Context(), 1), "in memory mode")
}

// What the lost primary has confirmed, the replicas of the one in its place do not vouch for.
func TestAReceiptFromBeforeAFailoverSaysNothingOfReplicas(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	c := asidetest.Connected(t, asidetest.InClusterOf(cluster))
	key := asidetest.Items.Key("a")
	asidetest.Stored(t, c, key, "v")
	primary := cluster.NodeOf(key.String())
	replica := cluster.ReplicaOf(primary)
	receipt, err := c.Invalidate(t.Context(), key)
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	primary.Kill()
	cluster.Takeover(replica)
	primary.Restart()
	cluster.WaitOK()
	asidetest.Eventually(t, "it is connected", func() bool { return c.Health().State == aside.StateConnected })
	asidetest.RequireCode(t, receipt.Replicated(t.Context(), 1), aside.CodeUnavailable)
	again, err := c.Invalidate(t.Context(), key)
	require.NoError(t, err)
	require.NoError(t, again.Replicated(t.Context(), 1))
}

func TestNodesHaveThePrimariesOfACluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	c := asidetest.Connected(t, asidetest.InClusterOf(cluster))
	servers := make(map[string]bool)
	for _, key := range spread(30) {
		servers[cluster.NodeOf(key.String()).Addr()] = true
	}
	nodes := c.Nodes()
	require.Len(t, nodes, 3)
	for i, n := range nodes {
		require.True(t, servers[n.Addr], n.Addr)
		require.True(t, n.Up && n.Tracking, n.Addr)
		require.Positive(t, n.ClockWithin)
		require.True(t, i == 0 || nodes[i-1].Addr < n.Addr)
	}
	lost := cluster.NodeOf(asidetest.Items.Key(0).String())
	lost.Kill()
	asidetest.Eventually(t, "the loss of one is noticed", func() bool {
		return slices.ContainsFunc(c.Nodes(), func(n aside.Node) bool { return n.Addr == lost.Addr() && !n.Up && n.Reason != "" })
	})
}

// Redis as a whole is unavailable with one of its nodes. The log says which one.
func TestTheLogNamesTheNodeThatIsUnavailable(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	var log asidetest.Logbook
	o := asidetest.InClusterOf(cluster)
	o.Logger = log.Logger()
	c := asidetest.Connected(t, o)
	require.NotContains(t, log.String(), "a node of the cluster")
	node := cluster.NodeOf(asidetest.Items.Key("a").String())
	node.Kill()
	line := func(text string) string { return fmt.Sprintf(`"msg":"aside: %s","node":%q`, text, node.Addr()) }
	asidetest.Eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), line("a node of the cluster is unavailable")) })
	node.Restart()
	asidetest.Eventually(t, "it is back", func() bool { return c.Health().State == aside.StateConnected })
	asidetest.Eventually(t, "it is logged", func() bool {
		return strings.Contains(log.String(), line("connected to a node of the cluster")+`,"away":`)
	})
}
