package redisstore

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheServersClockIsKnownWithinARoundTrip(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c serverClock
		_, _, ok := c.Now()
		require.False(t, ok)
		ahead := func() int64 { return time.Now().Add(time.Hour).UnixMicro() } // the server's clock
		read := func(there, back time.Duration) {
			sent := time.Now()
			time.Sleep(there)
			server := ahead()
			time.Sleep(back)
			c.note(sent, server)
		}
		check := func(most time.Duration) {
			t.Helper()
			now, within, ok := c.Now()
			require.True(t, ok)
			require.LessOrEqual(t, within, most.Microseconds()+1)
			require.InDelta(t, ahead(), now, float64(within))
		}
		read(80*time.Millisecond, 20*time.Millisecond)
		check(50 * time.Millisecond)
		read(time.Millisecond, 0)
		check(500 * time.Microsecond)
		read(0, 90*time.Millisecond)
		check(500 * time.Microsecond) // the better reading stands
		time.Sleep(trusted)
		read(0, 90*time.Millisecond)
		check(45 * time.Millisecond) // until it is old
	})
}

func TestAStepOfTheServersClockIsFollowedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, step := range []time.Duration{time.Hour, -time.Hour, 100 * time.Millisecond, -100 * time.Millisecond} {
			var c serverClock
			server := func() int64 { return time.Now().UnixMicro() }
			c.note(time.Now(), server()) // as precise as can be
			earlier, old := time.Now(), server()
			time.Sleep(time.Second)
			stepped := func() int64 { return server() + step.Microseconds() }
			sent := time.Now()
			time.Sleep(40 * time.Millisecond)
			c.note(sent, stepped())
			now, within, _ := c.Now()
			require.InDelta(t, stepped(), now, float64(within), "a step of %v", step)

			// An answer from before the step that was long on its way.
			c.note(earlier, old)
			now, within, _ = c.Now()
			require.InDelta(t, stepped(), now, float64(within), "a step of %v", step)
		}
	})
}
