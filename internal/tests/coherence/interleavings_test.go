package coherence_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// Hazard 3: the holder of a lease has to hear that it was taken away, though its key is missing in Redis all the while.
func TestNobodyJoinsALoadThatAnotherProcessHasInvalidated(t *testing.T) {
	t.Parallel()
	for name, invalidate := range map[string]func(c *aside.Cache) (aside.Receipt, error){
		"key": func(c *aside.Cache) (aside.Receipt, error) {
			return c.Invalidate(t.Context(), asidetest.Items.Key("a"))
		},
		"category": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateCategory(t.Context(), "items") },
		"tag":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateTags(t.Context(), "x") },
		"all":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateAll(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := asidetest.Pair(t, redistest.Start(t).Addr())
			asidetest.InMemory(t, a, asidetest.Items.Key("other"), asidetest.Value("v"), aside.WithTags("x")) // a knows its tags
			doomed := asidetest.NewHeld()
			first := asidetest.Background(t, a, asidetest.Items.Key("a"), doomed.Load("old"), aside.WithTags("x"))
			<-doomed.Began
			own := asidetest.Pushes(t, a) // of its lease
			receipt, err := invalidate(b)
			require.NoError(t, err)
			require.True(t, receipt.Confirmed)
			// Who comes before the push is in joins the old load; who comes after it does not.
			fresh := asidetest.NewHeld()
			close(fresh.Release)
			var got []<-chan string
			asidetest.Eventually(t, "somebody loads anew, or waits for the lease to", func() bool {
				got = append(got, asidetest.Background(t, a, asidetest.Items.Key("a"), fresh.Load("new"), aside.WithTags("x")))
				return fresh.Loads.Load() > 0 || name != "key" && a.Metrics().InvalidationMessages > own
			})
			if name != "key" { // the lease of the old load stands, but what it fills is out of date
				close(doomed.Release)
				require.Equal(t, "old", <-first)
				asidetest.Eventually(t, "a new load follows", func() bool {
					v, err := aside.GetOrLoad(t.Context(), a, asidetest.Items.Key("a"), fresh.Load("new"), aside.WithTags("x"), aside.Strong())
					require.NoError(t, err)
					return v == "new"
				})
				return
			}
			require.Equal(t, "new", <-got[len(got)-1])
			close(doomed.Release)
			require.Equal(t, "old", <-first, "those who were waiting get it")
			asidetest.Eventually(t, "the old fill is refused", func() bool { return asidetest.Refused(a) > 0 })
			require.Equal(t, "new", asidetest.InMemory(t, b, asidetest.Items.Key("a"), asidetest.Value("another")))
		})
	}
}

// Hazard 4: renewals wake nobody, and hazard 21: a push for what nobody asked does no harm.
func TestRenewingALeasePushesNothing(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := asidetest.Watch(t, server)
	o := asidetest.At(server.Addr())
	o.LeaseTTL = 750 * time.Millisecond
	a := asidetest.Connected(t, o)
	for round := 0; ; round++ { // until no lease has ended of itself, for want of a renewal in time
		key := asidetest.Items.Key(round)
		lease := func() any { return server.MustDo(t, "GET", "{"+key.String()+"}!l") }
		load := asidetest.NewHeld()
		first := asidetest.Background(t, a, key, load.Load("v"))
		<-load.Began
		held := lease()
		waiting := asidetest.Background(t, w.Cache, key, load.Load("v"))
		w.Proxy.Await(t, "the other process waits", func() bool {
			return slices.ContainsFunc(w.Asked("EVALSHA"), func(args []string) bool { return args[2] == key.String() })
		})
		asidetest.AllTold(t, w.Cache)
		pushes := w.Metrics().InvalidationMessages
		renewed := asidetest.Commands(t, server, "pexpire")
		asidetest.Eventually(t, "the lease is renewed", func() bool { return asidetest.Commands(t, server, "pexpire") > renewed+5 })
		now := w.Metrics().InvalidationMessages
		stood := held != nil && held == lease()
		close(load.Release)
		require.Equal(t, "v", <-first)
		require.Equal(t, "v", <-waiting)
		if stood {
			require.Equal(t, pushes, now)
			require.EqualValues(t, 1, load.Loads.Load())
			return
		}
		require.Less(t, round, 100, "no lease has stood")
	}
}

// Hazard 5.
func TestAServerThatForgetsItsScriptsStillTellsOfChanges(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Pair(t, server.Addr())
	for i := range 20 {
		server.MustDo(t, "SCRIPT", "FLUSH")
		asidetest.InMemory(t, a, asidetest.Items.Key(i), asidetest.Value("old"))
		server.MustDo(t, "SCRIPT", "FLUSH")
		_, err := b.Invalidate(t.Context(), asidetest.Items.Key(i))
		require.NoError(t, err)
		asidetest.Eventually(t, "the other follows", func() bool {
			v, err := aside.GetOrLoad(t.Context(), a, asidetest.Items.Key(i), asidetest.Value("new"))
			require.NoError(t, err)
			return v == "new"
		})
	}
}

// Hazard 9: the loader has read the source, a tag is invalidated, and then the loader says that it has that tag.
func TestAnInvalidationBeatsALoadThatNamesItsTagTooLate(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		late := func(h *asidetest.HeldLoad, v string) func(context.Context) (string, error) {
			return func(ctx context.Context) (string, error) {
				v, err := h.Load(v)(ctx)
				aside.CurrentLoad(ctx).Tag("x")
				return v, err
			}
		}
		asidetest.InMemory(t, c, asidetest.Items.Key("warm"), asidetest.Value("v")) // so that the sequence of all tags is known
		old := asidetest.NewHeld()
		first := asidetest.Background(t, c, asidetest.Items.Key("a"), late(old, "old"))
		<-old.Began
		_, err := c.InvalidateTags(t.Context(), "x")
		require.NoError(t, err)
		fresh := asidetest.NewHeld()
		close(fresh.Release)
		joined := asidetest.Background(t, c, asidetest.Items.Key("a"), late(fresh, "new"))
		close(old.Release)
		require.Equal(t, "old", <-first)
		require.Equal(t, "new", <-joined, "who came after the invalidation must not get it")
		asidetest.Eventually(t, "it is refused", func() bool { return asidetest.Refused(c) > 0 })
		require.Equal(t, "new", asidetest.InMemory(t, c, asidetest.Items.Key("a"), late(fresh, "new")))
	})
}

// Hazard 9: nor does who has joined the load without knowing that it has the tag.
func TestWhoCameAfterATagWasInvalidatedTakesNoLoadThatNamesItTooLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := aside.New(aside.Options{Logger: asidetest.Quiet()})
		require.NoError(t, err)
		defer c.Close()
		var loads atomic.Int64
		load := func(ctx context.Context) (int, error) {
			v := int(loads.Add(1))
			time.Sleep(time.Second)
			aside.CurrentLoad(ctx).Tag("x")
			return v, nil
		}
		got := make(chan int, 3)
		ask := func() {
			v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), load)
			if err != nil {
				t.Error(err)
			}
			got <- v
		}
		many := func() {
			values, err := aside.GetOrLoadMany(t.Context(), c, []string{"a"}, func(id string) aside.Key { return asidetest.Items.Key(id) },
				func(context.Context, []string) (map[string]int, error) { return map[string]int{"a": 2}, nil })
			if err != nil {
				t.Error(err)
			}
			got <- values["a"]
		}
		go ask()
		synctest.Wait()
		_, err = c.InvalidateTags(t.Context(), "x")
		require.NoError(t, err)
		go ask()
		go many()
		synctest.Wait()
		require.EqualValues(t, 1, loads.Load(), "they have joined: nobody knows of the tag yet")
		require.ElementsMatch(t, []int{1, 2, 2}, []int{<-got, <-got, <-got})
	})
}

// Hazard 9: who invalidates a tag changes the sequence first, and then the tag.
func TestTheSequenceOfAllTagsChangesBeforeAnyTag(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w, b := asidetest.Watch(t, server), asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.InMemory(t, b, asidetest.Items.Key("warm"), asidetest.Value("v"))
	old := asidetest.NewHeld()
	first := asidetest.Background(t, b, asidetest.Items.Key("a"), func(ctx context.Context) (string, error) {
		v, err := old.Load("old")(ctx)
		aside.CurrentLoad(ctx).Tag("x")
		return v, err
	})
	<-old.Began
	n := 0
	second := w.Proxy.HoldRequests(func(args []string) bool { // the second of the two
		if args[0] != "EVALSHA" || !strings.HasPrefix(args[3], "%t") {
			return false
		}
		n++
		return n == 2
	})
	before := asidetest.Commands(t, server, "evalsha")
	done := make(chan error, 1)
	go func() { _, err := w.InvalidateTags(t.Context(), "x"); done <- err }()
	second.Wait(t)
	asidetest.Eventually(t, "the first has been carried out", func() bool { return asidetest.Commands(t, server, "evalsha") > before })
	close(old.Release)
	require.Equal(t, "old", <-first)
	asidetest.Eventually(t, "it is refused, or stored", func() bool {
		return asidetest.Refused(b) > 0 || server.MustDo(t, "EXISTS", "items:a") == int64(1)
	})
	second.Release()
	require.NoError(t, <-done)
	v, err := aside.GetOrLoad(t.Context(), b, asidetest.Items.Key("a"), asidetest.Value("new"), aside.Strong())
	require.NoError(t, err)
	require.Equal(t, "new", v)
}

// Hazard 11: the fill of a Set that was held up on its way runs after an invalidation that came later.
func TestASetThatArrivesAfterALaterInvalidationIsRefused(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	a, b := asidetest.Connected(t, asidetest.At(proxy.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	n := 0
	fill := proxy.HoldRequests(func(args []string) bool {
		if len(args) > 3 && args[0] == "EVALSHA" && args[3] == "items:a" {
			n++ // the lease comes first
		}
		return n == 2
	})
	set := make(chan error, 1)
	go func() { set <- aside.Set(t.Context(), a, asidetest.Items.Key("a"), "old") }()
	fill.Wait(t)
	receipt, err := b.Invalidate(t.Context(), asidetest.Items.Key("a"))
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	fill.Release()
	require.NoError(t, <-set)
	require.NoError(t, a.Close())
	require.Zero(t, server.MustDo(t, "EXISTS", "items:a"))
}

// Hazard 13.
func TestARefreshIsStoredThoughItsKeyWasEvictedMeanwhile(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.Stored(t, c, asidetest.Items.Key("a"), "old")
	v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), func(context.Context) (string, error) {
		server.MustDo(t, "DEL", "items:a")
		return "new", nil
	}, aside.Refresh())
	require.NoError(t, err)
	require.Equal(t, "new", v)
	asidetest.Eventually(t, "it is stored", func() bool { return server.MustDo(t, "EXISTS", "items:a") == int64(1) })
	require.Zero(t, asidetest.Refused(c))
}

// Hazard 15: with every push lost, memory is out of date, and Strong is not.
func TestStrongNeedsNoPush(t *testing.T) {
	t.Parallel()
	for name, invalidate := range map[string]func(c *aside.Cache) (aside.Receipt, error){
		"key": func(c *aside.Cache) (aside.Receipt, error) {
			return c.Invalidate(t.Context(), asidetest.Items.Key("a"))
		},
		"category": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateCategory(t.Context(), "items") },
		"tag":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateTags(t.Context(), "x") },
		"late tag": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateTags(t.Context(), "late") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			w, b := asidetest.Watch(t, server), asidetest.Connected(t, asidetest.At(server.Addr()))
			ask := func(v string, opts ...aside.CallOption) string {
				got, err := aside.GetOrLoad(t.Context(), w.Cache, asidetest.Items.Key("a"), func(ctx context.Context) (string, error) {
					aside.CurrentLoad(ctx).Tag("late")
					return v, nil
				}, append(opts, aside.WithTags("x"))...)
				require.NoError(t, err)
				return got
			}
			require.Equal(t, "old", ask("old"))
			asidetest.Eventually(t, "it is in memory", func() bool {
				r, err := aside.Lookup(t.Context(), w.Cache, asidetest.Items.Key("a"), asidetest.Value("old"), aside.WithTags("x"))
				require.NoError(t, err)
				return r.Tier == aside.TierMemory
			})
			w.Proxy.DropPushes(nil)
			receipt, err := invalidate(b)
			require.NoError(t, err)
			require.True(t, receipt.Confirmed)
			w.Proxy.Await(t, "the push is lost", func() bool { return w.Proxy.DroppedPushes() > 0 })
			require.Equal(t, "old", ask("new"), "nobody has told this process")
			require.Equal(t, "new", ask("new", aside.Strong()))
		})
	}
}

func TestStrongJoinsNoLoadThatBeganBeforeIt(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	old := asidetest.NewHeld()
	first := asidetest.Background(t, c, asidetest.Items.Key("a"), old.Load("old"))
	<-old.Began
	fresh := asidetest.NewHeld()
	strong := asidetest.Background(t, c, asidetest.Items.Key("a"), fresh.Load("new"), aside.Strong())
	<-fresh.Began
	close(fresh.Release)
	require.Equal(t, "new", <-strong)
	close(old.Release)
	require.Equal(t, "old", <-first)
	v, err := aside.Get[string](t.Context(), c, asidetest.Items.Key("a"))
	require.NoError(t, err)
	require.Equal(t, "new", v, "the load that began later stays")
}

// Hazard 20: this process invalidates while a reply with the old value is on its way to it. The push is on its way, too.
func TestWhatWasReadBeforeAnInvalidationIsNotKept(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	o := asidetest.At(proxy.Addr())
	o.Redis.PipelineMultiplex = 2 // or the answer to the invalidation would wait for the reply that is held
	o.OpTimeout = time.Second     // what is asked behind the push that is held is not answered in time
	c, b := asidetest.Connected(t, o), asidetest.Connected(t, asidetest.At(server.Addr()))
	held := 0
	began := time.Now()
	patience := 50 * time.Millisecond
	for i := 0; i < 64 || held == 0 && time.Since(began) < 3*asidetest.Bound; i++ { // until the two happen to take different connections
		key := asidetest.Items.Key(i)
		asidetest.Stored(t, b, key, "old")
		asidetest.Eventually(t, "Redis is in use", func() bool { return c.Health().State == aside.StateConnected })
		asidetest.InMemory(t, c, asidetest.Items.Key("warm", i), asidetest.Value("v")) // the tags are known again
		pushes := proxy.HoldPushes(func(push []string) bool { return len(push) > 1 && push[1] == key.String() })
		reply := proxy.HoldReplies(func(args []string) bool { return args[0] == "GETRANGE" && args[1] == key.String() })
		first := asidetest.Background(t, c, key, asidetest.Value("loaded"))
		reply.Wait(t)
		done := make(chan aside.Receipt, 1)
		go func() {
			receipt, err := c.Invalidate(t.Context(), key)
			if err != nil {
				t.Error(err)
			}
			done <- receipt
		}()
		select {
		case <-done:
			held++
			reply.Release()
			if v := <-first; v == "loaded" { // on a busy machine its time was up before
				held--
				break
			} else {
				require.Equal(t, "old", v, "it began before")
			}
			r, err := aside.Lookup(t.Context(), c, key, asidetest.Value("new"))
			require.NoError(t, err)
			require.Equal(t, "new", r.Value, r.Reason)
		case <-time.After(patience): // the same connection, or a busy machine
			patience = min(patience+10*time.Millisecond, o.OpTimeout/2)
			reply.Release()
			<-first
			<-done
		}
		pushes.Release()
		if held == 3 {
			return
		}
	}
	require.NotZero(t, held, "the reply was held while the invalidation was answered")
}

// Hazard 20: a fill is put into memory by what Redis holds when its push can come.
func TestAFillThatIsReplacedAtOnceIsNotKept(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w, b := asidetest.Watch(t, server), asidetest.Connected(t, asidetest.At(server.Addr()))
	head := w.Proxy.HoldRequests(func(args []string) bool { return asidetest.IsHead(args, "items:a") })
	v, err := aside.GetOrLoad(t.Context(), w.Cache, asidetest.Items.Key("a"), asidetest.Value("old"))
	require.NoError(t, err)
	require.Equal(t, "old", v)
	head.Wait(t)
	_, err = b.Invalidate(t.Context(), asidetest.Items.Key("a"))
	require.NoError(t, err)
	asidetest.Stored(t, b, asidetest.Items.Key("a"), "new")
	head.Release()
	require.Equal(t, "new", asidetest.InMemory(t, w.Cache, asidetest.Items.Key("a"), asidetest.Value("another")))
}

// Hazard 21.
func TestAFlushDropsWhatIsInMemory(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Pair(t, server.Addr())
	for i, flush := range []string{"FLUSHALL", "FLUSHDB"} {
		for _, c := range []*aside.Cache{a, b} {
			asidetest.InMemory(t, c, asidetest.Items.Key(i), asidetest.Value("old"))
		}
		server.MustDo(t, flush)
		for _, c := range []*aside.Cache{a, b} {
			asidetest.Eventually(t, "it is gone from memory", func() bool {
				v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key(i), asidetest.Value("new"))
				require.NoError(t, err)
				return v == "new"
			})
			asidetest.Eventually(t, "it is counted", func() bool { return c.Metrics().TrackingLost > 0 })
		}
	}
}

// Hazard 21: the server forgets what it was to tell of, and says so.
func TestATrackingTableThatOverflowsCostsHitsAndNothingElse(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--tracking-table-max-keys", "10")
	a, b := asidetest.Pair(t, server.Addr())
	for i := range 100 {
		_, err := aside.GetOrLoad(t.Context(), a, asidetest.Items.Key(i), asidetest.Value("old"))
		require.NoError(t, err)
	}
	asidetest.Eventually(t, "the server says so", func() bool { return a.Metrics().InvalidationMessages > 0 })
	for i := range 100 {
		_, err := b.Invalidate(t.Context(), asidetest.Items.Key(i))
		require.NoError(t, err)
		asidetest.Eventually(t, "the other follows", func() bool {
			v, err := aside.GetOrLoad(t.Context(), a, asidetest.Items.Key(i), asidetest.Value("new"))
			require.NoError(t, err)
			return v == "new"
		})
	}
}

// Hazard 22.
func TestAValueInMemoryEndsWithoutAPush(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := asidetest.Watch(t, server)
	short := aside.WithTTL(300 * time.Millisecond)
	// From the beginning, since the end may come before this test goes on; and no other pushes, since a connection that brings none at all
	// is given up, and what rests on it is not served then.
	w.Proxy.DropPushes(func(push []string) bool { return slices.Contains(push, asidetest.Items.Key("a").String()) })
	began := time.Now()
	asidetest.InMemory(t, w.Cache, asidetest.Items.Key("a"), asidetest.Value("old"), short)
	asidetest.Eventually(t, "it has ended", func() bool {
		v, err := aside.GetOrLoad(t.Context(), w.Cache, asidetest.Items.Key("a"), asidetest.Value("new"), short)
		require.NoError(t, err)
		return v == "new"
	})
	require.GreaterOrEqual(t, time.Since(began), 290*time.Millisecond)
}

// Hazard 23: two loads of one key by one process, with an invalidation in between.
func TestAnOldLoadIsNotStoredOverANewerOneOfTheSameProcess(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		old := asidetest.NewHeld()
		first := asidetest.Background(t, c, asidetest.Items.Key("a"), old.Load("old"))
		<-old.Began
		_, err := c.Invalidate(t.Context(), asidetest.Items.Key("a"))
		require.NoError(t, err)
		fresh := asidetest.NewHeld()
		second := asidetest.Background(t, c, asidetest.Items.Key("a"), fresh.Load("new"))
		<-fresh.Began
		close(old.Release)
		require.Equal(t, "old", <-first)
		asidetest.Eventually(t, "it is refused", func() bool { return asidetest.Refused(c) == 1 })
		close(fresh.Release)
		require.Equal(t, "new", <-second)
		require.Equal(t, "new", asidetest.InMemory(t, c, asidetest.Items.Key("a"), asidetest.Value("another")))
	})
}

// Hazard 25.
func TestALoadThatLostItsLeaseIsNotStoredOverTheNextOne(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Pair(t, server.Addr())
	old := asidetest.NewHeld()
	first := asidetest.Background(t, a, asidetest.Items.Key("a"), old.Load("old"))
	<-old.Began
	server.MustDo(t, "DEL", "{items:a}!l")
	asidetest.Stored(t, b, asidetest.Items.Key("a"), "new")
	close(old.Release)
	require.Equal(t, "old", <-first)
	asidetest.Eventually(t, "it is refused", func() bool { return asidetest.Refused(a) == 1 })
	require.Equal(t, "new", asidetest.InMemory(t, a, asidetest.Items.Key("a"), asidetest.Value("another")))
}

// Promise 3: what a broken connection vouched for is not served any more.
func TestABrokenConnectionVouchesForNothing(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	o := asidetest.At(proxy.Addr())
	o.DegradedTTL = -1
	w, b := asidetest.Watched{Cache: asidetest.Connected(t, o), Proxy: proxy}, asidetest.Connected(t, asidetest.At(server.Addr()))
	for i := range 10 {
		key := asidetest.Items.Key(i)
		asidetest.InMemory(t, w.Cache, key, asidetest.Value("old"))
		gaps := w.Metrics().TrackingLost
		w.Proxy.Refuse(true)
		w.Proxy.CloseConnections()
		_, err := b.Invalidate(t.Context(), key)
		require.NoError(t, err)
		asidetest.Stored(t, b, key, "new")
		asidetest.Eventually(t, "the break is noticed", func() bool { return w.Metrics().TrackingLost > gaps })
		v, err := aside.GetOrLoad(t.Context(), w.Cache, key, asidetest.Value("new"))
		require.NoError(t, err)
		require.Equal(t, "new", v)
		w.Proxy.Refuse(false)
		asidetest.Eventually(t, "it is back", func() bool {
			r, err := aside.Lookup(t.Context(), w.Cache, key, asidetest.Value("new"))
			require.NoError(t, err)
			require.Equal(t, "new", r.Value)
			return r.Status == aside.StatusHit
		})
	}
}

// A generation that is lost makes misses.
func TestALostGenerationIsAMiss(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a := asidetest.Connected(t, asidetest.At(server.Addr()))
	for _, tag := range []string{"%all", "%c:items", "%t:x"} {
		_, err := aside.GetOrLoad(t.Context(), a, asidetest.Items.Key(tag), asidetest.Value("old"), aside.WithTags("x"))
		require.NoError(t, err)
		asidetest.Eventually(t, "it is stored", func() bool { return server.MustDo(t, "EXISTS", asidetest.Items.Key(tag).String()) == int64(1) })
		server.MustDo(t, "DEL", tag)
		b := asidetest.Connected(t, asidetest.At(server.Addr()))
		v, err := aside.GetOrLoad(t.Context(), b, asidetest.Items.Key(tag), asidetest.Value("new"), aside.WithTags("x"))
		require.NoError(t, err)
		require.Equal(t, "new", v, tag)
	}
}

// Hazard 17: a batch has one key, another process the other, and each needs what the other has.
func TestABatchLoadsAndSharesWhatItLeadsBeforeItWaits(t *testing.T) {
	t.Parallel()
	a, b := asidetest.Pair(t, redistest.Start(t).Addr())
	leads, goOn := make(chan struct{}), make(chan struct{})
	second := asidetest.Background(t, b, asidetest.Items.Key(2), func(ctx context.Context) (string, error) {
		close(leads)
		<-goOn
		v, err := aside.GetOrLoad(ctx, b, asidetest.Items.Key(1), asidetest.Value("not this one"))
		return v + " and 2", err
	})
	<-leads
	got, err := aside.GetOrLoadMany(t.Context(), a, []int{1, 2}, asidetest.ItemKey, func(_ context.Context, ids []int) (map[int]string, error) {
		close(goOn)
		if len(ids) != 1 {
			t.Error("the other one is loaded elsewhere", ids)
		}
		return map[int]string{1: "1"}, nil
	})
	require.NoError(t, err)
	require.Equal(t, map[int]string{1: "1", 2: "1 and 2"}, got)
	require.Equal(t, "1 and 2", <-second)
}
