package aside_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// A heldLoad is one that the test lets go.
type heldLoad struct {
	began, release chan struct{}
	loads          atomic.Int64
}

func newHeld() *heldLoad {
	return &heldLoad{began: make(chan struct{}, 100), release: make(chan struct{})}
}

// load returns value once it is released.
func (h *heldLoad) load(value string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		h.loads.Add(1)
		h.began <- struct{}{}
		<-h.release
		return value, nil
	}
}

// background calls GetOrLoad and returns where its value will be.
func background(t *testing.T, c *aside.Cache, key aside.Key, load func(context.Context) (string, error), opts ...aside.CallOption) <-chan string {
	got := make(chan string, 1)
	go func() {
		v, err := aside.GetOrLoad(t.Context(), c, key, load, opts...)
		if err != nil {
			v = err.Error()
		}
		got <- v
	}()
	return got
}

func value(v string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return v, nil }
}

func refused(c *aside.Cache) uint64 { return c.Metrics().Labels["items"].RefusedFills }

// Hazard 3: the holder of a lease has to hear that it was taken away, though its key is missing in Redis all the while.
func TestNobodyJoinsALoadThatAnotherProcessHasInvalidated(t *testing.T) {
	t.Parallel()
	for name, invalidate := range map[string]func(c *aside.Cache) (aside.Receipt, error){
		"key":      func(c *aside.Cache) (aside.Receipt, error) { return c.Invalidate(t.Context(), items.Key("a")) },
		"category": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateCategory(t.Context(), "items") },
		"tag":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateTags(t.Context(), "x") },
		"all":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateAll(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := pair(t, redistest.Start(t).Addr())
			inMemory(t, a, items.Key("other"), value("v"), aside.WithTags("x")) // a knows its tags
			doomed := newHeld()
			first := background(t, a, items.Key("a"), doomed.load("old"), aside.WithTags("x"))
			<-doomed.began
			receipt, err := invalidate(b)
			require.NoError(t, err)
			require.True(t, receipt.Confirmed)
			// Who comes before the push is in joins the old load; who comes after it does not.
			fresh := newHeld()
			close(fresh.release)
			var got []<-chan string
			eventually(t, "somebody loads anew, or waits for the lease to", func() bool {
				got = append(got, background(t, a, items.Key("a"), fresh.load("new"), aside.WithTags("x")))
				return fresh.loads.Load() > 0 || name != "key" && a.Metrics().Pushes > 0
			})
			if name != "key" { // the lease of the old load stands, but what it fills is out of date
				close(doomed.release)
				require.Equal(t, "old", <-first)
				eventually(t, "a new load follows", func() bool {
					v, err := aside.GetOrLoad(t.Context(), a, items.Key("a"), fresh.load("new"), aside.WithTags("x"), aside.Strong())
					require.NoError(t, err)
					return v == "new"
				})
				return
			}
			require.Equal(t, "new", <-got[len(got)-1])
			close(doomed.release)
			require.Equal(t, "old", <-first, "those who were waiting get it")
			eventually(t, "the old fill is refused", func() bool { return refused(a) > 0 })
			require.Equal(t, "new", inMemory(t, b, items.Key("a"), value("another")))
		})
	}
}

// Hazard 4: renewals wake nobody, and hazard 21: a push for what nobody asked does no harm.
func TestRenewingALeasePushesNothing(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := watch(t, server)
	o := at(server.Addr())
	o.LeaseTTL = 100 * time.Millisecond
	a := connected(t, o)
	load := newHeld()
	first := background(t, a, items.Key("a"), load.load("v"))
	<-load.began
	waiting := background(t, w.Cache, items.Key("a"), value("not this one"))
	eventually(t, "the other process waits", func() bool { return len(w.asked("EVALSHA")) > 0 })
	pushes := w.Metrics().Pushes
	renewed := commands(t, server, "pexpire")
	eventually(t, "the lease is renewed", func() bool { return commands(t, server, "pexpire") > renewed+5 })
	require.Equal(t, pushes, w.Metrics().Pushes)
	close(load.release)
	require.Equal(t, "v", <-first)
	require.Equal(t, "v", <-waiting)
}

// Hazard 5.
func TestAServerThatForgetsItsScriptsStillTellsOfChanges(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := pair(t, server.Addr())
	for i := range 20 {
		server.MustDo(t, "SCRIPT", "FLUSH")
		inMemory(t, a, items.Key(i), value("old"))
		server.MustDo(t, "SCRIPT", "FLUSH")
		_, err := b.Invalidate(t.Context(), items.Key(i))
		require.NoError(t, err)
		eventually(t, "the other follows", func() bool {
			v, err := aside.GetOrLoad(t.Context(), a, items.Key(i), value("new"))
			require.NoError(t, err)
			return v == "new"
		})
	}
}

// Hazard 9: the loader has read the source, a tag is invalidated, and then the loader says that it has that tag.
func TestAnInvalidationBeatsALoadThatNamesItsTagTooLate(t *testing.T) {
	t.Parallel()
	everyMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		late := func(h *heldLoad, v string) func(context.Context) (string, error) {
			return func(ctx context.Context) (string, error) {
				v, err := h.load(v)(ctx)
				aside.Loading(ctx).Tag("x")
				return v, err
			}
		}
		inMemory(t, c, items.Key("warm"), value("v")) // so that the sequence of all tags is known
		old := newHeld()
		first := background(t, c, items.Key("a"), late(old, "old"))
		<-old.began
		_, err := c.InvalidateTags(t.Context(), "x")
		require.NoError(t, err)
		fresh := newHeld()
		close(fresh.release)
		joined := background(t, c, items.Key("a"), late(fresh, "new"))
		close(old.release)
		require.Equal(t, "old", <-first)
		require.Equal(t, "new", <-joined, "who came after the invalidation must not get it")
		eventually(t, "it is refused", func() bool { return refused(c) > 0 })
		require.Equal(t, "new", inMemory(t, c, items.Key("a"), late(fresh, "new")))
	})
}

// Hazard 9: nor does who has joined the load without knowing that it has the tag.
func TestWhoCameAfterATagWasInvalidatedTakesNoLoadThatNamesItTooLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := aside.New(aside.Options{Logger: quiet()})
		require.NoError(t, err)
		defer c.Close()
		var loads atomic.Int64
		load := func(ctx context.Context) (int, error) {
			v := int(loads.Add(1))
			time.Sleep(time.Second)
			aside.Loading(ctx).Tag("x")
			return v, nil
		}
		got := make(chan int, 3)
		ask := func() {
			v, err := aside.GetOrLoad(t.Context(), c, items.Key("a"), load)
			if err != nil {
				t.Error(err)
			}
			got <- v
		}
		many := func() {
			values, err := aside.GetOrLoadMany(t.Context(), c, []string{"a"}, func(id string) aside.Key { return items.Key(id) },
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
	w, b := watch(t, server), connected(t, at(server.Addr()))
	inMemory(t, b, items.Key("warm"), value("v"))
	old := newHeld()
	first := background(t, b, items.Key("a"), func(ctx context.Context) (string, error) {
		v, err := old.load("old")(ctx)
		aside.Loading(ctx).Tag("x")
		return v, err
	})
	<-old.began
	n := 0
	second := w.proxy.HoldRequests(func(args []string) bool { // the second of the two
		if args[0] != "EVALSHA" || !strings.HasPrefix(args[3], "%t") {
			return false
		}
		n++
		return n == 2
	})
	before := commands(t, server, "evalsha")
	done := make(chan error, 1)
	go func() { _, err := w.InvalidateTags(t.Context(), "x"); done <- err }()
	second.Wait(t)
	eventually(t, "the first has been carried out", func() bool { return commands(t, server, "evalsha") > before })
	close(old.release)
	require.Equal(t, "old", <-first)
	eventually(t, "it is refused, or stored", func() bool {
		return refused(b) > 0 || server.MustDo(t, "EXISTS", "items:a") == int64(1)
	})
	second.Release()
	require.NoError(t, <-done)
	v, err := aside.GetOrLoad(t.Context(), b, items.Key("a"), value("new"), aside.Strong())
	require.NoError(t, err)
	require.Equal(t, "new", v)
}

// Hazard 11: the fill of a Set that was held up on its way runs after an invalidation that came later.
func TestASetThatArrivesAfterALaterInvalidationIsRefused(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	o := at(proxy.Addr())
	o.OpTimeout = 100 * time.Millisecond
	a, b := connected(t, o), connected(t, at(server.Addr()))
	n := 0
	fill := proxy.HoldRequests(func(args []string) bool {
		if len(args) > 3 && args[0] == "EVALSHA" && args[3] == "items:a" {
			n++ // the lease comes first
		}
		return n == 2
	})
	set := make(chan error, 1)
	go func() { set <- aside.Set(t.Context(), a, items.Key("a"), "old") }()
	fill.Wait(t)
	receipt, err := b.Invalidate(t.Context(), items.Key("a"))
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
	c := connected(t, at(server.Addr()))
	stored(t, c, items.Key("a"), "old")
	v, err := aside.GetOrLoad(t.Context(), c, items.Key("a"), func(context.Context) (string, error) {
		server.MustDo(t, "DEL", "items:a")
		return "new", nil
	}, aside.Refresh())
	require.NoError(t, err)
	require.Equal(t, "new", v)
	eventually(t, "it is stored", func() bool { return server.MustDo(t, "EXISTS", "items:a") == int64(1) })
	require.Zero(t, refused(c))
}

// Hazard 15: with every push lost, memory is out of date, and Strong is not.
func TestStrongNeedsNoPush(t *testing.T) {
	t.Parallel()
	for name, invalidate := range map[string]func(c *aside.Cache) (aside.Receipt, error){
		"key":      func(c *aside.Cache) (aside.Receipt, error) { return c.Invalidate(t.Context(), items.Key("a")) },
		"category": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateCategory(t.Context(), "items") },
		"tag":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateTags(t.Context(), "x") },
		"late tag": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateTags(t.Context(), "late") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			w, b := watch(t, server), connected(t, at(server.Addr()))
			ask := func(v string, opts ...aside.CallOption) string {
				got, err := aside.GetOrLoad(t.Context(), w.Cache, items.Key("a"), func(ctx context.Context) (string, error) {
					aside.Loading(ctx).Tag("late")
					return v, nil
				}, append(opts, aside.WithTags("x"))...)
				require.NoError(t, err)
				return got
			}
			require.Equal(t, "old", ask("old"))
			eventually(t, "it is in memory", func() bool {
				r, err := aside.Lookup(t.Context(), w.Cache, items.Key("a"), value("old"), aside.WithTags("x"))
				require.NoError(t, err)
				return r.Tier == aside.TierMemory
			})
			w.proxy.DropPushes(nil)
			receipt, err := invalidate(b)
			require.NoError(t, err)
			require.True(t, receipt.Confirmed)
			w.proxy.Await(t, "the push is lost", func() bool { return w.proxy.DroppedPushes() > 0 })
			require.Equal(t, "old", ask("new"), "nobody has told this process")
			require.Equal(t, "new", ask("new", aside.Strong()))
		})
	}
}

func TestStrongJoinsNoLoadThatBeganBeforeIt(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	old := newHeld()
	first := background(t, c, items.Key("a"), old.load("old"))
	<-old.began
	fresh := newHeld()
	strong := background(t, c, items.Key("a"), fresh.load("new"), aside.Strong())
	<-fresh.began
	close(fresh.release)
	require.Equal(t, "new", <-strong)
	close(old.release)
	require.Equal(t, "old", <-first)
	v, err := aside.Get[string](t.Context(), c, items.Key("a"))
	require.NoError(t, err)
	require.Equal(t, "new", v, "the load that began later stays")
}

// Hazard 20: this process invalidates while a reply with the old value is on its way to it. The push is on its way, too.
func TestWhatWasReadBeforeAnInvalidationIsNotKept(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	o := at(proxy.Addr())
	o.Redis.PipelineMultiplex = 2 // or the answer to the invalidation would wait for the reply that is held
	o.OpTimeout = time.Second     // what is asked behind the push that is held is not answered in time
	c, b := connected(t, o), connected(t, at(server.Addr()))
	held := 0
	for i := range 64 { // until the two happen to take different connections
		key := items.Key(i)
		stored(t, b, key, "old")
		eventually(t, "Redis is in use", func() bool { return c.Health().State == aside.StateConnected })
		inMemory(t, c, items.Key("warm", i), value("v")) // the tags are known again
		pushes := proxy.HoldPushes(func(push []string) bool { return len(push) > 1 && push[1] == key.String() })
		reply := proxy.HoldReplies(func(args []string) bool { return args[0] == "GETRANGE" && args[1] == key.String() })
		first := background(t, c, key, value("loaded"))
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
			require.Equal(t, "old", <-first, "it began before")
			r, err := aside.Lookup(t.Context(), c, key, value("new"))
			require.NoError(t, err)
			require.Equal(t, "new", r.Value, r.Reason)
		case <-time.After(50 * time.Millisecond): // the same connection
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
	w, b := watch(t, server), connected(t, at(server.Addr()))
	head := w.proxy.HoldRequests(func(args []string) bool { return isHead(args, "items:a") })
	v, err := aside.GetOrLoad(t.Context(), w.Cache, items.Key("a"), value("old"))
	require.NoError(t, err)
	require.Equal(t, "old", v)
	head.Wait(t)
	_, err = b.Invalidate(t.Context(), items.Key("a"))
	require.NoError(t, err)
	stored(t, b, items.Key("a"), "new")
	head.Release()
	require.Equal(t, "new", inMemory(t, w.Cache, items.Key("a"), value("another")))
}

// Hazard 21.
func TestAFlushDropsWhatIsInMemory(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := pair(t, server.Addr())
	for i, flush := range []string{"FLUSHALL", "FLUSHDB"} {
		for _, c := range []*aside.Cache{a, b} {
			inMemory(t, c, items.Key(i), value("old"))
		}
		server.MustDo(t, flush)
		for _, c := range []*aside.Cache{a, b} {
			eventually(t, "it is gone from memory", func() bool {
				v, err := aside.GetOrLoad(t.Context(), c, items.Key(i), value("new"))
				require.NoError(t, err)
				return v == "new"
			})
			require.NotZero(t, c.Metrics().Gaps)
		}
	}
}

// Hazard 21: the server forgets what it was to tell of, and says so.
func TestATrackingTableThatOverflowsCostsHitsAndNothingElse(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--tracking-table-max-keys", "10")
	a, b := pair(t, server.Addr())
	for i := range 100 {
		_, err := aside.GetOrLoad(t.Context(), a, items.Key(i), value("old"))
		require.NoError(t, err)
	}
	pushes := a.Metrics().Pushes
	require.NotZero(t, pushes)
	for i := range 100 {
		_, err := b.Invalidate(t.Context(), items.Key(i))
		require.NoError(t, err)
		eventually(t, "the other follows", func() bool {
			v, err := aside.GetOrLoad(t.Context(), a, items.Key(i), value("new"))
			require.NoError(t, err)
			return v == "new"
		})
	}
}

// Hazard 22.
func TestAValueInMemoryEndsWithoutAPush(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := watch(t, server)
	short := aside.WithTTL(300 * time.Millisecond)
	began := time.Now()
	inMemory(t, w.Cache, items.Key("a"), value("old"), short)
	w.proxy.DropPushes(nil)
	eventually(t, "it has ended", func() bool {
		v, err := aside.GetOrLoad(t.Context(), w.Cache, items.Key("a"), value("new"), short)
		require.NoError(t, err)
		return v == "new"
	})
	require.GreaterOrEqual(t, time.Since(began), 290*time.Millisecond)
}

// Hazard 23: two loads of one key by one process, with an invalidation in between.
func TestAnOldLoadIsNotStoredOverANewerOneOfTheSameProcess(t *testing.T) {
	t.Parallel()
	everyMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		old := newHeld()
		first := background(t, c, items.Key("a"), old.load("old"))
		<-old.began
		_, err := c.Invalidate(t.Context(), items.Key("a"))
		require.NoError(t, err)
		fresh := newHeld()
		second := background(t, c, items.Key("a"), fresh.load("new"))
		<-fresh.began
		close(old.release)
		require.Equal(t, "old", <-first)
		eventually(t, "it is refused", func() bool { return refused(c) == 1 })
		close(fresh.release)
		require.Equal(t, "new", <-second)
		require.Equal(t, "new", inMemory(t, c, items.Key("a"), value("another")))
	})
}

// Hazard 25.
func TestALoadThatLostItsLeaseIsNotStoredOverTheNextOne(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := pair(t, server.Addr())
	old := newHeld()
	first := background(t, a, items.Key("a"), old.load("old"))
	<-old.began
	server.MustDo(t, "DEL", "{items:a}!l")
	stored(t, b, items.Key("a"), "new")
	close(old.release)
	require.Equal(t, "old", <-first)
	eventually(t, "it is refused", func() bool { return refused(a) == 1 })
	require.Equal(t, "new", inMemory(t, a, items.Key("a"), value("another")))
}

// Promise 3: what a broken connection vouched for is not served any more.
func TestABrokenConnectionVouchesForNothing(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	o := at(proxy.Addr())
	o.DegradedTTL = -1
	w, b := watched{connected(t, o), proxy}, connected(t, at(server.Addr()))
	for i := range 10 {
		key := items.Key(i)
		inMemory(t, w.Cache, key, value("old"))
		gaps := w.Metrics().Gaps
		w.proxy.Refuse(true)
		w.proxy.CloseConnections()
		_, err := b.Invalidate(t.Context(), key)
		require.NoError(t, err)
		stored(t, b, key, "new")
		eventually(t, "the break is noticed", func() bool { return w.Metrics().Gaps > gaps })
		v, err := aside.GetOrLoad(t.Context(), w.Cache, key, value("new"))
		require.NoError(t, err)
		require.Equal(t, "new", v)
		w.proxy.Refuse(false)
		eventually(t, "it is back", func() bool {
			r, err := aside.Lookup(t.Context(), w.Cache, key, value("new"))
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
	a := connected(t, at(server.Addr()))
	for _, tag := range []string{"%all", "%c:items", "%t:x"} {
		_, err := aside.GetOrLoad(t.Context(), a, items.Key(tag), value("old"), aside.WithTags("x"))
		require.NoError(t, err)
		eventually(t, "it is stored", func() bool { return server.MustDo(t, "EXISTS", items.Key(tag).String()) == int64(1) })
		server.MustDo(t, "DEL", tag)
		b := connected(t, at(server.Addr()))
		v, err := aside.GetOrLoad(t.Context(), b, items.Key(tag), value("new"), aside.WithTags("x"))
		require.NoError(t, err)
		require.Equal(t, "new", v, tag)
	}
}

// Hazard 17: a batch has one key, another process the other, and each needs what the other has.
func TestABatchLoadsAndSharesWhatItLeadsBeforeItWaits(t *testing.T) {
	t.Parallel()
	a, b := pair(t, redistest.Start(t).Addr())
	leads, goOn := make(chan struct{}), make(chan struct{})
	second := background(t, b, items.Key(2), func(ctx context.Context) (string, error) {
		close(leads)
		<-goOn
		v, err := aside.GetOrLoad(ctx, b, items.Key(1), value("not this one"))
		return v + " and 2", err
	})
	<-leads
	got, err := aside.GetOrLoadMany(t.Context(), a, []int{1, 2}, itemKey, func(_ context.Context, ids []int) (map[int]string, error) {
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
