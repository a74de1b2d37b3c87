package flight

import (
	"context"
	"io"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestWhoComesAfterTheGuardIsDownStartsANewFlight(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"guard", "JoinNew"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var g group
				old := lead(t, &g, "k", "other")
				oldRelease, newRelease := make(chan struct{}), make(chan struct{})
				g.Run(t.Context(), limit, func(ctx context.Context) {
					<-oldRelease
					old[0].Resolve(1, ctx.Err())
					old[1].Resolve(10, ctx.Err())
				}, old...)
				waiting := wait(t.Context(), old[0])
				follower := wait(t.Context(), follow(t, &g, "k"))
				var next *call
				if name == "guard" {
					lower(&g, only("k"))
					next = lead(t, &g, "k")[0]
				} else {
					var leads bool
					next, leads = g.JoinNew("k")
					require.True(t, leads)
				}
				other := wait(t.Context(), follow(t, &g, "other")) // whose guard is up

				g.Run(t.Context(), limit, func(ctx context.Context) { <-newRelease; next.Resolve(2, ctx.Err()) }, next)
				close(oldRelease)
				for _, got := range []<-chan result{waiting, follower} {
					r := <-got
					require.NoError(t, r.err)
					require.Equal(t, 1, r.val, "who waited before gets the old result")
				}
				require.Equal(t, 10, (<-other).val)
				synctest.Wait() // the old flight has ended
				_, ok := g.Peek("k")
				require.False(t, ok)
				joined := wait(t.Context(), follow(t, &g, "k"))
				close(newRelease)
				r := <-joined
				require.NoError(t, r.err)
				require.Equal(t, 2, r.val)
			})
		})
	}
}

func TestAReplacedFlightThatFailsOrIsLeftDoesNotTouchTheNextOne(t *testing.T) {
	t.Parallel()
	ends := map[string]func(t *testing.T, c *call, leave context.CancelFunc){
		"fails": func(_ *testing.T, c *call, _ context.CancelFunc) { c.Resolve(0, io.EOF) },
		"left":  func(_ *testing.T, _ *call, leave context.CancelFunc) { leave() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var g group
				old := lead(t, &g, "k")[0]
				g.Run(t.Context(), limit, func(ctx context.Context) { <-ctx.Done() }, old)
				ctx, leave := context.WithCancel(t.Context())
				waiting := wait(ctx, old)
				lower(&g, only("k"))
				next := lead(t, &g, "k")[0]
				release := make(chan struct{})
				g.Run(t.Context(), limit, func(ctx context.Context) { <-release; next.Resolve(2, ctx.Err()) }, next)
				synctest.Wait()
				end(t, old, leave)
				require.Error(t, (<-waiting).err)
				synctest.Wait()
				joined := wait(t.Context(), follow(t, &g, "k"))
				close(release)
				r := <-joined
				require.NoError(t, r.err)
				require.Equal(t, 2, r.val)
				leave()
				require.NoError(t, g.Close(t.Context(), io.EOF))
			})
		})
	}
}

func TestAGuardThatIsUpAgainLetsCallersJoin(t *testing.T) {
	t.Parallel()
	var g group
	c := lead(t, &g, "k")[0]
	up := true
	c.Guard(func() bool { return up })
	require.Same(t, c, follow(t, &g, "k"))
	c.Resolve(1, nil)
	for _, up = range []bool{false, true} {
		_, ok := g.Peek("k")
		require.Equal(t, up, ok)
	}
	require.Same(t, c, follow(t, &g, "k"))
}

func TestAValueStaysJoinableUntilTheLoadHasReturned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		c := lead(t, &g, "k")[0]
		_, ok := g.Peek("k")
		require.False(t, ok, "not run yet")
		loaded, stored := make(chan struct{}), make(chan struct{})
		var seen context.Context
		g.Run(t.Context(), limit, func(ctx context.Context) {
			seen = ctx
			<-loaded
			c.Resolve(42, nil)
			<-stored
		}, c)
		waiting := wait(t.Context(), c)
		synctest.Wait()
		_, ok = g.Peek("k")
		require.False(t, ok, "not loaded yet")
		close(loaded)
		require.Equal(t, 42, (<-waiting).val)

		val, ok := g.Peek("k")
		require.True(t, ok)
		require.Equal(t, 42, val)
		for range 2 {
			val, err := follow(t, &g, "k").Wait(t.Context())
			require.NoError(t, err)
			require.Equal(t, 42, val)
		}
		require.NoError(t, seen.Err(), "nobody waits, but the value is being stored")
		close(stored)
		synctest.Wait()
		_, ok = g.Peek("k")
		require.False(t, ok)
		works(t, &g, "k")
	})
}

// lower lowers the guards of the calls that may be joined and whose key matches.
func lower[K comparable, V any](g *Group[K, V], match func(K) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, c := range g.calls {
		if match(key) {
			c.guard = func() bool { return false }
		}
	}
}

func only(key string) func(string) bool { return func(k string) bool { return k == key } }

func TestJoinNewLeadsAndLeavesTheOldCallToThoseWhoHaveIt(t *testing.T) {
	t.Parallel()
	var g group
	old, lead := g.Join("k")
	require.True(t, lead)
	fresh, lead := g.JoinNew("k")
	require.True(t, lead)
	joined, lead := g.Join("k")
	require.False(t, lead)
	require.Same(t, fresh, joined)
	for value, c := range map[int]*call{1: old, 2: fresh} {
		g.Run(t.Context(), limit, func(context.Context) { c.Resolve(value, nil) }, c)
		got, err := c.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, value, got)
	}
}
