package coherence_test

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// A server pushes a client's own changes behind the reply to them:
//
//  1. An invalidation drops the key from memory.
//  2. A read of the key is sent, and then the removal. The read finds the old value, and keeps it in memory.
//  3. The removal is confirmed, and the invalidation returns. The push that ends the old value is still on its way.
func TestNoReadKeepsWhatThisProcessHasInvalidated(t *testing.T) {
	t.Parallel()
	const enough = 5
	mayTake := time.Now().Add(3 * time.Minute)
	w := asidetest.Watch(t, redistest.Start(t))
	between := 0
	for round := 0; between < enough; round++ {
		require.True(t, time.Now().Before(mayTake), "a read came in between in %d rounds", between)
		key := asidetest.Items.Key(round)
		asidetest.InMemory(t, w.Cache, key, asidetest.Value("old"))
		gate := w.Proxy.HoldPushes(func(push []string) bool { return slices.Contains(push, key.String()) })
		w.Proxy.ResetCounts()
		ctx, stop := context.WithCancel(t.Context())
		var readers sync.WaitGroup
		var reads atomic.Int64
		for range 4 {
			readers.Go(func() {
				for ctx.Err() == nil {
					_, _ = aside.Get[string](ctx, w.Cache, key)
					reads.Add(1)
				}
			})
		}
		for reads.Load() < 4 {
			runtime.Gosched()
		}
		_, err := w.Invalidate(t.Context(), key)
		require.NoError(t, err)
		ended, end := context.WithCancel(t.Context())
		end()            // memory alone answers
		for range 1000 { // the read that came in between may keep its value a moment later
			_, err = aside.Get[string](ended, w.Cache, key)
			require.Error(t, err, "the old value, in round %d", round)
			runtime.Gosched()
		}
		for _, args := range w.Proxy.Log() {
			if asidetest.Evalsha(args, key.String()) {
				break
			}
			if args[0] == "GETRANGE" && args[1] == key.String() {
				between++
				break
			}
		}
		gate.Release()
		stop()
		readers.Wait()
	}
}
