package redisstore

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

// A caller can have got hold of a client just before its connection broke: rueidis would make another one in his time.
func TestAClientWhoseConnectionHasBrokenMakesNoOtherOne(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	s := connected(t, proxy.Addr())
	own, err := only(s).attempt(t.Context(), only(s).options, false) // which nobody closes when it breaks
	require.NoError(t, err)
	defer own.client.Close()
	proxy.CloseConnections()
	require.Eventually(t, own.broken.Load, bound, time.Millisecond)
	require.Eventually(t, func() bool { return s.State().Up && proxy.Connections() == 1 }, bound, time.Millisecond, "the store has a new one")
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		require.ErrorIs(t, own.client.Do(ctx, own.client.B().Get().Key(key).Build()).Error(), errBroken)
		cancel()
	}
	require.Equal(t, 1, proxy.Connections())
}
