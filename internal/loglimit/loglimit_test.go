package loglimit

import (
	"bytes"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestALimiterAllowsTheFirstLineAndThenOneInAPause(t *testing.T) {
	t.Parallel()
	var l Limiter
	start := int64(time.Hour)
	allow := func(now int64) (ok bool) { _, ok = l.Allow(now); return ok }
	require.True(t, allow(start))
	require.False(t, allow(start))
	require.False(t, allow(start+int64(Pause)-1))
	require.True(t, allow(start+int64(Pause)))
	require.False(t, allow(start+int64(Pause)+1), "the pause begins again with each line")
}

func TestALimiterSaysHowManyLinesWereSuppressed(t *testing.T) {
	t.Parallel()
	var l Limiter
	for pause, lines := range []int64{5, 1, 7} {
		for n := range lines {
			suppressed, ok := l.Allow(int64(pause) * int64(Pause))
			require.Equal(t, n == 0, ok)
			require.Equal(t, map[bool]int64{true: []int64{0, 4, 0}[pause]}[ok], suppressed)
		}
	}
	var buf bytes.Buffer
	log := slog.New(slog.NewTextHandler(&buf, nil))
	log.LogAttrs(t.Context(), slog.LevelInfo, "m", Suppressed(0))
	require.NotContains(t, buf.String(), "suppressed")
	log.LogAttrs(t.Context(), slog.LevelInfo, "m", Suppressed(3))
	require.Contains(t, buf.String(), "suppressed=3")
}

func TestALimiterAllowsOneOfManyCallersAtOnce(t *testing.T) {
	t.Parallel()
	var l Limiter
	var allowed, suppressed atomic.Int64
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for now := range int64(1000) {
				if before, ok := l.Allow(now); ok {
					allowed.Add(1)
					suppressed.Add(before)
				}
			}
		})
	}
	callers.Wait()
	require.EqualValues(t, 1, allowed.Load())
	before, ok := l.Allow(int64(time.Hour))
	require.True(t, ok)
	require.EqualValues(t, 8*1000-1, suppressed.Load()+before, "each line is counted once")
}

func TestEveryEventIsInOneLineOfACounter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c Counter
		var lines []int
		count := func(times int) {
			for range times {
				if events, allowed := c.Count(); allowed {
					lines = append(lines, events)
				}
			}
		}
		count(5)
		require.Equal(t, []int{1}, lines)
		time.Sleep(Pause)
		count(3)
		require.Equal(t, []int{1, 5}, lines)
		time.Sleep(Pause - time.Nanosecond)
		count(1)
		require.Equal(t, []int{1, 5}, lines)
		time.Sleep(time.Nanosecond)
		count(1)
		require.Equal(t, []int{1, 5, 4}, lines)
	})
}
