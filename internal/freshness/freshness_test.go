package freshness

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEachPhaseEndsWhereTheNextOneBegins(t *testing.T) {
	t.Parallel()
	times := Times{RefreshAt: 10, FreshUntil: 20, StaleUntil: 30, DeadUntil: 40}
	for now, want := range map[int64]Phase{
		-1: Fresh, 9: Fresh, 10: Ageing, 19: Ageing, 20: Stale, 29: Stale, 30: OnError, 39: OnError, 40: Dead, 1000: Dead,
	} {
		require.Equal(t, want, times.At(now), now)
	}
	require.Equal(t, Fresh, Plain(10).At(9))
	require.Equal(t, Dead, Plain(10).At(10))
}

func TestTheTimesOfAValue(t *testing.T) {
	t.Parallel()
	const s = int64(time.Second)
	for name, test := range map[string]struct {
		windows Windows
		took    time.Duration
		draw    float64
		want    Times
	}{
		"no strategy":                    {Windows{}, time.Second, 0, Times{100 * s, 100 * s, 100 * s, 100 * s}},
		"stale":                          {Windows{Stale: 5 * time.Second}, time.Second, 0.9, Times{100 * s, 100 * s, 105 * s, 105 * s}},
		"on error":                       {Windows{OnError: time.Minute}, time.Second, 0, Times{100 * s, 100 * s, 100 * s, 160 * s}},
		"both":                           {Windows{Stale: time.Second, OnError: time.Minute}, 0, 0, Times{100 * s, 100 * s, 101 * s, 160 * s}},
		"ahead":                          {Windows{Ahead: 0.2}, time.Second, 0, Times{80 * s, 100 * s, 100 * s, 100 * s}},
		"ahead, by a draw":               {Windows{Ahead: 0.2}, time.Second, 0.5, Times{85 * s, 100 * s, 100 * s, 100 * s}},
		"ahead, of a slow load":          {Windows{Ahead: 0.05}, 10 * time.Second, 0, Times{80 * s, 100 * s, 100 * s, 100 * s}},
		"ahead, of a much too slow load": {Windows{Ahead: 0.05}, time.Hour, 0.5, Times{50 * s, 100 * s, 100 * s, 100 * s}},
	} {
		require.Equal(t, test.want, test.windows.Times(0, 100*s, test.took, test.draw), name)
	}
}

func TestTheTimesOfAnyValueAreInTheirOrder(t *testing.T) {
	t.Parallel()
	for range 10000 {
		w := Windows{rand.Float64() / 2, time.Duration(rand.Int64N(1000)), time.Duration(rand.Int64N(1000))}
		loaded, ttl := rand.Int64N(1000), rand.Int64N(1000)
		times := w.Times(loaded, loaded+ttl, time.Duration(rand.Int64N(2000)), rand.Float64())
		require.LessOrEqual(t, loaded+ttl/2, times.RefreshAt)
		require.LessOrEqual(t, times.RefreshAt, times.FreshUntil)
		require.LessOrEqual(t, times.FreshUntil, times.StaleUntil)
		require.LessOrEqual(t, times.StaleUntil, times.DeadUntil)
		require.Equal(t, loaded+ttl+int64(w.Rest()), times.DeadUntil)
	}
}
