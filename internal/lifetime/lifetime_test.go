package lifetime

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Hazard 61.
func TestWhatEntersALifetimeIsWaitedForOrRefused(t *testing.T) {
	t.Parallel()
	for range 200 {
		var g Group
		var inside atomic.Int64
		var callers sync.WaitGroup
		for range 4 {
			callers.Go(func() {
				for g.Enter() {
					inside.Add(1)
					inside.Add(1)
					g.Go(func() { inside.Add(-1) })
					inside.Add(-1)
					g.Leave()
				}
			})
		}
		g.Close()
		require.NoError(t, g.Wait(t.Context()))
		require.Zero(t, inside.Load())
		callers.Wait()
		g.Go(func() { t.Error("nothing begins after the wait") })
	}
}

func TestALifetimeIsWaitedForNoLongerThanAContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g Group
		stay := make(chan struct{})
		g.Go(func() { <-stay })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		g.Close()
		require.ErrorIs(t, g.Wait(ctx), context.DeadlineExceeded)
		g.Go(func() { t.Error("nothing begins after the wait") })
		close(stay)
		synctest.Wait()
	})
}
