package flight

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestABatchIsOneTripWhoseCallsAreResolvedEachInItsTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		failed := errors.New("no such thing")
		calls := lead(t, &g, "a", "b", "c")
		start := time.Now()
		runs := 0
		var first, second bool
		g.Run(t.Context(), limit, func(context.Context) {
			runs++
			time.Sleep(time.Second)
			first = calls[1].Resolve(2, nil)
			second = calls[1].Resolve(3, failed)
			time.Sleep(time.Second)
			calls[0].Resolve(1, nil)
			time.Sleep(time.Second)
			calls[2].Resolve(0, failed)
		}, calls...)
		got := map[string][]<-chan result{}
		for i, key := range []string{"a", "b", "c"} {
			got[key] = []<-chan result{wait(t.Context(), calls[i]), wait(t.Context(), follow(t, &g, key))}
		}
		want := map[string]result{
			"a": {1, nil, start.Add(2 * time.Second)},
			"b": {2, nil, start.Add(1 * time.Second)},
			"c": {0, failed, start.Add(3 * time.Second)},
		}
		for key, chans := range got {
			for _, ch := range chans {
				require.Equal(t, want[key], <-ch, key)
			}
		}
		require.Equal(t, 1, runs)
		require.True(t, first)
		require.False(t, second, "the first result stands")
		synctest.Wait()
		empty(t, &g)
	})
}

func TestABatchIsCancelledOnlyWhenNobodyWaitsForAnyOfItsKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		calls := lead(t, &g, "a", "b", "done")
		release := make(chan struct{})
		defer close(release)
		var seen context.Context
		g.Run(t.Context(), limit, func(ctx context.Context) {
			seen = ctx
			calls[2].Resolve(3, nil)
			<-release
		}, calls...)
		owner, ownerLeaves := context.WithCancel(t.Context())
		a, b := wait(owner, calls[0]), wait(owner, calls[1])
		single, singleLeaves := context.WithCancel(t.Context())
		joined := wait(single, follow(t, &g, "b"))
		synctest.Wait()

		ownerLeaves()
		require.Error(t, (<-a).err)
		require.Error(t, (<-b).err)
		synctest.Wait()
		require.NoError(t, seen.Err(), "b is still wanted, by somebody else")

		singleLeaves()
		require.Error(t, (<-joined).err)
		require.ErrorIs(t, seen.Err(), context.Canceled, "nobody waits, and what is resolved counts no more")
		val, ok := g.Peek("done")
		require.True(t, ok)
		require.Equal(t, 3, val)
		for _, key := range []string{"a", "b"} { // the doomed run is joined for none of its keys
			works(t, &g, key)
		}
	})
}

func TestAKeyOfABatchThatEverybodyHasLeftCanBeJoinedAgainWhileTheBatchIsWanted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		calls := lead(t, &g, "a", "b")
		release := make(chan struct{})
		var seen context.Context
		g.Run(t.Context(), limit, func(ctx context.Context) {
			seen = ctx
			select {
			case <-release:
				calls[0].Resolve(1, nil)
				calls[1].Resolve(2, nil)
			case <-ctx.Done():
			}
		}, calls...)
		leaves := func(key string, c *call) context.CancelFunc {
			ctx, cancel := context.WithCancel(t.Context())
			got := wait(ctx, c)
			return func() {
				cancel()
				require.Error(t, (<-got).err, key)
			}
		}
		leaveA, leaveB := leaves("a", calls[0]), leaves("b", calls[1])
		leaveA()
		again := wait(t.Context(), follow(t, &g, "a"))
		leaveB()
		synctest.Wait()
		require.NoError(t, seen.Err(), "who came back to a counts")
		leaves("b", follow(t, &g, "b"))()
		synctest.Wait()
		require.NoError(t, seen.Err())
		close(release)
		r := <-again
		require.NoError(t, r.err)
		require.Equal(t, 1, r.val)
	})
}

func TestABatchGoesOnForTheKeysThatAreNotResolvedYet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		calls := lead(t, &g, "a", "b", "c")
		step := make(chan struct{})
		var seen context.Context
		g.Run(t.Context(), limit, func(ctx context.Context) {
			seen = ctx
			calls[0].Resolve(1, nil)
			<-step
			calls[1].Resolve(2, ctx.Err())
			calls[2].Resolve(3, ctx.Err())
		}, calls...)
		ctx, leave := context.WithCancel(t.Context())
		c := wait(ctx, calls[2])
		b := wait(t.Context(), calls[1])
		synctest.Wait()
		leave()
		require.Error(t, (<-c).err)
		require.NoError(t, seen.Err(), "b is wanted")
		close(step)
		r := <-b
		require.NoError(t, r.err)
		require.Equal(t, 2, r.val)
	})
}

func TestAJoinerOfAResolvedKeyDoesNotKeepTheBatchWanted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		calls := lead(t, &g, "a", "b", "c")
		step := make(chan struct{})
		var seen context.Context
		g.Run(t.Context(), limit, func(ctx context.Context) {
			seen = ctx
			<-step
			calls[0].Resolve(1, nil)
			<-ctx.Done()
		}, calls...)
		ctxA, leaveA := context.WithCancel(t.Context())
		ctxB, leaveB := context.WithCancel(t.Context())
		ctxC, leaveC := context.WithCancel(t.Context())
		a, b, c := wait(ctxA, calls[0]), wait(ctxB, calls[1]), wait(ctxC, calls[2])
		leaveA()
		require.Error(t, (<-a).err)
		close(step)
		synctest.Wait()
		val, err := follow(t, &g, "a").Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, val)
		leaveC()
		require.Error(t, (<-c).err)
		require.NoError(t, seen.Err(), "b is wanted")
		leaveB()
		require.Error(t, (<-b).err)
		require.ErrorIs(t, seen.Err(), context.Canceled)
	})
}

func TestWhoLeavesAtTheMomentOfTheResultIsNotMissedTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		calls := lead(t, &g, "a", "b", "c")
		var seen context.Context
		g.Run(t.Context(), limit, func(ctx context.Context) {
			seen = ctx
			calls[0].Resolve(1, nil)
			<-ctx.Done()
		}, calls...)
		synctest.Wait()
		calls[0].Leave() // Wait had its choice between the result and an ended context, and took the latter
		calls[1].Leave()
		require.NoError(t, seen.Err(), "c is wanted")
		calls[2].Leave()
		require.ErrorIs(t, seen.Err(), context.Canceled)
	})
}

func TestWhatHappensBeforeRunCounts(t *testing.T) {
	t.Parallel()
	before := map[string]func(t *testing.T, c *call){
		"resolved": func(t *testing.T, c *call) { require.True(t, c.Resolve(1, nil)) },
		"left": func(t *testing.T, c *call) {
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			_, err := c.Wait(ended)
			require.Equal(t, context.Canceled, err)
		},
	}
	for name, before := range before {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var g group
				calls := lead(t, &g, "a", "b")
				before(t, calls[0])
				var seen context.Context
				g.Run(t.Context(), limit, func(ctx context.Context) {
					seen = ctx
					<-ctx.Done()
				}, calls...)
				ctx, leave := context.WithCancel(t.Context())
				b := wait(ctx, calls[1])
				synctest.Wait()
				require.NoError(t, seen.Err(), "b is wanted")
				leave()
				require.Error(t, (<-b).err)
				require.ErrorIs(t, seen.Err(), context.Canceled)
				synctest.Wait()
				empty(t, &g)
			})
		})
	}
}

func TestAKeyIsServedToWhoJoinsItAfterItsLeaderHasLeftAndBeforeRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		c := lead(t, &g, "k")[0]
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := c.Wait(ended)
		require.Equal(t, context.Canceled, err)
		joined := wait(t.Context(), follow(t, &g, "k"))
		g.Run(t.Context(), limit, func(ctx context.Context) { c.Resolve(1, ctx.Err()) }, c)
		r := <-joined
		require.NoError(t, r.err)
		require.Equal(t, 1, r.val)
	})
}
