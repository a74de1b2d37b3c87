package flight

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// flying runs a call of its own group that ends when the test does.
func flying(t *testing.T, keys ...string) []*call {
	t.Helper()
	var g group
	calls := lead(t, &g, keys...)
	g.Run(t.Context(), limit, func(ctx context.Context) { <-ctx.Done() }, calls...)
	t.Cleanup(func() { _ = g.Close(context.Background(), errors.New("over")) })
	return calls
}

// Hazard 75.
func TestALoadDoesNotWaitForOneThatWaitsForIt(t *testing.T) {
	t.Parallel()
	a, b, c := flying(t, "a", "a2"), flying(t, "b", "b2"), flying(t, "c")
	require.True(t, a[0].Await(b[0]))
	require.True(t, b[1].Await(c[0]), "a batch is one load")
	require.False(t, c[0].Await(a[1]))
	require.False(t, b[0].Await(a[0]))
	require.False(t, a[0].Await(a[1]), "its own")
	require.True(t, a[0].Await(c[0]), "twice the same one is no circle")

	b[0].Forgo(c[0])
	require.True(t, c[0].Await(b[0]))
	require.False(t, b[0].Await(c[0]))
	require.False(t, c[0].Await(a[0]), "a waits for c itself")
	a[0].Forgo(c[0])
	require.True(t, c[0].Await(a[0]))
}

func TestALoadThatWaitsTwiceForOneWaitsUntilBothAreDone(t *testing.T) {
	t.Parallel()
	a, b := flying(t, "a")[0], flying(t, "b")[0]
	require.True(t, a.Await(b))
	require.True(t, a.Await(b))
	a.Forgo(b)
	require.False(t, b.Await(a))
	a.Forgo(b)
	require.True(t, b.Await(a))
}

func TestNobodyWaitsForWhatIsThere(t *testing.T) {
	t.Parallel()
	a, b := flying(t, "a")[0], flying(t, "b", "b2")
	require.True(t, a.Await(b[0]))
	require.False(t, b[1].Await(a))
	b[0].Resolve(1, nil) // the others of its batch may take longer
	require.True(t, b[1].Await(a))
}

func TestACallThatIsNotRunYetWaitsForNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		calls := lead(t, &g, "a", "b")
		require.True(t, calls[0].Await(calls[1]), "it is not in a load")
		calls[0].Forgo(calls[1])
		g.Run(t.Context(), limit, func(context.Context) {
			require.True(t, calls[0].Await(calls[1]), "b is not run yet")
			g.Run(t.Context(), limit, func(context.Context) {
				require.False(t, calls[1].Await(calls[0]))
			}, calls[1])
			time.Sleep(time.Second)
		}, calls[0])
		synctest.Wait()
		time.Sleep(2 * time.Second)
	})
}

// Of many loads that all wait for each other at the same time, at least one must find it, and no order may deadlock.
func TestOfLoadsThatComeAtTheSameTimeTheLastOneFindsTheCircle(t *testing.T) {
	t.Parallel()
	for range 200 {
		calls := []*call{flying(t, "a")[0], flying(t, "b")[0], flying(t, "c")[0]}
		var found sync.Map
		var loads sync.WaitGroup
		for i, c := range calls {
			loads.Go(func() {
				if !c.Await(calls[(i+1)%len(calls)]) {
					found.Store(i, true)
				}
			})
		}
		loads.Wait()
		n := 0
		found.Range(func(any, any) bool { n++; return true })
		require.Equal(t, 1, n)
	}
}

func TestACallThatIsForsakenEndsAndOneThatIsRunDoesNot(t *testing.T) {
	t.Parallel()
	var g group
	c := lead(t, &g, "k")[0]
	joined := wait(t.Context(), follow(t, &g, "k"))
	c.Forsake(ErrGoexit)
	require.ErrorIs(t, (<-joined).err, ErrGoexit)
	c.Leave()

	c = lead(t, &g, "k")[0]
	g.Run(t.Context(), limit, func(context.Context) { c.Resolve(1, nil) }, c)
	c.Forsake(ErrGoexit)
	n, err := c.Wait(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, n)
}
