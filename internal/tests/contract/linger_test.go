package contract_test

import (
	"context"
	"fmt"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// Callers that wait for less time than a load takes: none of them sees its value, those who come after it do.
func TestCallersWithLittleTimeWarmTheCache(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(context.Context, *aside.Cache, string, func(context.Context) (string, error)) error{
		"GetOrLoad": func(ctx context.Context, c *aside.Cache, id string, load func(context.Context) (string, error)) error {
			_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key(id), load)
			return err
		},
		"Refresh": func(ctx context.Context, c *aside.Cache, id string, load func(context.Context) (string, error)) error {
			_, err := aside.Lookup(ctx, c, asidetest.Items.Key(id), load, aside.Refresh())
			return err
		},
		"Strong": func(ctx context.Context, c *aside.Cache, id string, load func(context.Context) (string, error)) error {
			_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key(id), load, aside.Strong())
			return err
		},
		"GetMany": func(ctx context.Context, c *aside.Cache, id string, load func(context.Context) (string, error)) error {
			_, err := aside.NewLoader(c, asidetest.Items, func(ctx context.Context, _ string) (string, error) { return load(ctx) }).GetMany(ctx, []string{id})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
				c := newCache(aside.Options{LoadGrace: asidetest.Bound})
				n := 0
				asidetest.Repeatedly(t, "Redis takes the value", func() bool {
					n++
					id, load, failed := strconv.Itoa(n), asidetest.NewHeld(), asidetest.NotStored(c)
					for range 20 {
						ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
						require.ErrorIs(t, ask(ctx, c, id, load.Load("v")), context.DeadlineExceeded)
						cancel()
					}
					<-load.Began
					close(load.Release)
					asidetest.Eventually(t, "the value is there, or Redis was too slow for it", func() bool {
						v, err := aside.Get[string](t.Context(), c, asidetest.Items.Key(id))
						return err == nil && v == "v" || asidetest.NotStored(c) > failed
					})
					if asidetest.NotStored(c) > failed {
						return false
					}
					v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key(id), asidetest.Value("another"))
					require.NoError(t, err)
					require.Equal(t, "v", v)
					require.EqualValues(t, 1, load.Loads.Load())
					return true
				})
			})
		})
	}
}

func TestWhatNobodyHasWaitedForIsThereForOtherProcesses(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("shared"), func(context.Context) (string, error) { cancel(); return "v", nil })
	if err != nil { // the two may come at once
		require.ErrorIs(t, err, context.Canceled)
	}
	asidetest.Eventually(t, "the value is stored", func() bool { return server.MustDo(t, "EXISTS", "items:shared") == int64(1) })
	other := redistest.Spawn(t, "reader", "ADDR="+server.Addr())
	line, err := other.Line()
	require.NoError(t, err)
	require.Equal(t, "v <nil>", line)
	require.NoError(t, other.Wait())
}

func TestHowLongALoadGoesOnThatNobodyWaitsFor(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		o    aside.Options
		p    aside.Policy
		want time.Duration
	}{
		"by default":                 {want: 5 * time.Second},
		"as set":                     {o: aside.Options{LoadGrace: time.Second}, want: time.Second},
		"as its policy says":         {o: aside.Options{LoadGrace: time.Second}, p: aside.Policy{LoadGrace: 3 * time.Second}, want: 3 * time.Second},
		"not at all":                 {o: aside.Options{LoadGrace: -1}, want: 0},
		"not at all, of its policy":  {p: aside.Policy{LoadGrace: -1}, want: 0},
		"no longer than LoadTimeout": {o: aside.Options{LoadTimeout: 2 * time.Second, LoadGrace: time.Hour}, want: 2*time.Second - 100*time.Millisecond},
	} {
		for _, many := range []bool{false, true} {
			t.Run(name+", many "+strconv.FormatBool(many), func(t *testing.T) {
				t.Parallel()
				asidetest.InBubble(t, test.o, func(t *testing.T, c *aside.Cache) {
					p := test.p
					p.Name, p.Category, p.TTL = "graced", "graced", time.Hour
					ended := make(chan time.Time, 1)
					l := aside.NewBatchLoader(c, p, func(ctx context.Context, ids []int) (map[int]int, error) {
						<-ctx.Done()
						ended <- time.Now()
						return nil, ctx.Err()
					})
					ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
					defer cancel()
					var err error
					if many {
						_, err = l.GetMany(ctx, []int{1, 2})
					} else {
						_, err = l.Get(ctx, 1)
					}
					require.ErrorIs(t, err, context.DeadlineExceeded)
					left := time.Now()
					require.Equal(t, test.want, (<-ended).Sub(left))
				})
			})
		}
	}
}

// A source that is stuck has as many loads as may run at once, and each key one, however many callers come and leave.
func TestAStuckSourceGathersNoLoads(t *testing.T) {
	t.Parallel()
	for name, deaf := range map[string]bool{"heeds its context": false, "does not": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const most, keys = 8, 100
			pprof.SetGoroutineLabels(pprof.WithLabels(t.Context(), pprof.Labels("test", t.Name())))
			asidetest.InBubble(t, aside.Options{MaxLoads: most, Logger: asidetest.Quiet(), LoadTimeout: 20005 * time.Millisecond}, func(t *testing.T, c *aside.Cache) {
				var mu sync.Mutex
				running, peak := 0, 0
				of := make(map[int]int)
				stuck := true
				load := func(id int) func(context.Context) (int, error) {
					return func(ctx context.Context) (int, error) {
						mu.Lock()
						running++
						peak = max(peak, running)
						of[id]++
						n := of[id]
						isStuck := stuck
						mu.Unlock()
						if n > 1 && !deaf {
							t.Error("two loads of one key")
						}
						switch {
						case !isStuck:
						case deaf:
							time.Sleep(30 * time.Second)
						default:
							<-ctx.Done()
						}
						mu.Lock()
						defer mu.Unlock()
						running--
						of[id]--
						return id, ctx.Err()
					}
				}
				goroutines := 0
				for i := range 60 * 100 {
					go func() {
						ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
						defer cancel()
						_, _ = aside.GetOrLoad(ctx, c, asidetest.Items.Key(i%keys), load(i%keys))
					}()
					time.Sleep(10 * time.Millisecond)
					if i%100 == 99 {
						synctest.Wait()
						goroutines = max(goroutines, labelled(t))
					}
				}
				// Ten callers are there at a time, with a goroutine each and one for each of their loads.
				require.LessOrEqual(t, goroutines, 2*10+3*most)
				mu.Lock()
				require.Equal(t, most, peak)
				stuck = false
				mu.Unlock()
				time.Sleep(time.Minute)
				synctest.Wait()
				mu.Lock()
				require.Zero(t, running)
				mu.Unlock()
				for i := range keys {
					v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key(i), load(i))
					require.NoError(t, err)
					require.Equal(t, i, v)
				}
			})
		})
	}
}

// labelled counts the goroutines that those of the test have begun, whatever runs beside it.
func labelled(t *testing.T) (n int) {
	var profile strings.Builder
	require.NoError(t, pprof.Lookup("goroutine").WriteTo(&profile, 1))
	alike := 0
	for line := range strings.Lines(profile.String()) {
		_, _ = fmt.Sscanf(line, "%d @", &alike)
		if strings.HasPrefix(line, "# labels:") && strings.Contains(line, strconv.Quote(t.Name())) {
			n += alike
		}
	}
	require.NotZero(t, n)
	return n
}

// One source is slow, and its callers leave. Another one is well.
//
//  1. Callers of the slow source ask for as many keys as loads may run, and leave after a moment. Their loads go on.
//  2. A caller of the other source comes, and waits. Nobody waits for the loads that have all places.
//  3. The caller is served before a load is that nobody waits for.
func TestALoadThatNobodyWaitsForKeepsNobodyFromLoading(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{MaxLoads: 4, MaxQueuedLoads: 4}, func(t *testing.T, c *aside.Cache) {
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("slow", i), func(ctx context.Context) (string, error) {
					<-ctx.Done() // which it heeds
					return "", ctx.Err()
				})
				require.ErrorIs(t, err, context.DeadlineExceeded)
			})
		}
		all.Wait() // nobody waits for the slow source any more
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		v, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("well"), asidetest.Value("v"))
		t.Logf("after %v: %q %v", time.Since(began), v, err)
		require.NoError(t, err)
	})
}

// The same, told from the other end: callers of the healthy source are refused.
func TestLoadsThatNobodyWaitsForRefuseNobody(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{MaxLoads: 4, MaxQueuedLoads: -1}, func(t *testing.T, c *aside.Cache) {
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				_, _ = aside.GetOrLoad(ctx, c, asidetest.Items.Key("slow", i), func(ctx context.Context) (string, error) {
					<-ctx.Done()
					return "", ctx.Err()
				})
			})
		}
		all.Wait()
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("well"), asidetest.Value("v"))
		require.NoError(t, err)
	})
}

// A loader may ignore the end of its context. The load that has ended it has its place when it has come back, and no sooner.
func TestALoadThatNobodyWaitsForGivesUpItsPlaceWhenItHasComeBack(t *testing.T) {
	t.Parallel()
	for name, queued := range map[string]int{"a queue": 4, "no queue": -1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asidetest.InBubble(t, aside.Options{MaxLoads: 2, MaxQueuedLoads: queued}, func(t *testing.T, c *aside.Cache) {
				ask := func(id string, wait, takes time.Duration) error {
					ctx, cancel := context.WithTimeout(t.Context(), wait)
					defer cancel()
					_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key(id), func(context.Context) (string, error) {
						time.Sleep(takes) // deaf
						return "v", nil
					})
					return err
				}
				var all sync.WaitGroup
				for _, id := range []string{"a", "b"} {
					all.Go(func() { require.ErrorIs(t, ask(id, time.Second, 4*time.Second), context.DeadlineExceeded) })
				}
				all.Wait()
				began := time.Now()
				for _, id := range []string{"c", "d"} {
					all.Go(func() { require.NoError(t, ask(id, time.Minute, time.Second)) })
				}
				all.Wait()
				require.Equal(t, 3*time.Second+time.Second, time.Since(began), "the other two come back first")
			})
		})
	}
}

// A load that is deserted while others wait for a place ends at once; one that somebody waits for again keeps its place.
func TestALoadThatIsWantedAgainKeepsItsPlace(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{MaxLoads: 1, MaxQueuedLoads: 1}, func(t *testing.T, c *aside.Cache) {
		ask := func(id string, wait, takes time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key(id), func(ctx context.Context) (string, error) {
				select {
				case <-ctx.Done():
					return "", ctx.Err()
				case <-time.After(takes):
					return "v", nil
				}
			})
			return err
		}
		require.ErrorIs(t, ask("a", time.Second, 4*time.Second), context.DeadlineExceeded)
		var all sync.WaitGroup
		all.Go(func() { require.NoError(t, ask("a", 3500*time.Millisecond, time.Hour), "it joins the load") })
		synctest.Wait()
		began := time.Now()
		require.NoError(t, ask("b", time.Minute, time.Second))
		require.Equal(t, 3*time.Second+time.Second, time.Since(began), "it waits for its place")
		all.Wait()
		all.Go(func() { require.ErrorIs(t, ask("c", time.Second, time.Hour), context.DeadlineExceeded) })
		synctest.Wait()
		began = time.Now()
		require.NoError(t, ask("d", time.Minute, time.Second), "it has waited before the other one's caller left")
		require.Equal(t, 2*time.Second, time.Since(began))
		all.Wait()
	})
}

// What a framework uses again, such as the context of a request, may belong to another request once a caller has returned. With a LoadGrace
// of -1, the context that the loader has of it has ended by then.
func TestWithoutLoadGraceALoadsContextEndsBeforeItsOnlyCallerReturns(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{LoadGrace: -1})
		ctx, cancel := context.WithCancel(t.Context())
		loads := make(chan context.Context, 1)
		over := make(chan struct{})
		_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), func(ctx context.Context) (string, error) {
			loads <- ctx
			cancel()
			<-ctx.Done()
			<-over
			return "", ctx.Err()
		})
		require.ErrorIs(t, err, context.Canceled)
		require.Error(t, (<-loads).Err())
		close(over)
	})
}
