package aside_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

// A source that hangs answers with a time-out of its own, as net/http's client does, later than callers wait for it:
//
//  1. a caller with a second leads the load; the source's client has two
//  2. the caller leaves
//  3. the client fails with a time limit of its own, which looks like the caller's end
//  4. the load counts as one that failed for the caller's sake, every time, and nobody is ever held back
func TestASourceWhoseOwnTimeLimitIsLongerThanItsCallersIsHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(t, aside.Options{})
		loads := 0
		for range 50 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, _ = aside.GetOrLoad(ctx, c, items.Key("a"), func(context.Context) (int, error) {
				loads++
				time.Sleep(2 * time.Second)
				return 0, fmt.Errorf("Get \"https://source\": %w", context.DeadlineExceeded)
			})
			cancel()
			time.Sleep(1010 * time.Millisecond)
		}
		require.Less(t, loads, 45, "loads in 50 calls: the back-off is up to five seconds")
	})
}
