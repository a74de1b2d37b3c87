package faults_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/outside"
	"github.com/gatewayz/aside/internal/redistest"
)

// A server that is out of memory confirms removals. What a key of the admin API has had confirmed is written down there all the same:
// otherwise its room would be used up, and its further orders refused, for as long as that lasts.
func TestAServerWithoutMemoryGivesBackTheRoomOfWhatItConfirms(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--maxmemory-policy", "noeviction")
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.Stored(t, c, asidetest.Items.Key("first"), "value")
	server.MustDo(t, "CONFIG", "SET", "maxmemory", "1")
	ctx := outside.With(t.Context(), "caller")
	for order := range 40 {
		keys := make([]aside.Key, 1000)
		for i := range keys {
			keys[i] = asidetest.Items.Key(order, i)
		}
		require.Eventually(t, func() bool {
			r, err := c.Invalidate(ctx, keys...)
			return err == nil && r.Confirmed
		}, asidetest.Bound, 20*time.Millisecond, "order %d", order)
	}
}
