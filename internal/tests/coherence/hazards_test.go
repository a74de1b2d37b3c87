package coherence_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// naming is load with a tag that the loader names when it has loaded.
func naming(tag string, load func(context.Context) (string, error)) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		v, err := load(ctx)
		aside.CurrentLoad(ctx).Tag(tag)
		return v, err
	}
}

// nth returns a match for the nth script that is run on a key.
func nth(n int, key string) func(args []string) bool {
	return func(args []string) bool {
		if !asidetest.Evalsha(args, key) {
			return false
		}
		n--
		return n == 0
	}
}

// Hazard 1: the value that nobody can use is there, and so the lease must be granted all the same.
func TestAValueThatItsReadersRejectIsReplacedByOneLoadOfTheFleet(t *testing.T) {
	t.Parallel()
	const text = "old and long enough to be spoiled"
	for name, spoil := range map[string]func(t *testing.T, server *redistest.Server, other *aside.Cache){
		"corrupt": func(t *testing.T, server *redistest.Server, other *aside.Cache) {
			asidetest.Stored(t, other, asidetest.Items.Key("a"), text)
			server.MustDo(t, "SETRANGE", "items:a", "60", "something else")
		},
		"of an older generation": func(t *testing.T, server *redistest.Server, other *aside.Cache) {
			asidetest.Stored(t, other, asidetest.Items.Key("a"), text)
			server.MustDo(t, "SET", "%c:items", "5000000000000000") // as by InvalidateCategory, and nobody sweeps
		},
		"expired": func(t *testing.T, server *redistest.Server, other *aside.Cache) {
			asidetest.Eventually(t, "it stays in Redis", func() bool { // unless it has ended before
				asidetest.Stored(t, other, asidetest.Items.Key("a"), text, aside.WithTTL(300*time.Millisecond))
				return server.MustDo(t, "PERSIST", "items:a") == int64(1)
			})
			asidetest.Eventually(t, "it has ended", func() bool {
				_, err := aside.Get[string](t.Context(), other, asidetest.Items.Key("a"))
				return errors.Is(err, aside.ErrMiss)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			other := asidetest.Connected(t, asidetest.At(server.Addr()))
			spoil(t, server, other)
			require.EqualValues(t, 1, server.MustDo(t, "EXISTS", "items:a"), "it is still there")

			a, w := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Watch(t, server)
			load := asidetest.NewHeld()
			first := asidetest.Waiting(t, a, asidetest.Items.Key("a"), load.Load("new"))
			<-load.Began
			second := asidetest.Waiting(t, w.Cache, asidetest.Items.Key("a"), load.Load("twice"))
			w.Proxy.Await(t, "the other one has asked for the lease too", func() bool {
				return slices.ContainsFunc(w.Asked("EVALSHA"), func(args []string) bool { return args[2] == "items:a" })
			})
			close(load.Release)
			require.Equal(t, "new", <-first)
			require.Equal(t, "new", <-second)
			require.EqualValues(t, 1, load.Loads.Load())
			require.Zero(t, asidetest.Refused(a))
			require.Equal(t, "new", asidetest.InMemory(t, a, asidetest.Items.Key("a"), asidetest.Value("again")))
		})
	}
}

// Hazard 3: once Redis has told a process of an invalidation, nobody joins the load there that it has overtaken.
func TestWhoComesAfterThePushJoinsNoLoadThatItIsAbout(t *testing.T) {
	t.Parallel()
	for name, invalidate := range map[string]func(c *aside.Cache) (aside.Receipt, error){
		"key": func(c *aside.Cache) (aside.Receipt, error) {
			return c.Invalidate(t.Context(), asidetest.Items.Key("a"))
		},
		"category": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateCategory(t.Context(), "items") },
		"tag":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateTags(t.Context(), "x") },
		"late tag": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateTags(t.Context(), "late") }, // hazard 9
		"all":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateAll(t.Context()) },
	} {
		for _, known := range []bool{true, false} {
			t.Run(name+map[bool]string{true: ", tags known", false: ", tags new to Redis"}[known], func(t *testing.T) {
				t.Parallel()
				a, b := asidetest.Pair(t, redistest.Start(t).Addr())
				tags := aside.WithTags("x")
				if known {
					asidetest.InMemory(t, a, asidetest.Items.Key("other"), asidetest.Value("v"), tags)
				}
				loader := func(h *asidetest.HeldLoad, v string) func(context.Context) (string, error) {
					if name == "late tag" {
						return naming("late", h.Load(v))
					}
					return h.Load(v)
				}
				old, fresh := asidetest.NewHeld(), asidetest.NewHeld()
				close(fresh.Release)
				first := asidetest.Waiting(t, a, asidetest.Items.Key("a"), loader(old, "old"), tags)
				<-old.Began
				receipt, err := invalidate(b)
				require.NoError(t, err)
				require.True(t, receipt.Confirmed)
				asidetest.AllTold(t, a)
				require.NotZero(t, a.Metrics().InvalidationMessages)
				second := asidetest.Waiting(t, a, asidetest.Items.Key("a"), loader(fresh, "new"), tags)
				close(old.Release)
				require.Equal(t, "old", <-first, "who was waiting gets it")
				require.Equal(t, "new", <-second)
				require.Equal(t, "new", asidetest.InMemory(t, b, asidetest.Items.Key("a"), asidetest.Value("again"), tags))
			})
		}
	}
}

// Hazard 5, 9: the generations of late tags are read before the sequence, even if the server forgets its scripts and is
// given them again halfway through.
func TestLateTagsAreReadBeforeTheSequenceThoughTheServerForgetsItsScripts(t *testing.T) {
	t.Parallel()
	if asidetest.InCluster {
		t.Skip("the sequence is read by itself there")
	}
	server := redistest.Start(t)
	w, b := asidetest.Watch(t, server), asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.InMemory(t, w.Cache, asidetest.Items.Key("warm"), naming("x", asidetest.Value("v")))
	old := asidetest.NewHeld()
	first := asidetest.Waiting(t, w.Cache, asidetest.Items.Key("a"), naming("x", old.Load("old")))
	<-old.Began

	server.MustDo(t, "SCRIPT", "FLUSH")
	sequence := w.Proxy.HoldRequests(func(args []string) bool { return asidetest.Evalsha(args, "%tags") })
	again := w.Proxy.HoldRequests(func(args []string) bool { return args[0] == "EVAL" && args[3] == "%t:x" })
	close(old.Release)
	require.Equal(t, "old", <-first)
	sequence.Wait(t)
	w.Proxy.Await(t, "the tag was asked for, in vain", func() bool {
		log := w.Proxy.Log()
		return asidetest.Evalsha(log[len(log)-1], "%t:x")
	})
	asidetest.Connected(t, asidetest.At(server.Addr())) // gives the server its scripts
	sequence.Release()
	again.Wait(t)
	_, err := b.InvalidateTags(t.Context(), "x")
	require.NoError(t, err)
	again.Release()
	asidetest.Eventually(t, "it is refused, or stored", func() bool {
		return asidetest.Refused(w.Cache) > 0 || server.MustDo(t, "EXISTS", "items:a") == int64(1)
	})
	require.Equal(t, "new", asidetest.InMemory(t, b, asidetest.Items.Key("a"), naming("x", asidetest.Value("new"))))
}

// Hazard 9: what is invalidated between the two looks is found by the second one.
func TestATagThatIsInvalidatedWhileItsGenerationIsAskedForCounts(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w, b := asidetest.Watch(t, server), asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.InMemory(t, w.Cache, asidetest.Items.Key("warm"), naming("x", asidetest.Value("v")))
	ask := w.Proxy.HoldRequests(func(args []string) bool { return asidetest.Evalsha(args, "%t:x") })
	require.Equal(t, "old", <-asidetest.Waiting(t, w.Cache, asidetest.Items.Key("a"), naming("x", asidetest.Value("old"))))
	ask.Wait(t)
	_, err := b.InvalidateTags(t.Context(), "x")
	require.NoError(t, err)
	ask.Release()
	asidetest.Eventually(t, "it is refused", func() bool { return asidetest.Refused(w.Cache) == 1 })
	require.Zero(t, server.MustDo(t, "EXISTS", "items:a"))
}

// Hazard 9: the invalidation was another process's, and no push tells of it.
func TestALateTagThatAnotherProcessHasInvalidatedIsFoundInRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w, b := asidetest.Watch(t, server), asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.InMemory(t, w.Cache, asidetest.Items.Key("warm"), asidetest.Value("v"))
	old := asidetest.NewHeld()
	first := asidetest.Waiting(t, w.Cache, asidetest.Items.Key("a"), naming("x", old.Load("old")))
	<-old.Began
	w.Proxy.DropPushes(nil)
	_, err := b.InvalidateTags(t.Context(), "x")
	require.NoError(t, err)
	close(old.Release)
	require.Equal(t, "old", <-first)
	asidetest.Eventually(t, "it is refused", func() bool { return asidetest.Refused(w.Cache) == 1 })
	require.NotZero(t, w.Proxy.DroppedPushes())
	require.Zero(t, server.MustDo(t, "EXISTS", "items:a"))
	v, err := aside.GetOrLoad(t.Context(), b, asidetest.Items.Key("a"), naming("x", asidetest.Value("new")))
	require.NoError(t, err)
	require.Equal(t, "new", v)
}

// Hazard 9: Redis was not told of the invalidation, but this process knows.
func TestAfterAnUnconfirmedInvalidationNoLoadThatNamesTheTagIsStored(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.InMemory(t, c, asidetest.Items.Key("warm"), naming("x", asidetest.Value("v")))
	old := asidetest.NewHeld()
	first := asidetest.Waiting(t, c, asidetest.Items.Key("a"), naming("x", old.Load("old")))
	<-old.Began
	server.MayDeny()
	user := "default"
	if asidetest.AsUser {
		user = "aside"
	}
	// All keys but those of named tags and of their sequence: Redis refuses the invalidation, and is of use otherwise.
	server.MustDo(t, "ACL", "SETUSER", user, "resetkeys", "~items:*", "~{items:*", "~%all", "~%c:*", "~%m*", "~%p*", "~%{*")
	receipt, err := c.InvalidateTags(t.Context(), "x")
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)
	sent := asidetest.Commands(t, server, "evalsha")
	asidetest.Eventually(t, "it is sent again at long intervals", func() bool { return asidetest.Commands(t, server, "evalsha") >= sent+14 })
	server.MustDo(t, "ACL", "SETUSER", user, "~%*")
	close(old.Release)
	require.Equal(t, "old", <-first)
	asidetest.Eventually(t, "nothing of it is kept", func() bool {
		v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), naming("x", asidetest.Value("new")))
		require.NoError(t, err)
		return v == "new"
	})
	require.Equal(t, "new", asidetest.InMemory(t, c, asidetest.Items.Key("a"), naming("x", asidetest.Value("new"))))
}

// Hazard 11: of two Sets the first is held up on its way and arrives last.
func TestASetThatArrivesAfterALaterSetIsRefused(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w, b := asidetest.Watch(t, server), asidetest.Connected(t, asidetest.At(server.Addr()))
	fill := w.Proxy.HoldRequests(func(args []string) bool { return asidetest.IsFill(args, "items:a") })
	first := make(chan error, 1)
	go func() { first <- aside.Set(t.Context(), w.Cache, asidetest.Items.Key("a"), "old") }()
	fill.Wait(t)
	asidetest.Stored(t, b, asidetest.Items.Key("a"), "new")
	fill.Release()
	require.NoError(t, <-first)
	require.EqualValues(t, 1, asidetest.Refused(w.Cache))
	for _, c := range []*aside.Cache{w.Cache, b} {
		require.Equal(t, "new", asidetest.InMemory(t, c, asidetest.Items.Key("a"), asidetest.Value("another")))
	}
}

// Hazard 15: who comes after a Strong call has begun may share its load; nobody loads once more.
func TestWhoComesLaterSharesTheLoadOfAStrongCall(t *testing.T) {
	t.Parallel()
	c := asidetest.Connected(t, asidetest.At(redistest.Start(t).Addr()))
	load := asidetest.NewHeld()
	strong := asidetest.Waiting(t, c, asidetest.Items.Key("a"), load.Load("v"), aside.Strong())
	<-load.Began
	var later []<-chan string
	for range 10 {
		later = append(later, asidetest.Waiting(t, c, asidetest.Items.Key("a"), load.Load("another")))
	}
	close(load.Release)
	require.Equal(t, "v", <-strong)
	for _, got := range later {
		require.Equal(t, "v", <-got)
	}
	require.EqualValues(t, 1, load.Loads.Load())
}

// Hazard 17: two batches in two processes, each with a key that the other one loads.
func TestTwoBatchesThatEachLoadAKeyOfTheOthersBothEnd(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Watch(t, server), asidetest.Watch(t, server)
	// Each asks for its leases in the order of its ids: when both are held at their second one, each has its first.
	gateA := a.Proxy.HoldRequests(func(args []string) bool { return asidetest.AsksForLease(args, asidetest.ItemKey(2).String()) })
	gateB := b.Proxy.HoldRequests(func(args []string) bool { return asidetest.AsksForLease(args, asidetest.ItemKey(1).String()) })
	var loads [3]atomic.Int64
	var wg sync.WaitGroup
	for _, run := range []struct {
		c   asidetest.Watched
		ids []int
	}{{a, []int{1, 2}}, {b, []int{2, 1}}} {
		wg.Go(func() {
			got, err := aside.GetOrLoadMany(t.Context(), run.c.Cache, run.ids, asidetest.ItemKey, func(_ context.Context, ids []int) (map[int]int, error) {
				values := map[int]int{}
				for _, id := range ids {
					loads[id].Add(1)
					values[id] = id * id
				}
				return values, nil
			})
			if err != nil || got[1] != 1 || got[2] != 4 {
				t.Error(got, err)
			}
		})
	}
	gateA.Wait(t)
	gateB.Wait(t)
	asidetest.Eventually(t, "each has a lease", func() bool { return len(server.MustDo(t, "KEYS", "{*").([]any)) == 2 })
	gateA.Release()
	gateB.Release()
	wg.Wait()
	require.EqualValues(t, 1, loads[1].Load())
	require.EqualValues(t, 1, loads[2].Load())
}

// overtaken holds a frame of c's load of a key, and lets this process change the key meanwhile: through another one of its
// connections, so until the two happen to differ there may be several tries, each with a key of its own. It returns the key.
func overtaken(t *testing.T, c *aside.Cache, hold func(key aside.Key) *redistest.Gate, change func(key aside.Key) error) aside.Key {
	t.Helper()
	wait, began := 100*time.Millisecond, time.Now()
	for i := 0; i < 20 || time.Since(began) < 3*asidetest.Bound; i++ {
		key := asidetest.Items.Key("overtaken", i)
		asidetest.InMemory(t, c, asidetest.Items.Key("warm", i), asidetest.Value("v"))
		gate := hold(key)
		first := asidetest.Waiting(t, c, key, asidetest.Value("old"))
		gate.Wait(t)
		changed := make(chan error, 1)
		go func() { changed <- change(key) }()
		patience, cancel := context.WithTimeout(t.Context(), wait)
		select {
		case err := <-changed:
			cancel()
			require.NoError(t, err)
			gate.Release()
			require.Equal(t, "old", <-first)
			return key
		case <-patience.Done(): // it waits behind the frame that is held, or the machine is busy
			wait = min(wait*5/4, time.Second)
			gate.Release()
			<-first
			require.NoError(t, <-changed)
		}
		cancel()
	}
	t.Fatal("the change never took another connection")
	return aside.Key{}
}

// Hazard 20: this process changes a key while a fill of its own is on its way.
func TestAChangeBeatsAFillOfTheSameProcessThatIsOnItsWay(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(c *aside.Cache, key aside.Key) error{
		"Set":        func(c *aside.Cache, key aside.Key) error { return aside.Set(t.Context(), c, key, "new") },
		"Invalidate": func(c *aside.Cache, key aside.Key) error { _, err := c.Invalidate(t.Context(), key); return err },
	} {
		for _, frame := range []string{"the fill", "the look at its head"} {
			t.Run(name+" during "+frame, func(t *testing.T) {
				t.Parallel()
				proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
				o := asidetest.At(proxy.Addr())
				o.Redis.PipelineMultiplex = 2
				c := asidetest.Connected(t, o)
				key := overtaken(t, c, func(key aside.Key) *redistest.Gate {
					if frame == "the fill" {
						fills := 0
						return proxy.HoldRequests(func(args []string) bool {
							if asidetest.IsFill(args, key.String()) {
								fills++
							}
							return fills == 1 && asidetest.IsFill(args, key.String()) // a Set has one too
						})
					}
					return proxy.HoldRequests(func(args []string) bool { return asidetest.IsHead(args, key.String()) })
				}, func(key aside.Key) error { return change(c, key) })
				require.Equal(t, "new", asidetest.InMemory(t, c, key, asidetest.Value("new")))
				if frame == "the fill" {
					require.NotZero(t, asidetest.Refused(c))
				}
			})
		}
	}
}

// Hazard 20: the old value is read while this process changes it, and no push tells of the change.
func TestWhatIsReadWhileThisProcessChangesItIsGoneWhenThatIsDone(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]struct {
		frame func(key aside.Key) func(args []string) bool // that makes the change
		make  func(c *aside.Cache, key aside.Key) error
	}{
		"Invalidate": {
			func(key aside.Key) func([]string) bool { return nth(1, key.String()) },
			func(c *aside.Cache, key aside.Key) error { _, err := c.Invalidate(t.Context(), key); return err },
		},
		"InvalidateCategory": {
			func(aside.Key) func([]string) bool { return nth(1, "%c:items") },
			func(c *aside.Cache, _ aside.Key) error {
				_, err := c.InvalidateCategory(t.Context(), "items")
				return err
			},
		},
		"Set": {
			func(key aside.Key) func([]string) bool { return nth(2, key.String()) }, // the lease comes first
			func(c *aside.Cache, key aside.Key) error { return aside.Set(t.Context(), c, key, "new") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			proxy := redistest.StartProxy(t, server.Addr())
			o := asidetest.At(proxy.Addr())
			o.Redis.PipelineMultiplex = 2 // or the read would wait behind the change that is held
			c, b := asidetest.Connected(t, o), asidetest.Connected(t, asidetest.At(server.Addr()))
			wait, began := 100*time.Millisecond, time.Now()
			for i := 0; i < 20 || time.Since(began) < 3*asidetest.Bound; i++ {
				key := asidetest.Items.Key("read", i)
				asidetest.Eventually(t, "it is stored under the generation that the last change has brought", func() bool {
					asidetest.Stored(t, b, key, "old")
					v, err := aside.GetOrLoad(t.Context(), b, key, asidetest.Value("out of date at birth"), aside.Strong())
					require.NoError(t, err)
					return v == "old"
				})
				asidetest.InMemory(t, c, asidetest.Items.Key("warm", i), asidetest.Value("v")) // the tags are known
				gate := proxy.HoldRequests(change.frame(key))
				hear := proxy.DropPushes(nil)
				changed := make(chan error, 1)
				go func() { changed <- change.make(c, key) }()
				gate.Wait(t)
				read := asidetest.Background(t, c, key, asidetest.Value("loaded"))
				patience, cancel := context.WithTimeout(t.Context(), wait)
				select {
				case v := <-read:
					cancel()
					require.Equal(t, "old", v)
					require.Equal(t, "old", asidetest.InMemory(t, c, key, asidetest.Value("loaded")), "it can be read until the change is made")
					gate.Release()
					require.NoError(t, <-changed)
					v, err := aside.GetOrLoad(t.Context(), c, key, asidetest.Value("new"))
					require.NoError(t, err)
					require.Equal(t, "new", v)
					return
				case <-patience.Done(): // it waits behind the frame that is held, or the machine is busy
					wait = min(wait*5/4, time.Second)
					gate.Release()
					<-read
					require.NoError(t, <-changed)
				}
				cancel()
				hear()
			}
			t.Fatal("the read never took another connection")
		})
	}
}

// A generation that was lost does not come back, nor does what it was invalidated for.
func TestAnInvalidationAfterALostGenerationStillCounts(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a := asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.Stored(t, a, asidetest.Items.Key("a"), "old")
	server.MustDo(t, "DEL", "%c:items")
	_, err := a.InvalidateCategory(t.Context(), "items")
	require.NoError(t, err)
	require.Equal(t, "new", asidetest.InMemory(t, asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Items.Key("a"), asidetest.Value("new")))
}
