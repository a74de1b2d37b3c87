package redisstore

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/stats"
)

func TestNothingIsSentForACallerWhoHasLeft(t *testing.T) {
	t.Parallel()
	s := connected(t, miniredis.RunT(t).Addr())
	left, leave := context.WithCancel(t.Context())
	leave()
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	spent, cancel := (&Store{}).Budget(t.Context(), 0, 1)
	defer cancel()
	<-spent.Done()
	for _, ctx := range []context.Context{left, late, spent} {
		results := s.each(ctx, batch{content: content{names: make([]string, 2), plain: func(rueidis.Client, int) rueidis.Completed {
			t.Error("a command was made")
			return rueidis.Completed{}
		}}})
		require.Len(t, results, 2)
		for _, r := range results {
			require.ErrorIs(t, r.Error(), ctx.Err())
		}
	}
	require.Zero(t, only(s).failed.Load())
}

// Broken connections and callers that have gone would make Redis look fast.
func TestWhichRoundTripsAreTimed(t *testing.T) {
	t.Parallel()
	ended, end := context.WithCancel(t.Context())
	end()
	spent, cancel := (&Store{}).Budget(t.Context(), 0, 1)
	defer cancel()
	<-spent.Done()
	timedOut := rueidis.NewErrorResult(context.DeadlineExceeded)
	for name, c := range map[string]struct {
		ctx     context.Context
		answers []rueidis.RedisResult
		timed   bool
	}{
		"answered":                      {t.Context(), []rueidis.RedisResult{{}}, true},
		"missing":                       {t.Context(), []rueidis.RedisResult{rueidis.NewErrorResult(rueidis.Nil)}, true},
		"answered in part":              {t.Context(), []rueidis.RedisResult{rueidis.NewErrorResult(io.EOF), {}}, true},
		"too slow":                      {spent, []rueidis.RedisResult{timedOut}, true},
		"too slow for a caller of ours": {ended, []rueidis.RedisResult{timedOut}, false},
		"broken":                        {t.Context(), []rueidis.RedisResult{rueidis.NewErrorResult(io.EOF)}, false},
		"not sent":                      {t.Context(), nil, false},
	} {
		s := &Store{trips: Trips{Counts: new(stats.RoundTrips)}}
		s.noteTrip(c.ctx, stats.Reading, time.Second, c.answers)
		sum := s.trips.Counts[stats.Reading].Read(func(float64, uint64) {})
		require.Equal(t, c.timed, sum == 1, name)
	}
	s := &Store{trips: Trips{Counts: new(stats.RoundTrips)}}
	s.noteTrip(t.Context(), stats.Other, time.Second, []rueidis.RedisResult{{}})
	for of := range s.trips.Counts {
		sum := s.trips.Counts[of].Read(func(float64, uint64) {})
		require.Zero(t, sum)
	}
}

// A script that is new here must say what it is for.
func TestEachScriptHasAPurpose(t *testing.T) {
	t.Parallel()
	for _, script := range scripts {
		require.Equal(t, script == writeProbe || script == writeWatermark, script.trip == stats.Other, script.text)
	}
}
