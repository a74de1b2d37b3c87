package flight

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestIdleWaitsForEachCallAndEachLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g Group[string, int]
		require.NoError(t, g.Idle(t.Context()), "nothing has begun")

		release := make(chan struct{})
		first, lead := g.Join("a")
		require.True(t, lead)
		idle := make(chan error)
		go func() { idle <- g.Idle(t.Context()) }()
		waits := func(why string) {
			t.Helper()
			synctest.Wait()
			select {
			case err := <-idle:
				t.Fatal("Idle has returned before "+why, err)
			default:
			}
		}
		waits("the call has a load")
		g.Run(t.Context(), time.Minute, func(context.Context) {
			first.Resolve(1, nil)
			first.Forget()
			<-release // a value is stored after its callers have it
		}, first)
		waits("the load has returned")
		second, lead := g.Join("b")
		require.True(t, lead)
		close(release)
		waits("the other call has ended")
		g.Run(t.Context(), time.Minute, func(context.Context) { second.Resolve(2, nil) }, second)
		require.NoError(t, <-idle)
		first.Leave()
		second.Leave()
	})
}

func TestIdleEndsWithItsContextAndWithTheGroup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g Group[string, int]
		call, _ := g.Join("a")
		g.Run(t.Context(), time.Hour, func(ctx context.Context) { <-ctx.Done() }, call)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, g.Idle(ctx), context.DeadlineExceeded)

		forsaken, _ := g.Join("b")
		idle := make(chan error)
		go func() { idle <- g.Idle(t.Context()) }()
		synctest.Wait()
		require.NoError(t, g.Close(t.Context(), context.Canceled))
		require.NoError(t, <-idle)
		call.Leave()
		forsaken.Leave()
	})
}
