package redisstore

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
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

// A node of a cluster is asked each second how it stands. That says as much of a slow server as any other operation.
func TestASlowHeartbeatDoesNotEndTheGrace(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	s := up(t, Options{Client: clientOf(proxy.Addr()), Format: format, OpTimeout: 20 * time.Millisecond})
	later := time.Now().Add(time.Hour)
	s.grace.since.Store(&later)
	proxy.SetDelay(50 * time.Millisecond)
	_, _ = s.askNode(t.Context(), only(s), proxy.Addr())
	require.False(t, s.grace.over.Load())
	require.Zero(t, only(s).failed.Load())
}
