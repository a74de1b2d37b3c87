package redisstore

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAProcessThatHasJustStartedMayBeSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit = 50 * time.Millisecond
		g := &grace{limit: limit}
		require.Equal(t, firstWait, g.now())
		time.Sleep(time.Hour)
		require.Equal(t, firstWait, g.now(), "there was no connection yet")
		g.answered(limit - 1)
		require.Equal(t, firstWait, g.now(), "what was answered while it was being made says nothing")
		g.begin()
		g.answered(limit)
		require.Equal(t, firstWait, g.now(), "a heartbeat that was late counts as one that took the limit")
		time.Sleep(2 * firstWait)
		g.begin() // again: it has broken
		time.Sleep(firstWait + 1)
		require.Equal(t, limit, g.now(), "it does not last")

		g = &grace{limit: limit}
		g.begin()
		g.answered(limit - 1)
		require.Equal(t, limit, g.now(), "it is quick enough")

		require.Equal(t, time.Minute, (&grace{limit: time.Minute}).now(), "a limit that is longer stands")
	})
}
