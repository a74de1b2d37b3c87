package contract_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// These tests are about what is loaded, kept and shared without a lease, and about changes of which nobody is told then.

// isDiscard reports whether a request removes what a Set or a Refresh was to replace.
func isDiscard(args []string) bool {
	return args[0] == "EVALSHA" && args[2] == "1" && args[3] == asidetest.Items.Key("a").String()
}

// givesBack reports whether a request gives the lease of a key back.
func givesBack(args []string, key string) bool {
	return args[0] == "EVALSHA" && len(args) == 8 && args[3] == key && (args[6] == "" || args[6] == "quiet")
}

// A pattern goes by what Redis holds. What a process keeps that Redis could not take has no place there:
//
//  1. the server is full; b loads K without a lease and keeps it, since Redis tells of changes of K and of its tags
//  2. a invalidates a pattern that K matches: neither value nor lease is found, so nothing is changed and nobody is told
//  3. the receipt is confirmed, and b goes on serving the old value as a fresh hit, until its TTL ends
func TestAPatternIsHeardWhereTheServerHasNothingToRemove(t *testing.T) {
	t.Parallel()
	for name, pattern := range map[string]aside.Pattern{
		"of many keys": asidetest.Items.Match("a", aside.Wildcard),
		"of one key":   asidetest.Items.Match("a", 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			a, b := asidetest.Pair(t, server.Addr())
			key := asidetest.Items.Key("a", 1)
			server.MustDo(t, "CONFIG", "SET", "maxmemory", "1")
			require.Equal(t, "old", asidetest.InMemory(t, b, key, asidetest.Value("old")))
			server.MustDo(t, "CONFIG", "SET", "maxmemory", "0")
			receipt, err := a.InvalidatePattern(t.Context(), pattern)
			require.NoError(t, err)
			require.True(t, receipt.Confirmed)
			asidetest.AllTold(t, b)
			r, err := aside.Lookup(t.Context(), b, key, asidetest.Value("new"))
			require.NoError(t, err)
			require.Equal(t, "new", r.Value, "%s after a confirmed invalidation", r.Status)
		})
	}
}

// The same without a server that is full: the lease that b has waited for in vain ends, and nobody is told of that.
func TestAPatternIsHeardByWhoHasLoadedBesideALeaseThatEnded(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Pair(t, server.Addr())
	quick := aside.Policy{Name: "quick", Category: "quick", TTL: time.Hour, LoadTimeout: 4 * time.Second}
	server.MustDo(t, "SET", "{quick:a}!l", "of a process that has died", "PX", "6000")
	require.Equal(t, "old", asidetest.InMemory(t, b, quick.Key("a"), asidetest.Value("old")))
	asidetest.Eventually(t, "the lease has ended", func() bool { return server.MustDo(t, "EXISTS", "{quick:a}!l") == int64(0) })
	receipt, err := a.InvalidatePattern(t.Context(), quick.Match(aside.Wildcard))
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	asidetest.AllTold(t, b)
	r, err := aside.Lookup(t.Context(), b, quick.Key("a"), asidetest.Value("new"))
	require.NoError(t, err)
	require.Equal(t, "new", r.Value, "%s after a confirmed invalidation", r.Status)
}

// The same with a load that is still under way.
func TestNobodyJoinsALoadWithoutALeaseThatAPatternHasInvalidated(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Pair(t, server.Addr())
	server.MustDo(t, "CONFIG", "SET", "maxmemory", "1")
	doomed := asidetest.NewHeld()
	first := asidetest.Background(t, b, asidetest.Items.Key("a"), doomed.Load("old"))
	<-doomed.Began
	server.MustDo(t, "CONFIG", "SET", "maxmemory", "0")
	receipt, err := a.InvalidatePattern(t.Context(), asidetest.Items.Match(aside.Wildcard))
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	asidetest.AllTold(t, b)
	later := asidetest.Waiting(t, b, asidetest.Items.Key("a"), asidetest.Value("new"))
	close(doomed.Release)
	require.Equal(t, "old", <-first)
	require.Equal(t, "new", <-later, "it came after the invalidation was confirmed")
}

// A Set that is refused removes what was there, "unless something newer is there by now". Where nothing is there, nobody is told:
//
//  1. b has K in memory, and Redis does not have it
//  2. a sets K; its lease goes by itself before the value is there, so the fill is refused
//  3. Set returns nil, and b goes on serving the old value as a fresh hit
func TestASetThatIsRefusedIsHeardWhereTheServerHasNothingToRemove(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, a *aside.Cache){
		"Set": func(t *testing.T, a *aside.Cache) {
			require.NoError(t, aside.Set(t.Context(), a, asidetest.Items.Key("a"), "new"))
		},
		"Set for a moment": func(t *testing.T, a *aside.Cache) {
			require.NoError(t, aside.Set(t.Context(), a, asidetest.Items.Key("a"), "new", aside.WithTTL(time.Second)))
		},
		"Refresh": func(t *testing.T, a *aside.Cache) {
			v, err := aside.GetOrLoad(t.Context(), a, asidetest.Items.Key("a"), asidetest.Value("new"), aside.Refresh())
			require.NoError(t, err)
			require.Equal(t, "new", v)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			a, b := asidetest.Watch(t, server), asidetest.Connected(t, asidetest.At(server.Addr()))
			asidetest.InMemory(t, a.Cache, asidetest.Items.Key("other"), asidetest.Value("v"))
			server.MustDo(t, "CONFIG", "SET", "maxmemory", "1")
			require.Equal(t, "old", asidetest.InMemory(t, b, asidetest.Items.Key("a"), asidetest.Value("old")))
			server.MustDo(t, "CONFIG", "SET", "maxmemory", "0")
			fills := a.Proxy.HoldRequests(func(args []string) bool { return asidetest.IsFill(args, "items:a") })
			discards := a.Proxy.HoldReplies(isDiscard)
			over, asked := make(chan struct{}), time.Now()
			go func() {
				defer close(over)
				change(t, a.Cache)
			}()
			fills.Wait(t)
			if name == "Set for a moment" {
				asidetest.Eventually(t, "its time is over before it is there", func() bool { return time.Since(asked) > 1100*time.Millisecond })
			} else {
				require.Equal(t, int64(1), server.MustDo(t, "DEL", "{items:a}!l"), "as by eviction, or because its time is up")
			}
			fills.Release()
			if name != "Set for a moment" {
				discards.Wait(t) // after a Refresh it is sent in the background
			}
			discards.Release()
			<-over
			if name != "Set for a moment" {
				asidetest.Eventually(t, "the fill is refused", func() bool { return asidetest.Refused(a.Cache) > 0 })
			}
			asidetest.AllTold(t, b)
			r, err := aside.Lookup(t.Context(), b, asidetest.Items.Key("a"), asidetest.Value("new"))
			require.NoError(t, err)
			require.Equal(t, "new", r.Value, r.Status)
		})
	}
}

// A load that does not ask Redis, since Redis has just not taken what was to be stored:
//
//  1. b loads K under a lease; a invalidates K, of which b is told, while the value is on its way to Redis
//  2. a further caller of b leads the next load, and waits for Redis' answer about the first one, in vain
//  3. so it loads without asking Redis, which then tells of nothing
//  4. a invalidates K again
//  5. who comes after that joins the load
//
// Some servers take the keys of every script for read (7.0 does), so the next load waits for its place until that is over.
func TestALoadThatDoesNotAskRedisIsNotJoinedWhileRedisIsThere(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	o := asidetest.At(proxy.Addr())
	o.OpTimeout, o.MaxLoads = 1200*time.Millisecond, 2
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, o)
	invalidate := func() {
		receipt, err := a.Invalidate(t.Context(), asidetest.Items.Key("a"))
		require.NoError(t, err)
		require.True(t, receipt.Confirmed)
	}
	before, others := asidetest.NewHeld(), asidetest.NewHeld()
	first := asidetest.Background(t, b, asidetest.Items.Key("a"), before.Load("older"))
	<-before.Began
	other := asidetest.Background(t, b, asidetest.Items.Key("b"), others.Load("v"))
	<-others.Began
	another := asidetest.Background(t, b, asidetest.Items.Key("c"), others.Load("v"))
	asidetest.Eventually(t, "it waits for a place", func() bool { return server.MustDo(t, "EXISTS", "{items:c}!l") == int64(1) })
	fills := proxy.HoldRequests(func(args []string) bool { return asidetest.IsFill(args, "items:a") })
	close(before.Release)
	require.Equal(t, "older", <-first)
	<-others.Began
	fills.Wait(t)
	pushes := b.Metrics().InvalidationMessages
	invalidate()
	asidetest.Eventually(t, "it is heard", func() bool { return b.Metrics().InvalidationMessages > pushes })
	doomed, failed := asidetest.NewHeld(), b.Metrics().Labels["items"].RedisErrors
	second := asidetest.Waiting(t, b, asidetest.Items.Key("a"), doomed.Load("old"))
	asidetest.Eventually(t, "it does not wait for Redis any more", func() bool { return b.Metrics().Labels["items"].RedisErrors > failed })
	fills.Release()
	asidetest.AllTold(t, b)
	proxy.Await(t, "the lease is given back", func() bool {
		return slices.ContainsFunc(proxy.Log(), func(args []string) bool { return givesBack(args, "items:a") })
	})
	invalidate()
	asidetest.AllTold(t, b)
	close(others.Release)
	<-doomed.Began
	require.Equal(t, "v", <-other)
	require.Equal(t, "v", <-another)
	require.Equal(t, aside.StateConnected, b.Health().State)
	invalidate()
	confirmed := time.Now()
	asidetest.Eventually(t, "it took longer than any bound there is", func() bool { return time.Since(confirmed) > 4*time.Second })
	require.Equal(t, aside.StateConnected, b.Health().State)
	later := asidetest.Waiting(t, b, asidetest.Items.Key("a"), asidetest.Value("new"))
	close(doomed.Release)
	require.Equal(t, "old", <-second)
	require.Equal(t, "new", <-later, "it came after the invalidation was confirmed")
}

// What is loaded without a lease, while Redis is there, is kept though Redis does not tell of changes of a tag that the loader
// has named. It is served as stale when Redis is away for other reasons, later.
func TestWhatALoaderTagsIsNotKeptWithoutALeaseWhileRedisIsThere(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(proxy.Addr()))
	server.MustDo(t, "CONFIG", "SET", "maxmemory", "1")
	load := func(v string) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) {
			aside.CurrentLoad(ctx).Tag("late")
			return v, nil
		}
	}
	require.Equal(t, "old", <-asidetest.Background(t, b, asidetest.Items.Key("a"), load("old")))
	receipt, err := a.InvalidateTags(t.Context(), "late")
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	asidetest.AllTold(t, b)
	require.Equal(t, aside.StateConnected, b.Health().State)
	proxy.Refuse(true)
	proxy.CloseConnections()
	asidetest.Eventually(t, "Redis is away", func() bool { return b.Health().State == aside.StateDegraded })
	r, err := aside.Lookup(t.Context(), b, asidetest.Items.Key("a"), load("new"))
	require.NoError(t, err)
	require.Equal(t, "new", r.Value, "%s: it was invalidated, and that was confirmed, while Redis was there", r.Status)
}

// Redis tells of a tag whose generation is known, while that of another one is not: nobody looks at what it tells.
func TestALoadIsNotJoinedWhenOneOfItsTagsIsInvalidatedAndAnotherIsNotKnown(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Pair(t, server.Addr())
	asidetest.InMemory(t, b, asidetest.Items.Key("other"), asidetest.Value("v"), aside.WithTags("known"))
	server.MustDo(t, "CONFIG", "SET", "maxmemory", "1")
	tags := aside.WithTags("brand new", "known") // in this order: the first has no generation, and is not given one
	doomed := asidetest.NewHeld()
	first := asidetest.Background(t, b, asidetest.Items.Key("a"), doomed.Load("old"), tags)
	<-doomed.Began
	receipt, err := a.InvalidateTags(t.Context(), "known")
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	asidetest.AllTold(t, b)
	later := asidetest.Waiting(t, b, asidetest.Items.Key("a"), asidetest.Value("new"), tags)
	close(doomed.Release)
	require.Equal(t, "old", <-first)
	require.Equal(t, "new", <-later, "it came after the invalidation was confirmed, and b has heard of it")
}

// A value in chunks that the server has no room for is kept in memory, and dropped at once: the lease is given back, which changes
// K where it is missing, and Redis tells the very process that has kept it.
func TestOneLoadDoesForAValueThatTheServerHasNoRoomFor(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.InMemory(t, c, asidetest.Items.Key("other"), asidetest.Value("v"))
	info := server.MustDo(t, "INFO", "memory").(string)
	used, err := strconv.Atoi(regexp.MustCompile(`used_memory:(\d+)`).FindStringSubmatch(info)[1])
	require.NoError(t, err)
	server.MustDo(t, "CONFIG", "SET", "maxmemory", strconv.Itoa(used+3_000_000))
	var loads atomic.Int64
	big := asidetest.Large(8 << 20)
	for range 6 {
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), func(context.Context) ([]byte, error) {
			loads.Add(1)
			return big, nil
		})
		require.NoError(t, err)
		asidetest.Eventually(t, "the lease is given back", func() bool { return server.MustDo(t, "EXISTS", "{items:a}!l") == int64(0) })
		asidetest.AllTold(t, c)
	}
	require.EqualValues(t, 1, loads.Load())
}

// What Redis has not confirmed is sent again tag by tag in one order: the sequence has to come before the tags that it is about. But
// while the node of the first one is away, no other one is sent either, though their nodes are well.
func TestATagIsInvalidatedThoughTheNodeOfAnotherOneIsAway(t *testing.T) {
	t.Parallel()
	for name, both := range map[string]bool{"alone": false, "beside another one": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := redistest.StartCluster(t, "--cluster-require-full-coverage", "no")
			lost := cluster.NodeOf("%c:a")
			well := ""
			for i := 0; well == ""; i++ {
				if category := asidetest.LanePolicy(i).Category; cluster.NodeOf("%c:"+category) != lost {
					well = category
				}
			}
			policy := aside.Policy{Name: "well", Category: well, TTL: time.Hour}
			key := policy.Key(0)
			for i := 1; cluster.NodeOf(key.String()) == lost; i++ {
				key = policy.Key(i)
			}
			o := asidetest.InClusterOf(cluster)
			o.OpTimeout = 200 * time.Millisecond
			a := asidetest.Connected(t, o)
			_, err := aside.GetOrLoad(t.Context(), a, key, asidetest.Value("old"))
			require.NoError(t, err)
			cluster.ReplicaOf(lost).Kill()
			lost.Kill()
			if both {
				receipt, err := a.InvalidateCategory(t.Context(), "a")
				require.NoError(t, err)
				require.False(t, receipt.Confirmed)
			}
			node := cluster.NodeOf("%c:" + well)
			node.Pause()
			receipt, err := a.InvalidateCategory(t.Context(), well)
			node.Resume()
			require.NoError(t, err)
			require.False(t, receipt.Confirmed)
			ctx, cancel := context.WithTimeout(t.Context(), asidetest.Bound)
			defer cancel()
			require.NoError(t, receipt.Wait(ctx), "the node of this tag is there")
		})
	}
}

// Who joins a load may get a value with a tag that only its loader has named. That such a tag was invalidated is told by the sequence
// of all of them; nobody looks at whether this process is told of the sequence.
func TestALoadIsNotJoinedForLongWhereNobodyTellsOfTagsThatLoadersName(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	lost := cluster.NodeOf("items:a")
	for _, node := range cluster.Primaries() {
		if node != cluster.NodeOf("%all") && node != cluster.NodeOf("%c:items") && node != cluster.NodeOf("items:a") {
			lost = node
		}
	}
	require.NotEqual(t, lost, cluster.NodeOf("items:a"), "there is a node that has neither the key nor one of its tags")
	if cluster.NodeOf("%tags") != lost {
		cluster.MigrateSlot(redistest.Slot("%tags"), lost)
	}
	proxy := cluster.Proxy(lost)
	o := asidetest.InClusterOf(cluster)
	o.DegradedTTL = -1
	var cut atomic.Bool
	o.Redis.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
		if addr == lost.Addr() && cut.Load() { // as where nobody answers
			return nil, errors.New("no route to host")
		}
		return d.DialContext(ctx, "tcp", cluster.Via(addr))
	}
	a, b := asidetest.Connected(t, asidetest.InClusterOf(cluster)), asidetest.Connected(t, o)
	asidetest.InMemory(t, b, asidetest.Items.Key("a"), asidetest.Value("v"))
	_, err := b.Invalidate(t.Context(), asidetest.Items.Key("a"))
	require.NoError(t, err)
	cut.Store(true)
	proxy.CloseConnections()
	asidetest.Eventually(t, "the node is away, for b", func() bool { return b.Health().State == aside.StateDegraded })
	late := func(load func(context.Context) (string, error)) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) {
			aside.CurrentLoad(ctx).Tag("late")
			return load(ctx)
		}
	}
	doomed := asidetest.NewHeld()
	first := asidetest.Background(t, b, asidetest.Items.Key("a"), late(doomed.Load("old")))
	<-doomed.Began
	receipt, err := a.InvalidateTags(t.Context(), "late")
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	confirmed := time.Now()
	asidetest.Eventually(t, "it took longer than it may take to notice", func() bool { return time.Since(confirmed) > 4*time.Second })
	later := asidetest.Waiting(t, b, asidetest.Items.Key("a"), late(asidetest.Value("new")))
	close(doomed.Release)
	require.Equal(t, "old", <-first)
	require.Equal(t, "new", <-later, "it came long after the invalidation was confirmed")
}

// Redis answers, and does not let this process read some keys, or one of their tags. Nothing that is loaded is kept, and nobody shares a
// load for longer than a second.
func TestCallersShareLoadsOfKeysThatRedisDoesNotLetThemRead(t *testing.T) {
	t.Parallel()
	for name, keys := range map[string][]string{
		"the key": {"~%*", "~{*", "~others:*"},
		"a tag":   {"~items:*", "~{*", "~%tags", "~%all", "~%probe*", "~%watch*", "~%{*", "~%mark*", "~%c:others", "~others:*"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			server.MayDeny()
			server.MustDo(t, append([]string{"ACL", "SETUSER", "some", "on", ">a-long-password", "+@all", "resetkeys", "&*"}, keys...)...)
			o := asidetest.Anonymously(server.Addr())
			o.Redis.Username, o.Redis.Password = "some", "a-long-password"
			c := asidetest.Connected(t, o)
			_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("v")) // the first refusal has the client looked at
			require.NoError(t, err)
			asidetest.Eventually(t, "it is in use", func() bool {
				r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key("b"), asidetest.Value("v"))
				return err == nil && r.Reason != "redis is unavailable" && c.Health().State == aside.StateConnected
			})
			n := 0
			asidetest.Repeatedly(t, "all who come within a second of each other share a load", func() bool {
				n++
				key, load := asidetest.Items.Key("c", n), asidetest.NewHeld()
				got := []<-chan string{asidetest.Background(t, c, key, load.Load("v"))}
				<-load.Began
				for range 40 {
					got = append(got, asidetest.Waiting(t, c, key, load.Load("v")))
				}
				loads := load.Loads.Load()
				close(load.Release)
				for _, v := range got {
					require.Equal(t, "v", <-v)
				}
				return loads == 1 && load.Loads.Load() == 1
			})
		})
	}
}
