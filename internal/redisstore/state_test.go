package redisstore

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

func TestEachChangeOfStateIsToldOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	states := make(chan State, 100)
	s := open(t, Options{Client: clientOf(server.Addr()), OnState: func(s State) { states <- s }})
	require.True(t, (<-states).Up)
	server.Kill()
	for range 10 {
		s.Get(t.Context(), Get{Key: key})
	}
	down := <-states
	require.False(t, down.Up)
	require.Error(t, down.Cause)
	server.Restart()
	require.True(t, (<-states).Up)
	require.Empty(t, states, "the attempts in between are no changes")
}
