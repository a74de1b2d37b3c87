package coherence_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// These tests are about changes that a process might not be told of.

// isRead reports whether a request reads the value of a key.
func isRead(args []string, key string) bool {
	return (args[0] == "GETRANGE" || args[0] == "GET") && args[1] == key
}

// requireFollows has another process change a key that c has in memory, and waits until c reads the new value.
func requireFollows(t *testing.T, c, other *aside.Cache, key aside.Key) {
	t.Helper()
	asidetest.Stored(t, other, key, "new")
	asidetest.Eventually(t, "the change is heard of", func() bool {
		v, err := aside.GetOrLoad(t.Context(), c, key, asidetest.Value("new"))
		require.NoError(t, err)
		return v == "new"
	})
}

// Hazard 51: a read that gives up, and a read that comes later, say nothing of a third one of the same key.
//
//  1. a batch reads K in its first portion: the old value
//  2. a caller with little time asks for K too, and leaves before its reply is there
//  3. another process changes K
//  4. a further caller asks for K
//  5. the batch ends, and keeps what it has read
func TestAReadThatGivesUpIsNotMistakenForAnother(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(proxy.Addr()))
	ids := make([]int, 3500)
	for i := range ids {
		ids[i] = i
	}
	asidetest.Stored(t, a, asidetest.ItemKey(0), 1)
	second := proxy.HoldReplies(func(args []string) bool { return isRead(args, asidetest.ItemKey(1500).String()) })
	third := proxy.HoldReplies(func(args []string) bool { return isRead(args, asidetest.ItemKey(2500).String()) })
	batch := make(chan map[int]int, 1)
	go func() {
		values, err := aside.GetOrLoadMany(t.Context(), b, ids, asidetest.ItemKey, func(_ context.Context, ids []int) (map[int]int, error) {
			return map[int]int{}, nil
		})
		if err != nil {
			t.Error(err)
		}
		batch <- values
	}()
	second.Wait(t)
	hurried, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := aside.Get[int](hurried, b, asidetest.ItemKey(0))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	second.Release()
	third.Wait(t)
	asidetest.Stored(t, a, asidetest.ItemKey(0), 2)
	further := make(chan int, 1)
	asked := len(proxy.Log())
	go func() {
		v, err := aside.Get[int](t.Context(), b, asidetest.ItemKey(0))
		if err != nil {
			t.Error(err)
		}
		further <- v
	}()
	proxy.Await(t, "the further caller has asked", func() bool {
		for _, args := range proxy.Log()[asked:] {
			if isRead(args, asidetest.ItemKey(0).String()) {
				return true
			}
		}
		return false
	})
	third.Release()
	require.Equal(t, 2, <-further)
	require.Equal(t, 1, (<-batch)[0], "the batch has read it before")
	asidetest.Eventually(t, "what the batch has read is not kept", func() bool {
		v, err := aside.Get[int](t.Context(), b, asidetest.ItemKey(0))
		return err == nil && v == 2
	})
}

// Hazard 52: a server may refuse what switches tracking on for one read, and answer the read.
func TestAReadIsTrackedWhateverElseTheServerRefuses(t *testing.T) {
	t.Parallel()
	t.Run("a permission that is taken away", func(t *testing.T) {
		t.Parallel()
		server := redistest.Start(t)
		server.MayDeny()
		server.MustDo(t, append([]string{"ACL", "SETUSER", "documented"}, asidetest.ACLRules("a-long-password", "items")...)...)
		o := asidetest.Anonymously(server.Addr())
		o.Redis.Username, o.Redis.Password = "documented", "a-long-password"
		a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, o)
		server.MustDo(t, "ACL", "SETUSER", "documented", "-client|caching", "-client", "-echo")
		asidetest.Stored(t, a, asidetest.Items.Key("a"), "old")
		require.Equal(t, "old", asidetest.InMemory(t, b, asidetest.Items.Key("a"), asidetest.Value("not this one")))
		requireFollows(t, b, a, asidetest.Items.Key("a"))
	})
	t.Run("a script that keeps the server busy", func(t *testing.T) {
		t.Parallel()
		server := redistest.Start(t)
		proxy := redistest.StartProxy(t, server.Addr())
		a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(proxy.Addr()))
		asidetest.Stored(t, a, asidetest.Items.Key("a"), "old")
		server.MustDo(t, "CONFIG", "SET", "lua-time-limit", "1")
		held := proxy.HoldRequests(func(args []string) bool { return isRead(args, "items:a") })
		foreign := redistest.Raw(t, server.Addr())
		foreign.Timeout = time.Minute
		over := make(chan struct{})
		go func() {
			defer close(over)
			_, _ = foreign.Do("EVAL", "while true do end", "0")
		}()
		busy := func() bool {
			_, err := server.Do("PING")
			return err != nil
		}
		asidetest.Eventually(t, "the server is busy", busy)
		got := asidetest.Background(t, b, asidetest.Items.Key("a"), asidetest.Value("not this one"))
		held.Wait(t) // what comes before it is answered while the server is busy
		require.True(t, busy(), "the server was busy while the read was on its way")
		_, _ = server.Do("SCRIPT", "KILL")
		<-over
		held.Release()
		require.Equal(t, "old", <-got)
		require.Equal(t, "old", asidetest.InMemory(t, b, asidetest.Items.Key("a"), asidetest.Value("not this one")))
		requireFollows(t, b, a, asidetest.Items.Key("a"))
	})
}

// Hazard 52: what is between a process and its server may stop passing on what the server tells, and answer all the same.
func TestASilentConnectionIsFoundOut(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	a, b := asidetest.Connected(t, asidetest.Anonymously(server.Addr())), asidetest.Connected(t, asidetest.Anonymously(proxy.Addr()))
	asidetest.InMemory(t, b, asidetest.Items.Key("a"), asidetest.Value("old"))
	stop := proxy.DropPushes(func([]string) bool { return true })
	defer stop()
	requireFollows(t, b, a, asidetest.Items.Key("a"))
	require.NotZero(t, proxy.DroppedPushes())
	asidetest.Eventually(t, "the server is used as one that does not tell", func() bool {
		h := b.Health()
		return h.State == aside.StateConnected && !h.Tracking
	})
}

// Hazard 56.
func TestAnExchangeOfTheDatabasesIsNoticed(t *testing.T) {
	t.Parallel()
	if asidetest.InCluster {
		t.Skip("nodes of a cluster have one database")
	}
	server := redistest.Start(t)
	b, o := asidetest.Connected(t, asidetest.Anonymously(server.Addr())), asidetest.Anonymously(server.Addr())
	o.Redis.SelectDB = 1
	asidetest.Stored(t, asidetest.Connected(t, o), asidetest.Items.Key("a"), "new")
	asidetest.InMemory(t, b, asidetest.Items.Key("a"), asidetest.Value("old"))
	server.MustDo(t, "SWAPDB", "0", "1")
	asidetest.Eventually(t, "what rested on the other data is gone", func() bool {
		v, err := aside.GetOrLoad(t.Context(), b, asidetest.Items.Key("a"), asidetest.Value("not this one"))
		require.NoError(t, err)
		return v == "new"
	})
	require.NotZero(t, b.Metrics().TrackingLost)
}

// Hazard 53: a server without memory for a value, or for a lease, has been asked, and tells of changes.
//
//  1. this process reads K, which is missing, and is refused a lease
//  2. it loads K and keeps it
//  3. another process invalidates K: neither value nor lease is there to be removed
func TestAnInvalidationIsHeardWhereTheServerHasNothingToRemove(t *testing.T) {
	t.Parallel()
	for name, invalidate := range map[string]func(c *aside.Cache) (aside.Receipt, error){
		"key": func(c *aside.Cache) (aside.Receipt, error) {
			return c.Invalidate(t.Context(), asidetest.Items.Key("a"))
		},
		"category": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateCategory(t.Context(), "items") },
		"tag":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateTags(t.Context(), "x") },
		"all":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateAll(t.Context()) },
	} {
		for _, known := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, generations known: %v", name, known), func(t *testing.T) {
				t.Parallel()
				server := redistest.Start(t)
				a, b := asidetest.Pair(t, server.Addr())
				if known {
					asidetest.InMemory(t, b, asidetest.Items.Key("other"), asidetest.Value("v"), aside.WithTags("x"))
				}
				server.MustDo(t, "CONFIG", "SET", "maxmemory", "1")
				v, err := aside.GetOrLoad(t.Context(), b, asidetest.Items.Key("a"), asidetest.Value("old"), aside.WithTags("x"))
				require.NoError(t, err)
				require.Equal(t, "old", v)
				r, err := aside.Lookup(t.Context(), b, asidetest.Items.Key("a"), asidetest.Value("loaded again"), aside.WithTags("x"))
				require.NoError(t, err)
				require.Equal(t, "old", r.Value, "one load does for a server that is full")
				require.Equal(t, aside.StatusHit, r.Status)
				receipt, err := invalidate(a)
				require.NoError(t, err)
				require.True(t, receipt.Confirmed)
				asidetest.Eventually(t, "the invalidation is heard", func() bool {
					v, err := aside.GetOrLoad(t.Context(), b, asidetest.Items.Key("a"), asidetest.Value("new"), aside.WithTags("x"))
					require.NoError(t, err)
					return v == "new"
				})
				r, err = aside.Lookup(t.Context(), b, asidetest.Items.Key("a"), asidetest.Value("loaded again"), aside.WithTags("x"))
				require.NoError(t, err)
				require.Equal(t, "new", r.Value)
			})
		}
	}
}

// Hazard 53: a load without a lease is not joined any more either.
func TestNobodyJoinsALoadWithoutALeaseThatAnotherProcessHasInvalidated(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Pair(t, server.Addr())
	asidetest.InMemory(t, b, asidetest.Items.Key("other"), asidetest.Value("v"))
	server.MustDo(t, "CONFIG", "SET", "maxmemory", "1")
	doomed := asidetest.NewHeld()
	first := asidetest.Background(t, b, asidetest.Items.Key("a"), doomed.Load("old"))
	<-doomed.Began
	also := asidetest.Waiting(t, b, asidetest.Items.Key("a"), asidetest.Value("a load of its own"))
	receipt, err := a.Invalidate(t.Context(), asidetest.Items.Key("a"))
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	fresh := asidetest.NewHeld()
	close(fresh.Release)
	asidetest.Eventually(t, "somebody loads anew", func() bool {
		asidetest.Background(t, b, asidetest.Items.Key("a"), fresh.Load("new"))
		return fresh.Loads.Load() > 0
	})
	close(doomed.Release)
	require.Equal(t, "old", <-first)
	require.Equal(t, "old", <-also, "it came before the invalidation")
	require.Equal(t, "new", asidetest.InMemory(t, b, asidetest.Items.Key("a"), asidetest.Value("not this one")))
}

// Hazard 55: a load that began while Redis was away is shared while that lasts, and not once other processes can have invalidated
// what it loads without a word to this one.
func TestALoadOfAnOutageIsNotJoinedWhenRedisIsBack(t *testing.T) {
	t.Parallel()
	for name, invalidate := range map[string]func(c *aside.Cache) (aside.Receipt, error){
		"key": func(c *aside.Cache) (aside.Receipt, error) {
			return c.Invalidate(t.Context(), asidetest.Items.Key("a"))
		},
		"category": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateCategory(t.Context(), "items") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			proxy := redistest.StartProxy(t, server.Addr())
			o := asidetest.At(server.Addr())
			o.Policies = []aside.Policy{asidetest.Items}
			a, b := asidetest.Connected(t, o), asidetest.Connected(t, asidetest.At(proxy.Addr()))
			proxy.Refuse(true)
			proxy.CloseConnections()
			asidetest.Eventually(t, "Redis is away", func() bool { return b.Health().State == aside.StateDegraded })
			doomed := asidetest.NewHeld()
			first := asidetest.Background(t, b, asidetest.Items.Key("a"), doomed.Load("old"))
			<-doomed.Began
			joined := asidetest.Background(t, b, asidetest.Items.Key("a"), doomed.Load("a second load"))
			require.Never(t, func() bool { return doomed.Loads.Load() > 1 }, 50*time.Millisecond, time.Millisecond, "one load while Redis is away")
			proxy.Refuse(false)
			asidetest.Eventually(t, "Redis is back", func() bool { return b.Health().State == aside.StateConnected })
			receipt, err := invalidate(a)
			require.NoError(t, err)
			require.True(t, receipt.Confirmed)
			fresh := asidetest.NewHeld()
			close(fresh.Release)
			require.Equal(t, "new", <-asidetest.Background(t, b, asidetest.Items.Key("a"), fresh.Load("new")), "who comes now loads anew")
			close(doomed.Release)
			require.Equal(t, "old", <-first)
			require.Equal(t, "old", <-joined)
			require.Equal(t, "new", asidetest.InMemory(t, b, asidetest.Items.Key("a"), asidetest.Value("not this one")))
		})
	}
}

// Hazard 55.
func TestALoadOfAnOutageIsNotJoinedInTheNextOne(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(proxy.Addr()))
	cut := func() {
		proxy.Refuse(true)
		proxy.CloseConnections()
		asidetest.Eventually(t, "Redis is away", func() bool { return b.Health().State == aside.StateDegraded })
	}
	cut()
	doomed := asidetest.NewHeld()
	first := asidetest.Background(t, b, asidetest.Items.Key("a"), doomed.Load("old"))
	<-doomed.Began
	proxy.Refuse(false)
	asidetest.Eventually(t, "Redis is back", func() bool { return b.Health().State == aside.StateConnected })
	receipt, err := a.Invalidate(t.Context(), asidetest.Items.Key("a"))
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	cut()
	require.Equal(t, "new", <-asidetest.Background(t, b, asidetest.Items.Key("a"), asidetest.Value("new")))
	close(doomed.Release)
	require.Equal(t, "old", <-first)
	require.NotEqual(t, "old", <-asidetest.Background(t, b, asidetest.Items.Key("a"), asidetest.Value("new")), "it is not kept in place of the newer one")
}

// Hazard 53: Redis has said that it does not hold the value, and only not taken a new one.
func TestWhatWasKeptInAnOutageIsNotServedOnceRedisHasAnswered(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(proxy.Addr()))
	proxy.Refuse(true)
	proxy.CloseConnections()
	asidetest.Eventually(t, "Redis is away", func() bool { return b.Health().State == aside.StateDegraded })
	require.Equal(t, "old", <-asidetest.Background(t, b, asidetest.Items.Key("a"), asidetest.Value("old")))
	require.Equal(t, "old", <-asidetest.Background(t, b, asidetest.Items.Key("a"), asidetest.Value("loaded again")), "it is kept")
	server.MustDo(t, "CONFIG", "SET", "maxmemory", "1")
	proxy.Refuse(false)
	asidetest.Eventually(t, "Redis is back", func() bool { return b.Health().State == aside.StateConnected })
	receipt, err := a.Invalidate(t.Context(), asidetest.Items.Key("a"))
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	require.Equal(t, "new", <-asidetest.Background(t, b, asidetest.Items.Key("a"), asidetest.Value("new")))
}

// Hazard 53: a single read that is not answered in time is no outage, and says nothing of changes.
func TestAValueThatRedisCouldNotBeAskedForIsNotKeptWhileRedisIsThere(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	o := asidetest.At(proxy.Addr())
	o.OpTimeout = 100 * time.Millisecond
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, o)
	// The request is held, and not the reply: a read that the server has carried out is one of whose changes it tells.
	unanswered := func(v string, meanwhile func()) string {
		gate := proxy.HoldRequests(func(args []string) bool { return isRead(args, "items:a") })
		defer gate.Release()
		got := <-asidetest.Background(t, b, asidetest.Items.Key("a"), asidetest.Value(v))
		meanwhile()
		return got
	}
	require.Equal(t, "old", unanswered("old", func() {
		receipt, err := a.Invalidate(t.Context(), asidetest.Items.Key("a"))
		require.NoError(t, err)
		require.True(t, receipt.Confirmed)
	}))
	asidetest.Eventually(t, "Redis is there", func() bool { return b.Health().State == aside.StateConnected })
	require.Equal(t, "new", unanswered("new", func() {}))
}

// Hazard 55: one failed read is no outage.
func TestALoadThatCouldNotReadRedisIsNotJoinedWhileRedisIsThere(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ known, unread bool }{
		"tags known": {known: true}, "tags not known": {},
		"tags known, the read reaches Redis after the invalidation": {known: true, unread: true}, // so Redis pushes nothing about it
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			proxy := redistest.StartProxy(t, server.Addr())
			o := asidetest.At(proxy.Addr())
			o.OpTimeout = 500 * time.Millisecond
			a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, o)
			if c.known {
				asidetest.InMemory(t, b, asidetest.Items.Key("other"), naming("x", asidetest.Value("v")))
			}
			hold := proxy.HoldReplies
			if c.unread {
				hold = proxy.HoldRequests
			}
			gate := hold(func(args []string) bool { return isRead(args, "items:a") })
			doomed := asidetest.NewHeld()
			first := asidetest.Background(t, b, asidetest.Items.Key("a"), doomed.Load("old"))
			<-doomed.Began
			if !c.unread {
				gate.Release()
				asidetest.Eventually(t, "Redis is there", func() bool { return b.Health().State == aside.StateConnected })
			}
			receipt, err := a.Invalidate(t.Context(), asidetest.Items.Key("a"))
			require.NoError(t, err)
			require.True(t, receipt.Confirmed)
			gate.Release()
			asidetest.Eventually(t, "Redis is there", func() bool { return b.Health().State == aside.StateConnected })
			require.Equal(t, "new", <-asidetest.Background(t, b, asidetest.Items.Key("a"), asidetest.Value("new")))
			close(doomed.Release)
			require.Equal(t, "old", <-first)
			require.Equal(t, "new", asidetest.InMemory(t, b, asidetest.Items.Key("a"), asidetest.Value("new"))) // Redis may have been too slow to store it
		})
	}
}

// Hazard 62: a lease that nobody will fill or give back keeps nobody waiting for long.
func TestALeaseOfNobodyIsTakenOver(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	c := asidetest.Connected(t, o)
	short := aside.Policy{Name: "quick", Category: "quick", TTL: time.Hour, LoadTimeout: 4 * time.Second}
	var loads atomic.Int64
	for name, plant := range map[string][]string{
		"for ever":      {"SET", "{quick:for ever}!l", "of a foreigner"},
		"for very long": {"SET", "{quick:for very long}!l", "of a foreigner", "EX", "36000"},
		"of no string":  {"RPUSH", "{quick:of no string}!l", "of a foreigner"},
		"that stands":   {"SET", "{quick:that stands}!l", "of a foreigner", "EX", "60"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server.MustDo(t, plant...)
			v, err := aside.GetOrLoad(t.Context(), c, short.Key(name), func(context.Context) (string, error) {
				loads.Add(1)
				return "v", nil
			})
			require.NoError(t, err)
			require.Equal(t, "v", v)
			require.Equal(t, "v", asidetest.InMemory(t, c, short.Key(name), asidetest.Value("loaded again")))
			if name != "that stands" {
				asidetest.Eventually(t, "the value is stored under the lease", func() bool {
					return server.MustDo(t, "EXISTS", short.Key(name).String()) == int64(1)
				})
			}
		})
	}
}

// Hazard 70: a cluster's node that has a generation is away, and all others are well.
func TestTheLossOfAGenerationsNodeIsNoWaveOfLoads(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, "--cluster-require-full-coverage", "no")
	a, b := asidetest.Connected(t, asidetest.InClusterOf(cluster)), asidetest.Connected(t, asidetest.InClusterOf(cluster))
	lost, policy := cluster.NodeOf("%all"), asidetest.LanePolicy(0)
	for i := 1; cluster.NodeOf("%c:"+policy.Category) == lost; i++ {
		policy = asidetest.LanePolicy(i)
	}
	var keys []aside.Key
	for i := 0; len(keys) < 60; i++ {
		if key := policy.Key("k", i); cluster.NodeOf(key.String()) != lost {
			keys = append(keys, key)
		}
	}
	for i, key := range keys {
		asidetest.Stored(t, a, key, "v")
		if i%2 == 0 {
			asidetest.InMemory(t, b, key, asidetest.Value("not this one"))
		}
	}
	asidetest.InMemory(t, b, keys[0], asidetest.Value("not this one"))
	cluster.ReplicaOf(lost).Kill() // or it would take the place of its primary
	lost.Kill()
	var loads atomic.Int64
	stale := 0
	for began := time.Now(); time.Since(began) < 4*time.Second || stale == 0 && time.Since(began) < asidetest.Bound; {
		for _, key := range keys {
			r, err := aside.Lookup(t.Context(), b, key, func(context.Context) (string, error) {
				loads.Add(1)
				return "v", nil
			})
			require.NoError(t, err)
			require.Equal(t, "v", r.Value)
			if r.Status == aside.StatusStale {
				stale++
			}
		}
	}
	require.NotZero(t, stale, "the node was missed")
	require.Zero(t, loads.Load())
	// What this process invalidates is out of date all the same.
	_, err := b.Invalidate(t.Context(), keys[0])
	require.NoError(t, err)
	require.Equal(t, "new", <-asidetest.Background(t, b, keys[0], asidetest.Value("new")))
}
