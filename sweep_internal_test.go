package aside

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

// What was in doubt and is sent again is swept and counted like anything else.
func TestWhatIsConfirmedAgainIsSweptAndCounted(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	c, err := New(Options{
		Redis:     rueidis.ClientOption{InitAddress: []string{proxy.Addr()}, ForceSingleClient: true},
		OpTimeout: 5 * time.Second, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	defer c.Close()
	require.Eventually(t, c.store.Up, 20*time.Second, time.Millisecond)
	policy := Policy{Name: "items", Category: "items", TTL: time.Hour}
	require.NoError(t, Set(t.Context(), c, policy.Key("a"), "v", WithTags("x")))
	require.NoError(t, Set(t.Context(), c, policy.Key("b"), "v"))
	for _, tt := range []struct {
		bumped     string
		invalidate func() (Receipt, error)
	}{
		{"%t:x", func() (Receipt, error) { return c.InvalidateTags(t.Context(), "x") }},
		{"%c:items", func() (Receipt, error) { return c.InvalidateCategory(t.Context(), "items") }},
	} {
		gate := proxy.HoldReplies(func(args []string) bool {
			return strings.EqualFold(args[0], "EVALSHA") && args[3] == tt.bumped
		})
		receipts := make(chan Receipt, 1)
		go func() {
			r, err := tt.invalidate()
			if err != nil {
				t.Error(err)
			}
			receipts <- r
		}()
		gate.Wait(t)
		c.journal.ConnectionLost()
		gate.Release()
		r := <-receipts
		require.False(t, r.Confirmed, tt.bumped)
		require.NoError(t, r.Wait(t.Context()))
		removed, err := r.Swept(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 1, removed, tt.bumped)
	}
}
