package aside_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
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

// docs/codecs.md says of a value that is refused as another build's: each process loads its own once, and keeps it in memory. For Strong
// calls that is not so: memory does not answer these.
func TestAnotherBuildsValueIsLoadedOnceByStrongCallsToo(t *testing.T) {
	t.Parallel()
	type older struct{ ID, Price int }
	type newer struct{ ID, Cost int }
	server := redistest.Start(t)
	a, b := connected(t, at(server.Addr())), connected(t, at(server.Addr()))
	require.NoError(t, aside.Set(t.Context(), a, items.Key("a"), older{1, 12}))
	loads := 0
	for range 5 {
		_, err := aside.GetOrLoad(t.Context(), b, items.Key("a"), func(context.Context) (newer, error) { loads++; return newer{1, 12}, nil }, aside.Strong())
		require.NoError(t, err)
	}
	require.Equal(t, 1, loads)
}

// Nor is it so where the server does not tell of changes: there the builds push out each other's values.
func TestAnotherBuildsValueIsLoadedOnceOnAServerWithoutTracking(t *testing.T) {
	t.Parallel()
	type older struct{ ID, Price int }
	type newer struct{ ID, Cost int }
	addr := mini(t)
	a, b := connected(t, at(addr)), connected(t, at(addr))
	loads := 0
	for range 5 {
		_, err := aside.GetOrLoad(t.Context(), a, items.Key("a"), func(context.Context) (older, error) { loads++; return older{1, 12}, nil })
		require.NoError(t, err)
		_, err = aside.GetOrLoad(t.Context(), b, items.Key("a"), func(context.Context) (newer, error) { loads++; return newer{1, 12}, nil })
		require.NoError(t, err)
		time.Sleep(100 * time.Millisecond)
	}
	require.LessOrEqual(t, loads, 2)
}
