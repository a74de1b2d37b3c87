package aside_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

var reentrant = &aside.Error{Code: aside.CodeReentrant}

// Hazard 75: each loader asks, with its own context, for the key that the next one is loading, and the last one for the first.
func TestLoadsThatWouldWaitForEachOtherFailAtOnce(t *testing.T) {
	t.Parallel()
	one := func(ctx context.Context, c *aside.Cache, id int, load func(context.Context) (int, error)) error {
		_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key(id), load)
		return err
	}
	batch := func(ctx context.Context, c *aside.Cache, id int, load func(context.Context) (int, error)) error {
		_, err := aside.GetOrLoadMany(ctx, c, []int{id, 100 + id}, asidetest.ItemKey, func(ctx context.Context, ids []int) (map[int]int, error) {
			v, err := load(ctx)
			if err != nil {
				return nil, fmt.Errorf("for all ids: %w", err)
			}
			return map[int]int{id: v, 100 + id: v}, nil
		})
		return err
	}
	each := func(ctx context.Context, c *aside.Cache, id int, load func(context.Context) (int, error)) error {
		_, err := aside.NewLoader(c, asidetest.Items, func(ctx context.Context, _ int) (int, error) { return load(ctx) }).GetMany(ctx, []int{id, 200 + id})
		return err
	}
	for name, ask := range map[string]func(context.Context, *aside.Cache, int, func(context.Context) (int, error)) error{
		"single": one, "batch": batch, "a loader's batch": each,
	} {
		for _, length := range []int{2, 3, 7} {
			t.Run(fmt.Sprint(name, " ", length), func(t *testing.T) {
				t.Parallel()
				asidetest.InBubble(t, aside.Options{Logger: asidetest.Quiet()}, func(t *testing.T, c *aside.Cache) {
					began := time.Now()
					var calls sync.WaitGroup
					for i := range length {
						calls.Go(func() {
							err := ask(t.Context(), c, i, func(ctx context.Context) (int, error) {
								time.Sleep(time.Second) // until all of them run
								return 1, ask(ctx, c, (i+1)%length, func(context.Context) (int, error) { panic("it is under way") })
							})
							require.ErrorIs(t, err, reentrant)
						})
					}
					calls.Wait()
					require.Equal(t, time.Second, time.Since(began))
				})
			})
		}
	}
}

func TestLoadsOfTwoCachesThatWouldWaitForEachOtherFailAtOnce(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{Logger: asidetest.Quiet()}, func(t *testing.T, c *aside.Cache) {
		inBubbleToo, err := aside.New(aside.Options{Logger: asidetest.Quiet()})
		require.NoError(t, err)
		defer inBubbleToo.Close()
		caches := []*aside.Cache{c, inBubbleToo}
		began := time.Now()
		var calls sync.WaitGroup
		for i := range 2 {
			calls.Go(func() {
				_, err := aside.GetOrLoad(t.Context(), caches[i], asidetest.Items.Key("a"), func(ctx context.Context) (int, error) {
					time.Sleep(time.Second)
					return aside.GetOrLoad(ctx, caches[1-i], asidetest.Items.Key("a"), func(context.Context) (int, error) { panic("it is under way") })
				})
				require.ErrorIs(t, err, reentrant)
			})
		}
		calls.Wait()
		require.Equal(t, time.Second, time.Since(began))
	})
}

// What is no circle is none: two loads that ask for the same third one, and a load that asked for another and left it.
func TestLoadsThatWaitForOthersInNoCircleGoOn(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{Logger: asidetest.Quiet()}, func(t *testing.T, c *aside.Cache) {
		var calls sync.WaitGroup
		third := func(ctx context.Context) (int, error) {
			return aside.GetOrLoad(ctx, c, asidetest.Items.Key("third"), func(context.Context) (int, error) {
				time.Sleep(time.Second)
				return 3, nil
			})
		}
		for i := range 2 {
			calls.Go(func() {
				v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key(i), func(ctx context.Context) (int, error) {
					if i == 0 {
						_, _ = third(ctx)
						return third(ctx)
					}
					return third(ctx)
				})
				require.NoError(t, err)
				require.Equal(t, 3, v)
			})
		}
		calls.Wait()

		inB := make(chan struct{})
		calls.Go(func() {
			v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), func(ctx context.Context) (int, error) {
				<-inB
				hurried, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				_, err := aside.GetOrLoad(hurried, c, asidetest.Items.Key("b"), func(context.Context) (int, error) { panic("it is under way") })
				require.ErrorIs(t, err, context.DeadlineExceeded)
				time.Sleep(5 * time.Second)
				return 1, nil
			})
			require.NoError(t, err)
			require.Equal(t, 1, v)
		})
		v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("b"), func(ctx context.Context) (int, error) {
			close(inB)
			time.Sleep(2 * time.Second) // a has left by then
			return aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), func(context.Context) (int, error) { return 2, nil })
		})
		require.NoError(t, err)
		require.Equal(t, 1, v)
		calls.Wait()
	})
}

// Hazard 75: with the context of the caller around it, a load does not say that it is inside another one. All places are taken by
// loads that wait for such loads.
func TestLoadersThatCallBackWithAnotherContextDoNotBlockEachOther(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(ctx context.Context, c *aside.Cache, id int, load func(context.Context) (int, error)) (int, error){
		"single": func(ctx context.Context, c *aside.Cache, id int, load func(context.Context) (int, error)) (int, error) {
			return aside.GetOrLoad(ctx, c, asidetest.Items.Key(id), load)
		},
		"batch": func(ctx context.Context, c *aside.Cache, id int, load func(context.Context) (int, error)) (int, error) {
			got, err := aside.NewLoader(c, asidetest.Items, func(ctx context.Context, _ int) (int, error) { return load(ctx) }).GetMany(ctx, []int{id})
			return got[id], err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asidetest.InBubble(t, aside.Options{MaxLoads: 8, MaxQueuedLoads: 100, Logger: asidetest.Quiet()}, func(t *testing.T, c *aside.Cache) {
				began := time.Now()
				var running, most atomic.Int64
				var calls sync.WaitGroup
				for i := range 64 {
					calls.Go(func() {
						ctx := t.Context()
						v, err := ask(ctx, c, i, func(context.Context) (int, error) {
							defer running.Add(-1)
							most.Store(max(most.Load(), running.Add(1)))
							time.Sleep(time.Second)
							return ask(ctx, c, 1000+i, func(context.Context) (int, error) {
								return ask(ctx, c, 2000+i, func(context.Context) (int, error) { return i, nil })
							})
						})
						require.NoError(t, err)
						require.Equal(t, i, v)
					})
				}
				calls.Wait()
				require.Equal(t, 8*time.Second, time.Since(began))
				require.LessOrEqual(t, most.Load(), int64(8), "of those outside")
			})
		})
	}
}

// Hazard 76.
func TestThoseWhoRefreshAtTheSameTimeShareTheNextLoad(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]aside.CallOption{"Refresh": aside.Refresh(), "Strong": aside.Strong()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asidetest.InBubble(t, aside.Options{Logger: asidetest.Quiet()}, func(t *testing.T, c *aside.Cache) {
				const callers = 200
				var loads atomic.Int64
				var calls sync.WaitGroup
				batch := func(ctx context.Context) (int64, error) {
					got, err := aside.GetOrLoadMany(ctx, c, []string{"a"}, func(id string) aside.Key { return asidetest.Items.Key(id) }, func(context.Context, []string) (map[string]int64, error) {
						time.Sleep(time.Second)
						return map[string]int64{"a": loads.Add(1)}, nil
					}, opt)
					return got["a"], err
				}
				single := func(ctx context.Context) (int64, error) {
					return aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), func(context.Context) (int64, error) {
						time.Sleep(time.Second)
						return loads.Add(1), nil
					}, opt)
				}
				for i := range callers {
					calls.Go(func() {
						began, before := time.Now(), loads.Load()
						get := single
						if i%2 == 1 {
							get = batch
						}
						n, err := get(t.Context())
						require.NoError(t, err)
						if name == "Refresh" {
							require.Greater(t, n, before, "no load that began before the call")
						}
						require.LessOrEqual(t, time.Since(began), 2*time.Second)
					})
				}
				calls.Wait()
				if name == "Strong" { // whoever waited finds in memory what no invalidation has put out of date
					require.EqualValues(t, 1, loads.Load())
					return
				}
				require.EqualValues(t, 2, loads.Load())
				began := time.Now()
				n, err := single(t.Context())
				require.NoError(t, err)
				require.EqualValues(t, 3, n)
				require.Equal(t, time.Second, time.Since(began), "nobody else is there")
			})
		})
	}
}

func TestStrongThatWaitsForALoadDoesNotGetWhatWasInvalidatedMeanwhile(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{Logger: asidetest.Quiet()}, func(t *testing.T, c *aside.Cache) {
		doomed := asidetest.NewHeld()
		first := asidetest.Background(t, c, asidetest.Items.Key("a"), doomed.Load("old"), aside.Strong())
		<-doomed.Began
		second := asidetest.Background(t, c, asidetest.Items.Key("a"), asidetest.Value("new"), aside.Strong())
		synctest.Wait()
		_, err := c.Invalidate(t.Context(), asidetest.Items.Key("a"))
		require.NoError(t, err)
		close(doomed.Release)
		require.Equal(t, "old", <-first)
		require.Equal(t, "new", <-second)
	})
}

// A caller's time runs from its call, and a load that hangs is not waited for until its time is up.
func TestALoadThatHangsHoldsUpNoRefreshForLong(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{LoadTimeout: 40 * time.Second, Logger: asidetest.Quiet()}, func(t *testing.T, c *aside.Cache) {
		hang := make(chan struct{})
		go func() {
			_, _ = aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), func(context.Context) (int, error) { <-hang; return 1, nil }, aside.Refresh())
		}()
		synctest.Wait()
		began := time.Now()
		hurried, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := aside.GetOrLoad(hurried, c, asidetest.Items.Key("a"), func(context.Context) (int, error) { return 2, nil }, aside.Refresh())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))

		began = time.Now()
		v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), func(context.Context) (int, error) { return 2, nil }, aside.Refresh())
		require.NoError(t, err)
		require.Equal(t, 2, v)
		require.Equal(t, 10*time.Second, time.Since(began))

		go func() {
			_, _ = aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), func(context.Context) (int, error) { <-hang; return 1, nil }, aside.Refresh())
		}()
		synctest.Wait()
		began = time.Now()
		_, err = aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), func(context.Context) (int, error) { <-hang; return 3, nil }, aside.Refresh())
		require.ErrorIs(t, err, &aside.Error{Code: aside.CodeLoadTimeout})
		require.Equal(t, 40*time.Second, time.Since(began))
		close(hang)
	})
}

// Inside a load nobody waits for a load that is not shared: the two might wait for each other.
func TestARefreshInsideALoadDoesNotWait(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{Logger: asidetest.Quiet()}, func(t *testing.T, c *aside.Cache) {
		began := time.Now()
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("outer"), func(ctx context.Context) (int, error) {
			go func() {
				_, _ = aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), func(context.Context) (int, error) { time.Sleep(time.Second); return 1, nil }, aside.Refresh())
			}()
			synctest.Wait()
			return aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), func(context.Context) (int, error) { return 2, nil }, aside.Refresh())
		})
		require.NoError(t, err)
		require.Zero(t, time.Since(began))
		time.Sleep(time.Minute)
	})
}

// An exitingCodec ends the goroutine of whoever decodes with it.
type exitingCodec struct{}

func (*exitingCodec) Name() string { return "exiting" }

func (*exitingCodec) Marshal(any) ([]byte, error) { return []byte("v"), nil }

func (*exitingCodec) Unmarshal([]byte, any) error { runtime.Goexit(); return nil }

// Hazard 78: a batch has one key in memory, whose codec ends the caller's goroutine, and leads another one.
func TestAKeyIsLoadedHoweverItsBatchEnds(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{Logger: asidetest.Quiet(), LoadGrace: -1}, func(t *testing.T, c *aside.Cache) {
		private := aside.Policy{Name: "private", Category: "private", TTL: time.Hour, Codec: &exitingCodec{}, CloneOnRead: true}
		require.NoError(t, aside.Set(t.Context(), c, private.Key(1), "v"))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = aside.GetOrLoadMany(t.Context(), c, []int{2, 1, 3}, func(id int) aside.Key {
				if id == 1 {
					return private.Key(id)
				}
				return asidetest.Items.Key(id)
			}, func(ctx context.Context, ids []int) (map[int]string, error) {
				<-ctx.Done() // at once, since nobody waits for it any more
				return nil, ctx.Err()
			})
			t.Error("the codec ends the goroutine")
		}()
		<-ended
		synctest.Wait()
		began := time.Now()
		for id, want := range map[int]string{2: "two", 3: "three"} {
			v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key(id), asidetest.Value(want))
			require.NoError(t, err)
			require.Equal(t, want, v)
		}
		require.Zero(t, time.Since(began))
	})
}
