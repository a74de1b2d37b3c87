package redisstore

import (
	"context"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/require"
)

// withSomethingDue is a store that is connected, and something to send.
func withSomethingDue(t *testing.T, server *miniredis.Miniredis) (*Store, chan struct{}) {
	t.Helper()
	s := connected(t, server.Addr())
	due := make(chan struct{}, 1)
	due <- struct{}{}
	return s, due
}

// What takes long and fails is not all that Redis does: in between there is a rest of four times as long.
func TestAReplayThatTakesLongAndFailsRests(t *testing.T) {
	t.Parallel()
	s, due := withSomethingDue(t, miniredis.RunT(t))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	const took = 20 * time.Millisecond
	var ended time.Time
	rests := 0
	s.Retry(ctx, due, func(context.Context) (some, all bool) {
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

// A try that is cut off because Redis is lost says nothing of how long the next one takes: it is made as soon as Redis is back.
func TestAReplayThatRedisWasLostInIsSoonTriedAgain(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	s, due := withSomethingDue(t, server)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var ended time.Time
	var took, rest time.Duration
	s.Retry(ctx, due, func(context.Context) (some, all bool) {
		if !ended.IsZero() {
			rest = time.Since(ended)
			stop()
			return true, false
		}
		began := time.Now()
		server.Close()
		for s.Up() || time.Since(began) < 2*time.Second {
			time.Sleep(time.Millisecond) // the work
		}
		ended = time.Now()
		took = ended.Sub(began)
		return true, false
	})
	require.Less(t, rest, min(4*took, 5*time.Second), "not four times as long as the first try took, nor the longest pause")
}
