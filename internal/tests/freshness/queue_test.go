package freshness_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

// Loads that wait for a place, and whose callers have left with an older value, take no room in the queue.
func TestLoadsInTheQueueThatNobodyWaitsForRefuseNobody(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{MaxLoads: 1, MaxQueuedLoads: 2, Backoff: -1}, func(t *testing.T, c *aside.Cache) {
		p := items(func(p *aside.Policy) {
			p.StaleIfError, p.SoftTimeout, p.LoadTimeout = time.Hour, time.Second, 30*time.Second
		})
		for _, id := range []string{"a", "b"} {
			requireLook(t, c, p.Key(id), &source{}, "v1", aside.StatusMiss, "not cached")
		}
		time.Sleep(ttl)
		go func() { _, _ = aside.GetOrLoad(t.Context(), c, p.Key("hog"), late(20*time.Second)) }()
		synctest.Wait()
		for _, id := range []string{"a", "b"} {
			go func() { _, _ = aside.GetOrLoad(t.Context(), c, p.Key(id), down) }()
		}
		time.Sleep(2 * time.Second)
		_, _, err := look(t, c, p.Key("c"), &source{})
		require.NoError(t, err)
		require.Zero(t, c.Metrics().Labels["items"].Overloads)
	})
}
