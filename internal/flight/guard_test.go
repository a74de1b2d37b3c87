package flight

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// ways are those in which a new load of "k" begins while an old one is under way.
var ways = map[string]func(t *testing.T, g *group, old *call) (next *call){
	"JoinWhile": func(t *testing.T, g *group, old *call) *call {
		lower(old)
		return lead(t, g, "k")[0]
	},
	"JoinNew": func(t *testing.T, g *group, _ *call) *call { return leadNew(t, g, "k") },
	"Forget": func(t *testing.T, g *group, old *call) *call {
		old.Forget()
		return lead(t, g, "k")[0]
	},
}

// serves states that who joins key now gets val, once release is closed.
func serves(t *testing.T, g *group, key string, val int, release chan struct{}) {
	t.Helper()
	joined := wait(t.Context(), follow(t, g, key))
	close(release)
	r := <-joined
	require.NoError(t, r.err)
	require.Equal(t, val, r.val)
}

func TestWhoComesAfterALoadWasReplacedSharesTheNewOne(t *testing.T) {
	t.Parallel()
	for name, replace := range ways {
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
				next := replace(t, &g, old[0])
				other := wait(t.Context(), follow(t, &g, "other")) // not replaced

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
				serves(t, &g, "k", 2, newRelease)
			})
		})
	}
}

func TestTheEndOfAReplacedFlightDoesNotTouchTheNextOne(t *testing.T) {
	t.Parallel()
	ends := map[string]struct {
		end func(c *call, leave context.CancelFunc)
		err error // what those get who wait for the old one
	}{
		"fails":     {func(c *call, _ context.CancelFunc) { c.Resolve(0, io.EOF) }, io.EOF},
		"succeeds":  {func(c *call, _ context.CancelFunc) { c.Resolve(1, nil) }, nil},
		"left":      {func(_ *call, leave context.CancelFunc) { leave() }, context.Canceled},
		"forgotten": {func(c *call, leave context.CancelFunc) { c.Forget(); leave() }, context.Canceled},
		"timed out": {func(*call, context.CancelFunc) { time.Sleep(limit) }, ErrTimeout},
	}
	for way, replace := range ways {
		for name, test := range ends {
			t.Run(way+", "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					var g group
					old := lead(t, &g, "k")[0]
					var seen, seenNext context.Context
					g.Run(t.Context(), limit, func(ctx context.Context) {
						seen = ctx
						select {
						case <-ctx.Done():
						case <-old.done:
						}
					}, old)
					ctx, leave := context.WithCancel(t.Context())
					defer leave()
					waiting := wait(ctx, old)
					next := replace(t, &g, old)
					release := make(chan struct{})
					g.Run(t.Context(), 2*limit, func(ctx context.Context) {
						seenNext = ctx
						<-release
						next.Resolve(2, ctx.Err())
					}, next)
					synctest.Wait()
					require.NoError(t, seen.Err(), "somebody waits for the old load")
					test.end(old, leave)
					require.Equal(t, test.err, (<-waiting).err)
					synctest.Wait()
					require.Error(t, seen.Err())
					require.NoError(t, seenNext.Err())
					serves(t, &g, "k", 2, release)
					require.NoError(t, g.Close(t.Context(), io.EOF))
				})
			})
		}
	}
}

func TestAGuardConcernsItsOwnCallOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		calls := lead(t, &g, "k", "other")
		release := make(chan struct{})
		g.Run(t.Context(), limit, func(context.Context) { <-release }, calls...)
		defer close(release)
		lower(calls[0])
		require.Same(t, calls[1], follow(t, &g, "other"))
		next := lead(t, &g, "k")[0]
		require.NotSame(t, calls[0], next)
		require.Same(t, next, follow(t, &g, "k"), "the next call is not under the guard of the one that it replaces")
	})
}

func TestAGuardThatIsUpAgainLetsCallersJoin(t *testing.T) {
	t.Parallel()
	var g group
	c := lead(t, &g, "k")[0]
	up := true
	c.JoinWhile(condition(func() bool { return up }))
	require.Same(t, c, follow(t, &g, "k"))
	require.True(t, c.Resolve(1, nil))
	for _, up = range []bool{false, true, false, true} { // nobody has come meanwhile
		val, ok := g.Peek("k")
		require.Equal(t, up, ok)
		if up {
			require.Equal(t, 1, val)
			require.Same(t, c, follow(t, &g, "k"))
		} else {
			require.Zero(t, val)
		}
	}
	up = false
	next := lead(t, &g, "k")[0]
	up = true
	require.Same(t, next, follow(t, &g, "k"), "too late: it was replaced")
	_, ok := g.Peek("k")
	require.False(t, ok)
}

func TestTheLastGuardCounts(t *testing.T) {
	t.Parallel()
	var g group
	c := lead(t, &g, "k")[0]
	lower(c)
	c.JoinWhile(condition(func() bool { return true }))
	require.Same(t, c, follow(t, &g, "k"))
	lower(c)
	lead(t, &g, "k")
}

func TestAGuardThatGoesDownLeavesTheLoadToThoseWhoWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		c := lead(t, &g, "k")[0]
		release := make(chan struct{})
		var seen context.Context
		g.Run(t.Context(), limit, func(ctx context.Context) {
			seen = ctx
			<-release
			c.Resolve(1, nil)
		}, c)
		got := []<-chan result{wait(t.Context(), c), wait(t.Context(), follow(t, &g, "k"))}
		lower(c)
		synctest.Wait()
		require.NoError(t, seen.Err())
		close(release)
		for _, got := range got {
			r := <-got
			require.NoError(t, r.err)
			require.Equal(t, 1, r.val)
		}
		synctest.Wait()
		empty(t, &g)
	})
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

func TestJoinNewAlwaysLeadsAndLeavesTheOldCallToThoseWhoHaveIt(t *testing.T) {
	t.Parallel()
	var g group
	other := leadNew(t, &g, "other")
	calls := []*call{leadNew(t, &g, "k")} // where nothing is under way, too
	for len(calls) < 4 {
		calls = append(calls, leadNew(t, &g, "k"))
		require.Same(t, calls[len(calls)-1], follow(t, &g, "k"), "those who come later join it")
	}
	require.Same(t, other, follow(t, &g, "other"))
	for value, c := range calls {
		g.Run(t.Context(), limit, func(context.Context) { c.Resolve(value, nil) }, c)
		got, err := c.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, value, got)
	}
	require.NoError(t, g.Close(t.Context(), errClosed))
}
