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

func erased(t *testing.T, c *aside.Cache, text string) aside.Receipt {
	t.Helper()
	p, err := aside.ParsePattern(text)
	require.NoError(t, err)
	r, err := c.InvalidatePattern(t.Context(), p)
	require.NoError(t, err)
	return r
}

// alone is a policy of memory alone whose erasure tag is at a node that has none of its other tags, and a key that is not there either.
func alone(t *testing.T, cluster *redistest.Cluster) (p aside.Policy, key aside.Key, node *redistest.Server) {
	t.Helper()
	for i := range 10000 {
		p = *asidetest.LanePolicy(i)
		p.Place = aside.PlaceMemory
		node = cluster.NodeOf("%e:" + p.Category)
		if node == cluster.NodeOf("%all") || node == cluster.NodeOf("%c:"+p.Category) || node == cluster.NodeOf("%tags") {
			continue
		}
		for j := range 100 {
			if key = p.Key("k", j); cluster.NodeOf(key.String()) != node {
				return p, key, node
			}
		}
	}
	t.Fatal("no such policy")
	return p, key, node
}

// Hazard 70, of values of memory alone.
func TestTheLossOfAnErasureTagsNodeIsNoWaveOfLoads(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, "--cluster-require-full-coverage", "no")
	c := asidetest.Connected(t, asidetest.InClusterOf(cluster))
	_, key, lost := alone(t, cluster)
	require.Equal(t, "v", asidetest.InMemory(t, c, key, asidetest.Value("v")))
	cluster.ReplicaOf(lost).Kill()
	lost.Kill()
	var loads atomic.Int64
	stale := 0
	for began := time.Now(); time.Since(began) < 4*time.Second || stale == 0 && time.Since(began) < asidetest.Bound; {
		r, err := aside.Lookup(t.Context(), c, key, func(context.Context) (string, error) {
			loads.Add(1)
			return "v", nil
		})
		require.NoError(t, err)
		if r.Status == aside.StatusStale {
			stale++
		}
	}
	t.Log("loads", loads.Load(), "stale", stale)
	require.NotZero(t, stale, "the node was missed")
	require.LessOrEqual(t, loads.Load(), int64(3))
	erased(t, c, key.String())
	require.Equal(t, "new", <-asidetest.Background(t, c, key, asidetest.Value("new")))
}

// While the slot of an erasure tag moves, callers still share loads.
func TestCallersShareLoadsOfPlaceMemoryWhileTheSlotOfTheErasureTagMoves(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	c := asidetest.Connected(t, asidetest.InClusterOf(cluster))
	p, key, from := alone(t, cluster)
	require.Equal(t, "v", asidetest.InMemory(t, c, key, asidetest.Value("v")))
	to := cluster.NodeOf("%all")
	if to == from {
		t.Fatal("same")
	}
	m := cluster.BeginMigration(redistest.Slot("%e:"+p.Category), cluster.NodeOf("%all"))
	defer m.Finish()
	asidetest.Eventually(t, "the process knows", func() bool {
		r, err := aside.Lookup(t.Context(), c, key, asidetest.Value("v"))
		require.NoError(t, err)
		return r.Tier != aside.TierMemory
	})
	n := 0
	asidetest.Repeatedly(t, "all who come within a second of each other share a load", func() bool {
		n++
		cold, load := p.Key("cold", n), asidetest.NewHeld()
		var others asidetest.Source
		got := []<-chan string{asidetest.Background(t, c, cold, load.Load("v"))}
		<-load.Began
		began := time.Now()
		for range 40 {
			got = append(got, asidetest.Waiting(t, c, cold, others.Load("v")))
		}
		within := time.Since(began) < time.Second/2
		close(load.Release)
		for _, g := range got {
			require.Equal(t, "v", <-g)
		}
		return within && others.Loads.Load() == 0
	})
}

// A process may not read the erasure tag, or a tag, of a category: nobody shares a load for longer than a second.
func TestNobodySharesALoadOfPlaceMemoryForLongWhoseTagsCannotBeRead(t *testing.T) {
	t.Parallel()
	for name, keys := range map[string][]string{
		"the erasure tag": {"~memoryalone:*", "~{*", "~%tags", "~%all", "~%probe*", "~%watch*", "~%{*", "~%mark*", "~%c:*"},
		"the category":    {"~memoryalone:*", "~{*", "~%tags", "~%all", "~%probe*", "~%watch*", "~%{*", "~%mark*", "~%e:*"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			server.MayDeny()
			server.MustDo(t, append([]string{"ACL", "SETUSER", "some", "on", ">a-long-password", "+@all", "resetkeys", "&*"}, keys...)...)
			o := asidetest.Anonymously(server.Addr())
			o.Redis.Username, o.Redis.Password = "some", "a-long-password"
			a, b := asidetest.Connected(t, o), asidetest.Connected(t, placed(server))
			_, err := aside.GetOrLoad(t.Context(), a, inMemoryAlone.Key("a"), asidetest.Value("v")) // the first refusal has the client looked at
			require.NoError(t, err)
			asidetest.Eventually(t, "it is in use", func() bool {
				r, err := aside.Lookup(t.Context(), a, inMemoryAlone.Key("b"), asidetest.Value("v"))
				return err == nil && r.Reason != "redis is unavailable" && a.Health().State == aside.StateConnected
			})
			doomed := asidetest.NewHeld()
			first := asidetest.Background(t, a, inMemoryAlone.Key("c"), doomed.Load("old"))
			<-doomed.Began
			if name == "the category" {
				r, err := b.InvalidateCategory(t.Context(), "memoryalone")
				require.NoError(t, err)
				require.True(t, r.Confirmed)
			} else {
				require.True(t, erased(t, b, "memoryalone:*").Confirmed)
			}
			confirmed := time.Now()
			asidetest.Eventually(t, "more than a second is over", func() bool { return time.Since(confirmed) > 2*time.Second })
			later := asidetest.Waiting(t, a, inMemoryAlone.Key("c"), asidetest.Value("new"))
			close(doomed.Release)
			require.Equal(t, "old", <-first)
			require.Equal(t, "new", <-later)
		})
	}
}

// A full server that evicts nothing tells of patterns too, also where there was no erasure tag.
func TestAFullServerTellsOfPatterns(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Connected(t, placed(server)), asidetest.Connected(t, placed(server))
	for round, by := range []func(key aside.Key) bool{
		func(aside.Key) bool { return erased(t, b, "memoryalone:*").Confirmed },
		func(key aside.Key) bool { r, err := b.Invalidate(t.Context(), key); return err == nil && r.Confirmed },
		func(aside.Key) bool { r, err := b.InvalidateTags(t.Context(), "x"); return err == nil && r.Confirmed },
		func(aside.Key) bool {
			r, err := b.InvalidateCategory(t.Context(), "memoryalone")
			return err == nil && r.Confirmed
		},
	} {
		for _, name := range []string{"%e:memoryalone", "%t:x", "%c:memoryalone"} { // of several slots in a cluster
			server.MustDo(t, "DEL", name)
		}
		key := inMemoryAlone.Key(round)
		require.Equal(t, "old", asidetest.InMemory(t, a, key, asidetest.Value("old"), aside.WithTags("x")))
		server.MustDo(t, "CONFIG", "SET", "maxmemory", "1")
		confirmed := by(key)
		t.Log(round, confirmed)
		if confirmed {
			asidetest.Eventually(t, fmt.Sprint("it is told of ", round), func() bool {
				r, err := aside.Lookup(t.Context(), a, key, asidetest.Value("new"), aside.WithTags("x"))
				require.NoError(t, err)
				return r.Value == "new"
			})
		}
		server.MustDo(t, "CONFIG", "SET", "maxmemory", "0")
	}
}

// Where the server does not push, the announcement of a pattern keeps later callers from joining.
func TestAnAnnouncedPatternOvertakesLoadsOfPlaceMemory(t *testing.T) {
	t.Parallel()
	server := asidetest.StartUntracked(t)
	a, b := asidetest.Connected(t, asidetest.Anonymously(server.Addr())), asidetest.Connected(t, asidetest.Anonymously(server.Addr()))
	for round := range 10 {
		key := inMemoryAlone.Key("round", round)
		doomed := asidetest.NewHeld()
		first := asidetest.Background(t, a, key, doomed.Load("old"))
		<-doomed.Began
		before := a.Metrics().InvalidationMessages
		require.True(t, erased(t, b, "memoryalone:*").Confirmed)
		asidetest.Eventually(t, "the announcements have come", func() bool { return a.Metrics().InvalidationMessages >= before+2 })
		second := asidetest.Background(t, a, key, asidetest.Value("new"))
		select {
		case got := <-second:
			require.Equal(t, "new", got)
		case <-time.After(asidetest.Bound):
			t.Error("joined")
		}
		close(doomed.Release)
		require.Equal(t, "old", <-first)
		v, err := aside.GetOrLoad(t.Context(), a, key, asidetest.Value("newer"))
		require.NoError(t, err)
		require.NotEqual(t, "old", v)
	}
}

// A load whose loader names tags is joined by nobody who came after one of them was invalidated, also now that the sequence is none of its tags.
func TestNobodyJoinsALoadOfPlaceMemoryWhoseLateTagWasInvalidated(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Connected(t, placed(server)), asidetest.Connected(t, placed(server))
	for round := range 10 {
		key := inMemoryAlone.Key("late", round)
		doomed := asidetest.NewHeld()
		late := func(load func(context.Context) (string, error)) func(context.Context) (string, error) {
			return func(ctx context.Context) (string, error) {
				aside.CurrentLoad(ctx).Tag("late")
				return load(ctx)
			}
		}
		first := asidetest.Background(t, a, key, late(doomed.Load("old")))
		<-doomed.Began
		before := a.Metrics().InvalidationMessages
		_, err := b.InvalidateTags(t.Context(), "late")
		require.NoError(t, err)
		asidetest.Eventually(t, "the push has come", func() bool { return a.Metrics().InvalidationMessages > before })
		second := asidetest.Waiting(t, a, key, late(asidetest.Value("new")))
		close(doomed.Release)
		require.Equal(t, "old", <-first)
		require.Equal(t, "new", <-second)
	}
}

// Namespaces, strange categories, and one batch of several categories and places.
func TestPatternsReachBatchesOfSeveralCategoriesAndPlaces(t *testing.T) {
	t.Parallel()
	if asidetest.AsUser {
		t.Skip("the documented user has no keys of these categories")
	}
	server := redistest.Start(t)
	o := placed(server)
	o.Namespace = "space"
	a, b := asidetest.Connected(t, o), asidetest.Connected(t, o)
	var policies []aside.Policy
	for i, category := range []string{"é-1", "a b", "x", "x.y", "z~!", "both"} {
		p := aside.Policy{Name: fmt.Sprint("p", i), Category: category, TTL: time.Hour, Place: aside.PlaceMemory}
		if category == "both" {
			p.Place = aside.PlaceBoth
		}
		policies = append(policies, p)
	}
	ids := make([]int, len(policies))
	for i := range ids {
		ids[i] = i
	}
	get := func(value string) map[int]string {
		got, err := aside.GetOrLoadMany(t.Context(), a, ids, func(id int) aside.Key { return policies[id].Key("k", id) },
			func(_ context.Context, ids []int) (map[int]string, error) {
				m := map[int]string{}
				for _, id := range ids {
					m[id] = value
				}
				return m, nil
			})
		require.NoError(t, err)
		return got
	}
	for round := range 3 {
		for i := range policies {
			old, now := fmt.Sprint("old ", round, i), fmt.Sprint("new ", round, i)
			_, err := a.InvalidateAll(t.Context())
			require.NoError(t, err)
			asidetest.Eventually(t, "all are in memory", func() bool {
				before := get(old)
				for _, v := range before {
					if v != old {
						return false
					}
				}
				n := 0
				for id := range ids {
					r, err := aside.Lookup(t.Context(), a, policies[id].Key("k", id), asidetest.Value(old))
					require.NoError(t, err)
					if r.Tier == aside.TierMemory {
						n++
					}
				}
				return n == len(ids)
			})
			pattern := policies[i].Match("k", aside.Wildcard)
			r, err := b.InvalidatePattern(t.Context(), pattern)
			require.NoError(t, err)
			require.True(t, r.Confirmed)
			asidetest.Eventually(t, "the value has ended", func() bool { return get(now)[i] == now })
			for id, v := range get(now) {
				require.Equal(t, id == i, v == now, "%v %v of %v: %q", round, id, i, v)
			}
		}
	}
}

// What was loaded while Redis was away, and is kept for DegradedTTL, ends with a pattern too of which this process has heard since: another outage must
// not bring it back.
func TestAPatternEndsWhatWasKeptWhileRedisWasAway(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	var cut atomic.Bool
	o := placed(server)
	o.Redis.InitAddress = []string{proxy.Addr()}
	o.Redis.DialCtxFn = asidetest.WhileUncut(&cut)
	o.DegradedTTL = time.Hour
	a, b := asidetest.Connected(t, o), asidetest.Connected(t, placed(server))
	away := func(is bool) {
		want := aside.StateConnected
		if cut.Store(is); is {
			want = aside.StateDegraded
			proxy.CloseConnections()
		}
		asidetest.Eventually(t, "redis comes or goes", func() bool { return a.Health().State == want })
	}
	key, other := inMemoryAlone.Key("away"), inMemoryAlone.Key("other")
	away(true)
	require.Equal(t, "old", <-asidetest.Background(t, a, key, asidetest.Value("old")))
	r, err := aside.Lookup(t.Context(), a, key, asidetest.Value("not this one"))
	require.NoError(t, err)
	require.Equal(t, "old", r.Value)
	away(false)
	require.Equal(t, "v", asidetest.InMemory(t, a, other, asidetest.Value("v")))
	require.True(t, erased(t, b, "memoryalone:*").Confirmed)
	asidetest.Eventually(t, "the push has come", func() bool {
		_, err := aside.Get[string](t.Context(), a, other)
		return err != nil
	})
	away(true)
	require.Equal(t, "new", <-asidetest.Background(t, a, key, asidetest.Value("new")))
}

// A warming loads again what an invalidation has overtaken, by whichever name.
func TestAWarmingLoadsAgainWhatWasOvertakenInMemoryAlone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Connected(t, placed(server)), asidetest.Connected(t, placed(server))
	for name, invalidate := range map[string]func() error{
		"pattern":  func() error { erased(t, b, "memoryalone:*"); return nil },
		"category": func() error { _, err := b.InvalidateCategory(t.Context(), inMemoryAlone.Category); return err },
		"key":      func() error { _, err := b.Invalidate(t.Context(), inMemoryAlone.Key("warm")); return err },
	} {
		for _, there := range []bool{false, true} {
			for _, name := range []string{"%e:memoryalone", "%c:memoryalone"} {
				server.MustDo(t, "DEL", name)
			}
			if there {
				require.NoError(t, invalidate())
			}
			_, err := a.Invalidate(t.Context(), inMemoryAlone.Key("warm"))
			require.NoError(t, err)
			loads := 0
			loader := aside.NewLoader(a, inMemoryAlone, func(context.Context, string) (string, error) {
				if loads++; loads > 1 {
					return "new", nil
				}
				before := a.Metrics().InvalidationMessages
				if err := invalidate(); err != nil {
					return "", err
				}
				asidetest.Eventually(t, "the push has come", func() bool { return a.Metrics().InvalidationMessages > before })
				asidetest.AllTold(t, a)
				return "old", nil
			})
			w, err := loader.Warm(t.Context(), func(yield func(string) bool) { yield("warm") }, aside.Warming{})
			require.NoError(t, err)
			require.Equal(t, 2, loads, "%s %v %+v", name, there, w)
			v, err := aside.Get[string](t.Context(), a, inMemoryAlone.Key("warm"))
			require.NoError(t, err)
			require.Equal(t, "new", v)
		}
	}
}

// A pattern that is made while Redis is away for its process is sent again, and then ends the values of other processes, and what its own process has
// loaded by the place of a call and kept meanwhile.
func TestAPatternThatIsSentAgainEndsValuesOfPlaceMemory(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	var cut atomic.Bool
	o := placed(server)
	o.Redis.InitAddress = []string{proxy.Addr()}
	o.Redis.DialCtxFn = asidetest.WhileUncut(&cut)
	a, b := asidetest.Connected(t, placed(server)), asidetest.Connected(t, o)
	both := aside.Policy{Name: "both", Category: "memoryalone", TTL: time.Hour}
	keep := aside.KeepIn(aside.PlaceMemory)
	for round := range 3 {
		key := both.Key("resent", round)
		require.Equal(t, "old", asidetest.InMemory(t, a, key, asidetest.Value("old"), keep))
		require.Equal(t, "old", asidetest.InMemory(t, b, key, asidetest.Value("old"), keep))
		cut.Store(true)
		proxy.CloseConnections()
		asidetest.Eventually(t, "redis is away", func() bool { return b.Health().State == aside.StateDegraded })
		r := erased(t, b, "memoryalone:resent:*")
		require.False(t, r.Confirmed)
		require.Equal(t, "new", <-asidetest.Background(t, b, key, asidetest.Value("new"), keep))
		cut.Store(false)
		ctx, cancel := context.WithTimeout(t.Context(), asidetest.Bound)
		require.NoError(t, r.Wait(ctx))
		cancel()
		require.NoError(t, a.Ready(t.Context()))
		asidetest.Eventually(t, "the other process follows", func() bool {
			v, err := aside.GetOrLoad(t.Context(), a, key, asidetest.Value("new"), keep)
			require.NoError(t, err)
			return v == "new"
		})
		require.Equal(t, "new", <-asidetest.Background(t, b, key, asidetest.Value("new"), keep))
	}
}
