package near

import (
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

func TestADeadlineIsAheadUntilTheNanosecondItIsReached(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clock := NewClock()
		defer clock.Stop()
		for _, away := range []time.Duration{1, tick / 2, tick, margin - 1, margin, margin + 1, margin + tick + 1, time.Second} {
			time.Sleep(3*time.Millisecond + 1) // deadlines anywhere between two ticks
			deadline := clock.Now() + int64(away)
			require.True(t, clock.Before(deadline))
			time.Sleep(away - 1)
			require.True(t, clock.Before(deadline), "a nanosecond before %v are over", away)
			time.Sleep(time.Nanosecond)
			require.False(t, clock.Before(deadline), "when %v are over", away)
		}
		require.False(t, clock.Before(clock.Now()))
		require.False(t, clock.Before(0))
	})
}

// A busy machine lets the clock's goroutine wait for a processor. What the limits promise is a second.
func TestADeadlineIsReachedThoughTheCoarseTimeIsNearlyASecondLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clock := NewClock()
		defer clock.Stop()
		clock.offset += int64(time.Second - tick) // by which the coarse time is late
		for range 100 {
			require.False(t, clock.Before(clock.Now()))
			time.Sleep(tick/10 + 1)
		}
	})
}

func TestTheClockCountsEveryNanosecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clock := NewClock()
		defer clock.Stop()
		start := clock.Now()
		for _, d := range []time.Duration{1, 999, time.Millisecond, time.Minute} {
			before := clock.Now()
			time.Sleep(d)
			require.EqualValues(t, d, clock.Now()-before)
		}
		require.EqualValues(t, 1+999+time.Millisecond+time.Minute, clock.Now()-start)
	})
}

func TestAStoppedClockGoesOnTellingTheTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clock := NewClock()
		deadline := clock.Now() + int64(time.Minute)
		clock.Stop()
		clock.Stop() // twice is once
		time.Sleep(time.Minute - 1)
		require.True(t, clock.Before(deadline))
		time.Sleep(time.Nanosecond)
		require.False(t, clock.Before(deadline))
		require.Equal(t, deadline, clock.Now())
	})
}

// The wall clock cannot be moved in a test, but the clock can be made to have started an hour earlier or later by the wall
// clock and at the same moment by the monotonic one, which is what it looks like from within when somebody moves it.
func TestAJumpOfTheWallClockIsNotNoticed(t *testing.T) {
	t.Parallel()
	for name, jump := range map[string]time.Duration{"forward": -time.Hour, "backward": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := NewClock()
			defer clock.Stop()
			before := clock.Now()
			started := clock.base
			*(*uint64)(unsafe.Pointer(&clock.base)) += uint64(int64(jump/time.Second) << 30) // the seconds in time.Time
			require.EqualValues(t, jump, clock.base.UnixNano()-started.UnixNano(), "the test's own premise: see package time")

			passed := clock.Now() - before
			require.GreaterOrEqual(t, passed, int64(0))
			require.Less(t, passed, int64(time.Minute))
			require.True(t, clock.Before(before+int64(30*time.Minute)))
			require.False(t, clock.Before(before))
		})
	}
}
