package aside_test

import (
	"context"
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

func TestNoMoreThanMaxLoadsRunAtOnceAndTheOthersTakeTheirTurn(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{MaxLoads: 3}, func(t *testing.T, c *aside.Cache) {
		var running, most atomic.Int64
		var order []int
		var mu sync.Mutex
		var calls sync.WaitGroup
		for i := range 12 {
			calls.Go(func() {
				_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key(i), func(context.Context) (int, error) {
					now := running.Add(1)
					defer running.Add(-1)
					most.Store(max(most.Load(), now))
					mu.Lock()
					order = append(order, i)
					mu.Unlock()
					time.Sleep(time.Second)
					return i, nil
				})
				require.NoError(t, err)
			})
			synctest.Wait()
		}
		began := time.Now()
		calls.Wait()
		require.Equal(t, 4*time.Second, time.Since(began))
		require.EqualValues(t, 3, most.Load())
		for i, id := range order {
			require.Equal(t, i/3, id/3, "in their order: %v", order)
		}
	})
}

func TestALoadForWhichThereIsNoRoomIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ queue, waiting int }{"default": {0, 4}, "two": {2, 2}, "none": {-1, 0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asidetest.InBubble(t, aside.Options{MaxLoads: 1, MaxQueuedLoads: test.queue}, func(t *testing.T, c *aside.Cache) {
				slow := func(context.Context) (int, error) { time.Sleep(time.Second); return 1, nil }
				var calls sync.WaitGroup
				for i := range 1 + test.waiting {
					calls.Go(func() {
						_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key(i), slow)
						require.NoError(t, err)
					})
				}
				synctest.Wait()
				began := time.Now()
				_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("one too many"), slow)
				require.ErrorIs(t, err, &aside.Error{Code: aside.CodeOverloaded})
				require.Zero(t, time.Since(began))
				require.EqualValues(t, 1, c.Metrics().Labels["items"].Overloads)
				calls.Wait()
				_, err = aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("one too many"), slow)
				require.NoError(t, err, "a refusal is no failure that others are held back for")
			})
		})
	}
}

func TestWhoLeavesTheQueueMakesRoom(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{MaxLoads: 1, MaxQueuedLoads: 1}, func(t *testing.T, c *aside.Cache) {
		slow := func(context.Context) (int, error) { time.Sleep(time.Second); return 1, nil }
		var calls sync.WaitGroup
		calls.Go(func() { _, _ = aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("running"), slow) })
		synctest.Wait()
		leaving, leave := context.WithCancel(t.Context())
		calls.Go(func() {
			_, err := aside.GetOrLoad(leaving, c, asidetest.Items.Key("leaving"), func(context.Context) (int, error) { panic("it has left") })
			require.ErrorIs(t, err, context.Canceled)
		})
		synctest.Wait()
		leave()
		synctest.Wait()
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("next"), slow)
		require.NoError(t, err)
		calls.Wait()
	})
}

// With one place, a loader that waits for another load would wait for ever if that needed a place too, whether the loader
// leads it or joins it where it stands in the queue.
func TestALoadInsideALoadTakesNoPlace(t *testing.T) {
	t.Parallel()
	for _, queued := range []bool{false, true} {
		asidetest.InBubble(t, aside.Options{MaxLoads: 1}, func(t *testing.T, c *aside.Cache) {
			inner := func(ctx context.Context) (int, error) {
				return aside.GetOrLoad(ctx, c, asidetest.Items.Key("inner"), func(context.Context) (int, error) { return 2, nil })
			}
			var calls sync.WaitGroup
			calls.Go(func() {
				v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("outer"), func(ctx context.Context) (int, error) {
					time.Sleep(time.Second)
					return inner(ctx)
				})
				require.NoError(t, err)
				require.Equal(t, 2, v)
			})
			synctest.Wait()
			if queued {
				calls.Go(func() { _, _ = inner(t.Context()) })
			}
			began := time.Now()
			calls.Wait()
			require.LessOrEqual(t, time.Since(began), time.Second)
		})
	}
}

func TestALoaderThatPanicsOrExitsLeavesItsPlace(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{MaxLoads: 1, Backoff: -1}, func(t *testing.T, c *aside.Cache) {
		for _, bad := range []func(context.Context) (int, error){
			func(context.Context) (int, error) { panic("oops") },
			func(context.Context) (int, error) { runtime.Goexit(); return 0, nil },
		} {
			_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), bad)
			require.Error(t, err)
		}
		v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), func(context.Context) (int, error) { return 1, nil })
		require.NoError(t, err)
		require.Equal(t, 1, v)
	})
}

// A loader asks the cache for something of a slow source. That load has no place of its own: the one that waits for it has lent its place.
//
//  1. the loader's callers leave, and both loads go on for LoadGrace
//  2. somebody else needs a place: the outer load ends, and gives back its place
//  3. the inner one, for which nobody waits any more, has none to give back. Were it to go on, there would be one more at each turn
func TestALoadWithoutAPlaceThatNobodyWaitsForEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{MaxLoads: 2})
		var running, most atomic.Int64
		for i := range 60 {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("outer", i), func(ctx context.Context) (int, error) {
				return aside.GetOrLoad(ctx, c, asidetest.Items.Key("inner", i), func(ctx context.Context) (int, error) {
					if n := running.Add(1); n > most.Load() {
						most.Store(n)
					}
					defer running.Add(-1)
					select {
					case <-time.After(10 * time.Second):
					case <-ctx.Done():
					}
					return 0, ctx.Err()
				})
			})
			cancel()
			require.Error(t, err)
		}
		require.LessOrEqual(t, most.Load(), int64(4), "loads of the slow source at once, where MaxLoads is 2")
	})
}
