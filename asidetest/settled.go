package asidetest

import (
	"context"
	"testing"
	"time"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/settling"
)

// settleTimeout is how long Settled waits. It is longer than anything takes but a load that hangs.
const settleTimeout = time.Minute

// Settled waits until caches have nothing under way. Then
//
//   - every load has ended, loads in the background included, and its value is stored in Redis and in memory;
//   - Redis has confirmed every invalidation, and OnInvalidated has returned from each;
//   - the caches have handled what Redis had to notify them of: after an invalidation by one of them, none of the others serves the old value.
//
// Name all caches that share a Redis in one call. Settled waits for no server that is not in use: after an outage, wait with Ready for each cache before. It
// does not wait for loaders that outlive their LoadTimeout, for calls of other goroutines, for what other processes do, for checks of consistency, nor
// for the cleanup behind an invalidation (Receipt.WaitCleanup). If the caches do not settle within a minute, the test ends, with what is left. While
// Redis is away, an invalidation cannot be confirmed.
func Settled(t testing.TB, caches ...*aside.Cache) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	waits := make([]func(context.Context, any) error, len(caches), len(caches)+1)
	for i := range waits { // as many times as there are caches: the hook of one may begin something in another
		waits[i] = settling.Work
	}
	for _, wait := range append(waits, settling.Pushes) {
		for i, c := range caches {
			if c == nil {
				t.Fatalf("asidetest: Settled: cache %d is nil: make it with New", i)
				return
			}
			if err := wait(ctx, c); err != nil {
				t.Fatalf("asidetest: Settled: %v; Redis: %s", err, stateOf(c))
				return
			}
		}
	}
}

func stateOf(c *aside.Cache) string {
	h := c.Health()
	if h.Reason == "" {
		return string(h.State)
	}
	return string(h.State) + ", " + h.Reason
}
