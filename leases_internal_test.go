package aside

import (
	"log/slog"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

func TestSetsWhileRedisIsAwayLeaveNoLeasesToGiveBack(t *testing.T) {
	t.Parallel()
	c, err := New(Options{
		Redis:  rueidis.ClientOption{InitAddress: []string{"127.0.0.1:1"}, ForceSingleClient: true}, // where nobody listens
		Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	key := (&Policy{Name: "items", Category: "items", TTL: time.Hour}).Key("a")
	for range 100 {
		require.NoError(t, Set(t.Context(), c, key, "v"))
	}
	require.NoError(t, c.Close()) // it waits for what they have begun
	some, _ := c.leases.ReleaseAgain(t.Context())
	require.False(t, some)
}
