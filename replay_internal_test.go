package aside

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// What takes long and fails is not all that Redis does: in between there is a rest of four times as long.
func TestAReplayThatTakesLongAndFailsRests(t *testing.T) {
	t.Parallel()
	c, err := New(Options{
		Redis:  rueidis.ClientOption{InitAddress: []string{miniredis.RunT(t).Addr()}, ForceSingleClient: true},
		Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.Eventually(t, c.store.Up, 20*time.Second, time.Millisecond)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	due := make(chan struct{}, 1)
	due <- struct{}{}
	const took = 20 * time.Millisecond
	var ended time.Time
	rests := 0
	c.replay(ctx, due, func(context.Context) (some, all bool) {
		if !ended.IsZero() {
			require.GreaterOrEqual(t, time.Since(ended), 4*took) // a bound from below: no machine is too slow for it
			if rests++; rests == 3 {
				stop()
			}
		}
		time.Sleep(took) // the work
		ended = time.Now()
		return true, false
	})
	require.Equal(t, 3, rests)
}
