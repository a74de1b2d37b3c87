package loglimit

import (
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
	require.True(t, l.Allow(start))
	require.False(t, l.Allow(start))
	require.False(t, l.Allow(start+int64(Pause)-1))
	require.True(t, l.Allow(start+int64(Pause)))
	require.False(t, l.Allow(start+int64(Pause)+1), "the pause begins again with each line")
}

func TestALimiterAllowsOneOfManyCallersAtOnce(t *testing.T) {
	t.Parallel()
	var l Limiter
	var allowed atomic.Int64
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for now := range int64(1000) {
				if l.Allow(now) {
					allowed.Add(1)
				}
			}
		})
	}
	callers.Wait()
	require.EqualValues(t, 1, allowed.Load())
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
