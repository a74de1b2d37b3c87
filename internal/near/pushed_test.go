package near

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/freshness"
)

func TestAPushedValueIsKeptForAWhileOutOfReach(t *testing.T) {
	t.Parallel()
	inBubble(t, roomy, func(t *testing.T, c *Cache, clock *Clock) {
		payload := [12]byte{1}
		value := new(string)
		put := func(payload [12]byte) {
			until := clock.Now() + int64(time.Hour)
			c.Put("k", &Entry{Value: value, Scope: &Scope{}, Until: until, LoadedAt: clock.Now(), Size: 10, Plan: &Plan{Times: freshness.Plain(until), Payload: payload}})
		}
		put(payload)
		require.Nil(t, c.Pushed("k", payload), "it is served")
		c.Push("k")
		require.Nil(t, c.Get("k"))
		require.Nil(t, c.Stale("k"))
		old, _ := c.Old("k")
		require.Nil(t, old)
		e, _, due := c.Ageing("k")
		require.Nil(t, e)
		require.False(t, due)
		for range c.All() {
			t.Fatal("it is listed")
		}
		require.Zero(t, c.Sweep())
		require.Same(t, value, c.Pushed("k", payload))
		require.Nil(t, c.Pushed("k", [12]byte{2}), "of another payload")
		require.Nil(t, c.Pushed("other", payload))

		time.Sleep(keptPushed)
		require.Nil(t, c.Pushed("k", payload))
		c.Sweep()
		require.Zero(t, c.Len())

		put(payload)
		c.Push("k")
		c.Push("k")
		require.Nil(t, c.Pushed("k", payload), "a second change before anybody has read the first one")
		put(payload)
		c.Push("k")
		require.False(t, c.Delete("k"), "nothing that was usable")
		require.Nil(t, c.Pushed("k", payload))
		put([12]byte{})
		c.Push("k")
		require.Zero(t, c.Len(), "of a value without chunks nothing is kept")
		put(payload)
		c.Push("k")
		put([12]byte{3})
		require.NotNil(t, c.Get("k"), "a newer value takes its place")
	})
}
