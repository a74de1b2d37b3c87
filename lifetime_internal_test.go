package aside

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
		var l lifetime
		var inside atomic.Int64
		var callers sync.WaitGroup
		for range 4 {
			callers.Go(func() {
				for l.enter() {
					inside.Add(1)
					inside.Add(1)
					l.Go(func() { inside.Add(-1) })
					inside.Add(-1)
					l.leave()
				}
			})
		}
		l.close()
		require.NoError(t, l.wait(t.Context()))
		require.Zero(t, inside.Load())
		callers.Wait()
		l.Go(func() { t.Error("nothing begins after the wait") })
	}
}

func TestALifetimeIsWaitedForNoLongerThanAContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l lifetime
		stay := make(chan struct{})
		l.Go(func() { <-stay })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		l.close()
		require.ErrorIs(t, l.wait(ctx), context.DeadlineExceeded)
		l.Go(func() { t.Error("nothing begins after the wait") })
		close(stay)
		synctest.Wait()
	})
}
