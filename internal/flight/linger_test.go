package flight

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A lone is a load that one caller has led and left, or more of them.
type lone struct {
	calls []*call
	ctx   context.Context
	end   chan struct{} // has the load return
}

// leave begins a load of keys, which lingers for so long, and has its callers leave.
func leave(t *testing.T, g *group, linger time.Duration, keys ...string) *lone {
	t.Helper()
	l := &lone{calls: lead(t, g, keys...), end: make(chan struct{})}
	for _, c := range l.calls {
		c.Linger(linger)
	}
	g.Run(t.Context(), limit, func(ctx context.Context) {
		l.ctx = ctx
		<-l.end
		for i, c := range l.calls {
			c.Resolve(i, nil)
		}
	}, l.calls...)
	synctest.Wait()
	for _, c := range l.calls {
		c.Leave()
	}
	return l
}

func TestALoadGoesOnForAWhileWhenNobodyWaitsForIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		l := leave(t, &g, time.Second, "a", "b")
		time.Sleep(time.Second - 1)
		require.NoError(t, l.ctx.Err())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.ErrorIs(t, l.ctx.Err(), context.Canceled)
		require.ErrorIs(t, context.Cause(l.ctx), errAbandoned)
		works(t, &g, "a")
		close(l.end)
		synctest.Wait()
		empty(t, &g)
	})
}

func TestThoseWhoComeJoinALoadThatNobodyWaitsFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		l := leave(t, &g, time.Second, "a", "b")
		for range 5 { // each leaves it a second more
			time.Sleep(900 * time.Millisecond)
			c := follow(t, &g, "b")
			time.Sleep(2 * time.Second)
			require.NoError(t, l.ctx.Err(), "somebody waits")
			c.Leave()
		}
		time.Sleep(900 * time.Millisecond)
		got := wait(t.Context(), follow(t, &g, "b"))
		close(l.end)
		r := <-got
		require.NoError(t, r.err)
		require.Equal(t, 1, r.val)
		synctest.Wait()
		empty(t, &g)
	})
}

func TestTheLongestTimeOfABatchCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		calls := lead(t, &g, "a", "b", "c")
		calls[1].Linger(2 * time.Second)
		calls[2].Linger(time.Second)
		var seen context.Context
		g.Run(t.Context(), limit, func(ctx context.Context) { seen = ctx; <-ctx.Done() }, calls...)
		synctest.Wait()
		calls[0].Resolve(0, nil)
		calls[1].Leave()
		time.Sleep(time.Minute / 2)
		require.NoError(t, seen.Err(), "somebody waits for the third")
		calls[2].Leave()
		time.Sleep(2*time.Second - 1)
		require.NoError(t, seen.Err())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.ErrorIs(t, seen.Err(), context.Canceled)
		empty(t, &g)
	})
}

func TestALoadThatOnlyWaitsEndsWithItsLastCaller(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		before, after func(c *call) // the last caller leaves
		ended         bool
	}{
		"it has waited by then":            {func(c *call) { c.Rest() }, nil, true},
		"it waits later":                   {nil, func(c *call) { c.Rest() }, true},
		"it waits no more":                 {func(c *call) { c.Rest(); c.Work() }, nil, false},
		"another goroutine of it works":    {func(c *call) { c.Work(); c.Rest() }, nil, false},
		"all of its goroutines wait":       {func(c *call) { c.Work(); c.Rest(); c.Rest() }, nil, true},
		"all of its goroutines wait later": {func(c *call) { c.Work(); c.Rest() }, func(c *call) { c.Rest() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var g group
				c := lead(t, &g, "a")[0]
				c.Linger(time.Second)
				var seen context.Context
				g.Run(t.Context(), limit, func(ctx context.Context) { seen = ctx; <-ctx.Done() }, c)
				synctest.Wait()
				if test.before != nil {
					test.before(c)
				}
				require.NoError(t, seen.Err(), "somebody waits for it")
				c.Leave()
				if test.after != nil {
					test.after(c)
				}
				if test.ended {
					require.ErrorIs(t, seen.Err(), context.Canceled)
				} else {
					require.NoError(t, seen.Err())
				}
				time.Sleep(time.Second)
				synctest.Wait()
				empty(t, &g)
			})
		})
	}
}

func TestALoadThatNobodyWaitsForEndsWithItsTimeAndWithTheGroup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		l := leave(t, &g, 2*limit, "a")
		time.Sleep(limit)
		synctest.Wait()
		require.ErrorIs(t, context.Cause(l.ctx), ErrTimeout)
		close(l.end)

		l = leave(t, &g, 2*limit, "a")
		go func() { time.Sleep(time.Second); close(l.end) }()
		require.NoError(t, g.Close(t.Context(), errClosed))
		require.ErrorIs(t, context.Cause(l.ctx), errClosed)
		empty(t, &g)
	})
}
