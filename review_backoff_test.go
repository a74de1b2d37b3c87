package aside_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

// Two policies of one category make the same keys, and the source of both is down. Each of them is held back as if it were alone.
func TestPoliciesThatShareAKeyAreHeldBackEach(t *testing.T) {
	t.Parallel()
	inBubble(t, aside.Options{Logger: quiet()}, func(t *testing.T, c *aside.Cache) {
		policies := []aside.Policy{aside.TTL.UserProfile, aside.TTL.UserCredits}
		loads := 0
		down := func(context.Context) (string, error) { loads++; return "", errors.New("down") }
		for range 100 {
			for _, p := range policies {
				_, err := aside.GetOrLoad(t.Context(), c, p.Key("u1"), down)
				require.Error(t, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		// One of them alone loads five times in that second.
		require.Less(t, loads, 20, "a broken source is spared")
	})
}

// The errors of loads that have failed are kept for as long as they may be told to somebody, and take bounded memory.
//
//  1. A source fails for many keys, once each, with errors that hold the body of its answers. Nobody is held back by a first failure.
//  2. Nobody asks any more.
func TestErrorsThatNobodyIsToldAreNotKept(t *testing.T) {
	inBubble(t, aside.Options{Logger: quiet()}, func(t *testing.T, c *aside.Cache) {
		heap := func() int {
			runtime.GC()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return int(m.HeapAlloc >> 20)
		}
		before := heap()
		for i := range 3000 { // of 32,768 that are remembered
			_, err := aside.GetOrLoad(t.Context(), c, items.Key(i), func(context.Context) (string, error) {
				return "", errors.New(strings.Repeat("x", 64<<10))
			})
			require.Error(t, err)
		}
		during := heap()
		time.Sleep(time.Hour)
		after := heap()
		t.Logf("heap: %d MiB before, %d MiB after 3,000 failures, %d MiB an hour later", before, during, after)
		require.Less(t, during-before, 50)
		require.Less(t, after-before, 50)
	})
}

// Loads of one key run side by side, since it was invalidated while they ran. One lost connection ends all of them: that is one failure.
func TestLoadsThatFailTogetherAreOneFailure(t *testing.T) {
	t.Parallel()
	inBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		lost := make(chan struct{})
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				_, err := aside.GetOrLoad(t.Context(), c, items.Key("a"), func(context.Context) (string, error) {
					<-lost
					return "", errors.New("the connection was lost")
				})
				require.Error(t, err)
			})
			synctest.Wait()
			_, err := c.Invalidate(t.Context(), items.Key("a"))
			require.NoError(t, err)
		}
		close(lost)
		all.Wait()
		_, err := aside.GetOrLoad(t.Context(), c, items.Key("a"), value("v"))
		require.NoError(t, err)
	})
}
