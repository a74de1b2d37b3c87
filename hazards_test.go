package aside_test

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
	"github.com/gatewayz/aside/internal/redistest"
)

// waiting calls GetOrLoad and returns, with the place where its value will be, when that has joined a load or leads one, or
// is over already.
func waiting(t *testing.T, c *aside.Cache, key aside.Key, load func(context.Context) (string, error), opts ...aside.CallOption) <-chan string {
	t.Helper()
	got, joined := make(chan string, 1), make(chan struct{})
	ctx := &signalling{Context: t.Context(), waited: joined}
	go func() {
		v, err := aside.GetOrLoad(ctx, c, key, load, opts...)
		if err != nil {
			v = err.Error()
		}
		ctx.Done()
		got <- v
	}()
	<-joined
	return got
}

// allTold returns when c has heard all that its server had to tell by now: pushes have their place among the replies of
// their connection. It reads no tag of the policy items.
func allTold(t *testing.T, c *aside.Cache) {
	t.Helper()
	others := aside.Policy{Name: "others", Category: "others", TTL: time.Hour}
	_, err := aside.Get[string](t.Context(), c, others.Key("none"))
	require.ErrorIs(t, err, aside.ErrMiss)
}

// naming is load with a tag that the loader names when it has loaded.
func naming(tag string, load func(context.Context) (string, error)) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		v, err := load(ctx)
		aside.Loading(ctx).Tag(tag)
		return v, err
	}
}

// evalsha reports whether a command runs a script on a key.
func evalsha(args []string, key string) bool {
	return len(args) > 3 && args[0] == "EVALSHA" && args[3] == key
}

// nth returns a match for the nth script that is run on a key.
func nth(n int, key string) func(args []string) bool {
	return func(args []string) bool {
		if !evalsha(args, key) {
			return false
		}
		n--
		return n == 0
	}
}

// Hazard 1: the value that nobody can use is there, and so the lease must be granted all the same.
func TestAValueThatItsReadersRejectIsReplacedByOneLoadOfTheFleet(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, server *redistest.Server, other *aside.Cache){
		"corrupt": func(t *testing.T, server *redistest.Server, _ *aside.Cache) {
			server.MustDo(t, "SETRANGE", "items:a", "60", "something else")
		},
		"of an older generation": func(t *testing.T, server *redistest.Server, _ *aside.Cache) {
			server.MustDo(t, "SET", "%c:items", "5000000000000000") // as by InvalidateCategory, and nobody sweeps
		},
		"expired": func(t *testing.T, server *redistest.Server, other *aside.Cache) {
			server.MustDo(t, "PERSIST", "items:a")
			eventually(t, "it has ended", func() bool {
				_, err := aside.Get[string](t.Context(), other, items.Key("a"))
				return errors.Is(err, aside.ErrMiss)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			other := connected(t, at(server.Addr()))
			ttl := time.Hour
			if name == "expired" {
				ttl = 300 * time.Millisecond
			}
			require.NoError(t, aside.Set(t.Context(), other, items.Key("a"), "old and long enough to be spoiled", aside.WithTTL(ttl)))
			spoil(t, server, other)
			require.EqualValues(t, 1, server.MustDo(t, "EXISTS", "items:a"), "it is still there")

			a, w := connected(t, at(server.Addr())), watch(t, server)
			load := newHeld()
			first := waiting(t, a, items.Key("a"), load.load("new"))
			<-load.began
			second := waiting(t, w.Cache, items.Key("a"), load.load("twice"))
			w.proxy.Await(t, "the other one has asked for the lease too", func() bool {
				return slices.ContainsFunc(w.asked("EVALSHA"), func(args []string) bool { return args[2] == "items:a" })
			})
			close(load.release)
			require.Equal(t, "new", <-first)
			require.Equal(t, "new", <-second)
			require.EqualValues(t, 1, load.loads.Load())
			require.Zero(t, refused(a))
			require.Equal(t, "new", inMemory(t, a, items.Key("a"), value("again")))
		})
	}
}

// Hazard 3: once Redis has told a process of an invalidation, nobody joins the load there that it has overtaken.
func TestWhoComesAfterThePushJoinsNoLoadThatItIsAbout(t *testing.T) {
	t.Parallel()
	for name, invalidate := range map[string]func(c *aside.Cache) (aside.Receipt, error){
		"key":      func(c *aside.Cache) (aside.Receipt, error) { return c.Invalidate(t.Context(), items.Key("a")) },
		"category": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateCategory(t.Context(), "items") },
		"tag":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateTags(t.Context(), "x") },
		"late tag": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateTags(t.Context(), "late") }, // hazard 9
		"all":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateAll(t.Context()) },
	} {
		for _, known := range []bool{true, false} {
			t.Run(name+map[bool]string{true: ", tags known", false: ", tags new to Redis"}[known], func(t *testing.T) {
				t.Parallel()
				a, b := pair(t, redistest.Start(t).Addr())
				tags := aside.WithTags("x")
				if known {
					inMemory(t, a, items.Key("other"), value("v"), tags)
				}
				loader := func(h *heldLoad, v string) func(context.Context) (string, error) {
					if name == "late tag" {
						return naming("late", h.load(v))
					}
					return h.load(v)
				}
				old, fresh := newHeld(), newHeld()
				close(fresh.release)
				first := waiting(t, a, items.Key("a"), loader(old, "old"), tags)
				<-old.began
				receipt, err := invalidate(b)
				require.NoError(t, err)
				require.True(t, receipt.Confirmed)
				allTold(t, a)
				require.NotZero(t, a.Metrics().Pushes)
				second := waiting(t, a, items.Key("a"), loader(fresh, "new"), tags)
				close(old.release)
				require.Equal(t, "old", <-first, "who was waiting gets it")
				require.Equal(t, "new", <-second)
				require.Equal(t, "new", inMemory(t, b, items.Key("a"), value("again"), tags))
			})
		}
	}
}

// Hazard 5, 9: the generations of late tags are read before the sequence, even if the server forgets its scripts and is
// given them again halfway through.
func TestLateTagsAreReadBeforeTheSequenceThoughTheServerForgetsItsScripts(t *testing.T) {
	t.Parallel()
	if inCluster {
		t.Skip("the sequence is read by itself there")
	}
	server := redistest.Start(t)
	w, b := watch(t, server), connected(t, at(server.Addr()))
	inMemory(t, w.Cache, items.Key("warm"), naming("x", value("v")))
	old := newHeld()
	first := waiting(t, w.Cache, items.Key("a"), naming("x", old.load("old")))
	<-old.began

	server.MustDo(t, "SCRIPT", "FLUSH")
	sequence := w.proxy.HoldRequests(func(args []string) bool { return evalsha(args, "%tags") })
	again := w.proxy.HoldRequests(func(args []string) bool { return args[0] == "EVAL" && args[3] == "%t:x" })
	close(old.release)
	require.Equal(t, "old", <-first)
	sequence.Wait(t)
	w.proxy.Await(t, "the tag was asked for, in vain", func() bool {
		log := w.proxy.Log()
		return evalsha(log[len(log)-1], "%t:x")
	})
	connected(t, at(server.Addr())) // gives the server its scripts
	sequence.Release()
	again.Wait(t)
	_, err := b.InvalidateTags(t.Context(), "x")
	require.NoError(t, err)
	again.Release()
	eventually(t, "it is refused, or stored", func() bool {
		return refused(w.Cache) > 0 || server.MustDo(t, "EXISTS", "items:a") == int64(1)
	})
	require.Equal(t, "new", inMemory(t, b, items.Key("a"), naming("x", value("new"))))
}

// Hazard 9: what is invalidated between the two looks is found by the second one.
func TestATagThatIsInvalidatedWhileItsGenerationIsAskedForCounts(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w, b := watch(t, server), connected(t, at(server.Addr()))
	inMemory(t, w.Cache, items.Key("warm"), naming("x", value("v")))
	ask := w.proxy.HoldRequests(func(args []string) bool { return evalsha(args, "%t:x") })
	require.Equal(t, "old", <-waiting(t, w.Cache, items.Key("a"), naming("x", value("old"))))
	ask.Wait(t)
	_, err := b.InvalidateTags(t.Context(), "x")
	require.NoError(t, err)
	ask.Release()
	eventually(t, "it is refused", func() bool { return refused(w.Cache) == 1 })
	require.Zero(t, server.MustDo(t, "EXISTS", "items:a"))
}

// Hazard 9: the invalidation was another process's, and no push tells of it.
func TestALateTagThatAnotherProcessHasInvalidatedIsFoundInRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w, b := watch(t, server), connected(t, at(server.Addr()))
	inMemory(t, w.Cache, items.Key("warm"), value("v"))
	old := newHeld()
	first := waiting(t, w.Cache, items.Key("a"), naming("x", old.load("old")))
	<-old.began
	w.proxy.DropPushes(nil)
	_, err := b.InvalidateTags(t.Context(), "x")
	require.NoError(t, err)
	close(old.release)
	require.Equal(t, "old", <-first)
	eventually(t, "it is refused", func() bool { return refused(w.Cache) == 1 })
	require.NotZero(t, w.proxy.DroppedPushes())
	require.Zero(t, server.MustDo(t, "EXISTS", "items:a"))
	v, err := aside.GetOrLoad(t.Context(), b, items.Key("a"), naming("x", value("new")))
	require.NoError(t, err)
	require.Equal(t, "new", v)
}

// Hazard 9: Redis was not told of the invalidation, but this process knows.
func TestAfterAnUnconfirmedInvalidationNoLoadThatNamesTheTagIsStored(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := connected(t, at(server.Addr()))
	inMemory(t, c, items.Key("warm"), naming("x", value("v")))
	old := newHeld()
	first := waiting(t, c, items.Key("a"), naming("x", old.load("old")))
	<-old.began
	server.MayDeny()
	user := "default"
	if asUser {
		user = "aside"
	}
	// All keys but those of named tags and of their sequence: Redis refuses the invalidation, and is of use otherwise.
	server.MustDo(t, "ACL", "SETUSER", user, "resetkeys", "~items:*", "~{items:*", "~%all", "~%c:*", "~%m*", "~%p*", "~%{*")
	receipt, err := c.InvalidateTags(t.Context(), "x")
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)
	sent := commands(t, server, "evalsha")
	eventually(t, "it is sent again at long intervals", func() bool { return commands(t, server, "evalsha") >= sent+14 })
	server.MustDo(t, "ACL", "SETUSER", user, "~%*")
	close(old.release)
	require.Equal(t, "old", <-first)
	eventually(t, "nothing of it is kept", func() bool {
		v, err := aside.GetOrLoad(t.Context(), c, items.Key("a"), naming("x", value("new")))
		require.NoError(t, err)
		return v == "new"
	})
	require.Equal(t, "new", inMemory(t, c, items.Key("a"), naming("x", value("new"))))
}

// Hazard 11: of two Sets the first is held up on its way and arrives last.
func TestASetThatArrivesAfterALaterSetIsRefused(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w, b := watch(t, server), connected(t, at(server.Addr()))
	fill := w.proxy.HoldRequests(nth(2, "items:a")) // the lease comes first
	first := make(chan error, 1)
	go func() { first <- aside.Set(t.Context(), w.Cache, items.Key("a"), "old") }()
	fill.Wait(t)
	stored(t, b, items.Key("a"), "new")
	fill.Release()
	require.NoError(t, <-first)
	require.EqualValues(t, 1, refused(w.Cache))
	for _, c := range []*aside.Cache{w.Cache, b} {
		require.Equal(t, "new", inMemory(t, c, items.Key("a"), value("another")))
	}
}

// Hazard 15: who comes after a Strong call has begun may share its load; nobody loads once more.
func TestWhoComesLaterSharesTheLoadOfAStrongCall(t *testing.T) {
	t.Parallel()
	c := connected(t, at(redistest.Start(t).Addr()))
	load := newHeld()
	strong := waiting(t, c, items.Key("a"), load.load("v"), aside.Strong())
	<-load.began
	var later []<-chan string
	for range 10 {
		later = append(later, waiting(t, c, items.Key("a"), load.load("another")))
	}
	close(load.release)
	require.Equal(t, "v", <-strong)
	for _, got := range later {
		require.Equal(t, "v", <-got)
	}
	require.EqualValues(t, 1, load.loads.Load())
}

// Hazard 17: two batches in two processes, each with a key that the other one loads.
func TestTwoBatchesThatEachLoadAKeyOfTheOthersBothEnd(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := watch(t, server), watch(t, server)
	// Each asks for its leases in the order of its ids: when both are held at their second one, each has its first.
	gateA := a.proxy.HoldRequests(nth(1, itemKey(2).String()))
	gateB := b.proxy.HoldRequests(nth(1, itemKey(1).String()))
	var loads [3]atomic.Int64
	var wg sync.WaitGroup
	for _, run := range []struct {
		c   watched
		ids []int
	}{{a, []int{1, 2}}, {b, []int{2, 1}}} {
		wg.Go(func() {
			got, err := aside.GetOrLoadMany(t.Context(), run.c.Cache, run.ids, itemKey, func(_ context.Context, ids []int) (map[int]int, error) {
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
	eventually(t, "each has a lease", func() bool { return len(server.MustDo(t, "KEYS", "{*").([]any)) == 2 })
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
	for i := range 200 {
		key := items.Key("overtaken", i)
		inMemory(t, c, items.Key("warm", i), value("v"))
		gate := hold(key)
		first := waiting(t, c, key, value("old"))
		gate.Wait(t)
		changed := make(chan error, 1)
		go func() { changed <- change(key) }()
		patience, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		select {
		case err := <-changed:
			cancel()
			require.NoError(t, err)
			gate.Release()
			require.Equal(t, "old", <-first)
			return key
		case <-patience.Done(): // it waits behind the frame that is held
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
				o := at(proxy.Addr())
				o.Redis.PipelineMultiplex = 2
				c := connected(t, o)
				key := overtaken(t, c, func(key aside.Key) *redistest.Gate {
					if frame == "the fill" {
						return proxy.HoldRequests(nth(2, key.String())) // the lease comes first
					}
					return proxy.HoldRequests(func(args []string) bool { return isHead(args, key.String()) })
				}, func(key aside.Key) error { return change(c, key) })
				require.Equal(t, "new", inMemory(t, c, key, value("new")))
				if frame == "the fill" {
					require.NotZero(t, refused(c))
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
			o := at(proxy.Addr())
			o.Redis.PipelineMultiplex = 2 // or the read would wait behind the change that is held
			c, b := connected(t, o), connected(t, at(server.Addr()))
			for i := range 200 {
				key := items.Key("read", i)
				eventually(t, "it is stored under the generation that the last change has brought", func() bool {
					stored(t, b, key, "old")
					v, err := aside.GetOrLoad(t.Context(), b, key, value("out of date at birth"), aside.Strong())
					require.NoError(t, err)
					return v == "old"
				})
				inMemory(t, c, items.Key("warm", i), value("v")) // the tags are known
				gate := proxy.HoldRequests(change.frame(key))
				hear := proxy.DropPushes(nil)
				changed := make(chan error, 1)
				go func() { changed <- change.make(c, key) }()
				gate.Wait(t)
				read := background(t, c, key, value("loaded"))
				patience, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				select {
				case v := <-read:
					cancel()
					require.Equal(t, "old", v)
					require.Equal(t, "old", inMemory(t, c, key, value("loaded")), "it can be read until the change is made")
					gate.Release()
					require.NoError(t, <-changed)
					v, err := aside.GetOrLoad(t.Context(), c, key, value("new"))
					require.NoError(t, err)
					require.Equal(t, "new", v)
					return
				case <-patience.Done(): // it waits behind the frame that is held
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
	a := connected(t, at(server.Addr()))
	stored(t, a, items.Key("a"), "old")
	server.MustDo(t, "DEL", "%c:items")
	_, err := a.InvalidateCategory(t.Context(), "items")
	require.NoError(t, err)
	require.Equal(t, "new", inMemory(t, connected(t, at(server.Addr())), items.Key("a"), value("new")))
}
