package flight

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCloseEndsEverybodysWaitAndWaitsForTheLoads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		calls := lead(t, &g, "a", "b", "resolved")
		landing := make(chan struct{})
		var seen context.Context
		late := make(chan bool, 1)
		g.Run(t.Context(), limit, func(ctx context.Context) {
			seen = ctx
			calls[2].Resolve(42, nil)
			<-ctx.Done()
			<-landing
			late <- calls[0].Resolve(1, nil)
		}, calls...)
		got := []<-chan result{wait(t.Context(), calls[0]), wait(t.Context(), calls[1]), wait(t.Context(), follow(t, &g, "a"))}
		synctest.Wait()

		closed := make(chan error, 2)
		go func() { closed <- g.Close(t.Context(), errClosed) }()
		for _, g := range got {
			require.Equal(t, errClosed, (<-g).err)
		}
		val, err := calls[2].Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 42, val)
		synctest.Wait()
		require.ErrorIs(t, seen.Err(), context.Canceled)
		require.Equal(t, errClosed, context.Cause(seen))
		require.Empty(t, closed, "the load has not returned")

		go func() { closed <- g.Close(t.Context(), errors.New("again")) }()
		synctest.Wait()
		require.Empty(t, closed, "the second Close waits too")
		for _, key := range []string{"a", "resolved", "new"} {
			_, err := follow(t, &g, key).Wait(t.Context())
			require.Equal(t, errClosed, err, "later calls fail, and with the first error")
			_, ok := g.Peek(key)
			require.False(t, ok)
		}

		close(landing)
		require.NoError(t, <-closed)
		require.NoError(t, <-closed)
		require.False(t, <-late)
		require.NoError(t, g.Close(t.Context(), errClosed))
		empty(t, &g)
	})
}

func TestCloseWaitsNoLongerThanItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		c := lead(t, &g, "k")[0]
		release := make(chan struct{})
		g.Run(t.Context(), limit, func(context.Context) { <-release }, c)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		require.ErrorIs(t, g.Close(ctx, errClosed), context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))
		_, err := c.Wait(t.Context())
		require.Equal(t, errClosed, err)
		close(release)
		require.NoError(t, g.Close(t.Context(), errClosed))
	})
}

func TestCloseWaitsForALoadThatWasGivenUpOrReplaced(t *testing.T) {
	t.Parallel()
	ways := map[string]func(t *testing.T, g *group, c *call){
		"timed out": func(t *testing.T, _ *group, c *call) {
			_, err := c.Wait(t.Context())
			require.Equal(t, ErrTimeout, err)
		},
		"left": func(t *testing.T, _ *group, c *call) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err := c.Wait(ctx)
			require.Equal(t, context.Canceled, err)
		},
		"guard down": func(_ *testing.T, _ *group, c *call) { lower(c) },
		"guard down, and replaced": func(t *testing.T, g *group, c *call) {
			lower(c)
			lead(t, g, "k")
		},
		"replaced by JoinNew": func(t *testing.T, g *group, _ *call) { leadNew(t, g, "k") },
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var g group
				c := lead(t, &g, "k")[0]
				release := make(chan struct{})
				g.Run(t.Context(), time.Second, func(ctx context.Context) { <-ctx.Done(); <-release }, c)
				way(t, &g, c)
				closed := make(chan error, 1)
				start := time.Now()
				go func() { closed <- g.Close(t.Context(), errClosed) }()
				synctest.Wait()
				require.Empty(t, closed)
				_, err := c.Wait(t.Context())
				require.Error(t, err)
				require.Equal(t, start, time.Now(), "the callers of a replaced load are told as well")
				close(release)
				require.NoError(t, <-closed)
			})
		})
	}
}

func TestCloseBetweenJoinAndRun(t *testing.T) {
	t.Parallel()
	for _, replaced := range []bool{false, true} {
		t.Run(fmt.Sprintf("replaced=%v", replaced), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var g group
				calls := lead(t, &g, "a", "b")
				follower := wait(t.Context(), follow(t, &g, "a"))
				if replaced {
					calls = append(calls, leadNew(t, &g, "a"))
				}
				require.NoError(t, g.Close(t.Context(), errClosed))
				if !replaced {
					require.Equal(t, errClosed, (<-follower).err, "told before the leader gets to Run")
				}
				ran := false
				g.Run(t.Context(), limit, func(context.Context) { ran = true }, calls...)
				for _, c := range calls {
					_, err := c.Wait(t.Context())
					require.Equal(t, errClosed, err)
				}
				if replaced {
					require.Equal(t, errClosed, (<-follower).err)
				}
				synctest.Wait()
				require.False(t, ran, "nothing is loaded for a closed group")
				empty(t, &g)
			})
		})
	}
}

func TestAnUnusedGroupCloses(t *testing.T) {
	t.Parallel()
	var g group
	require.NoError(t, g.Close(t.Context(), errClosed))
	_, err := follow(t, &g, "k").Wait(t.Context())
	require.Equal(t, errClosed, err)
	c, leads := g.JoinNew("k")
	require.False(t, leads, "there is nothing to lead")
	_, err = c.Wait(t.Context())
	require.Equal(t, errClosed, err)
	empty(t, &g)
}

func TestCloseKeepsAResultThatIsThereBeforeRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		c := lead(t, &g, "k")[0]
		require.True(t, c.Resolve(42, nil))
		require.NoError(t, g.Close(t.Context(), errClosed))
		_, ok := g.Peek("k")
		require.False(t, ok, "a closed group has nothing for those who come later")
		_, err := follow(t, &g, "k").Wait(t.Context())
		require.Equal(t, errClosed, err)
		g.Run(t.Context(), limit, func(context.Context) {}, c)
		val, err := c.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 42, val)
	})
}
