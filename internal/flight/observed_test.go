package flight

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// The callers of a call are those that wait for it or have its result, and not those that have left.
func TestTheCallersOfACall(t *testing.T) {
	t.Parallel()
	var g Group[string, int]
	call, lead := g.Join("a")
	require.True(t, lead)
	require.Equal(t, 1, call.Callers())
	for range 3 {
		_, lead = g.Join("a")
		require.False(t, lead)
	}
	require.Equal(t, 4, call.Callers())
	call.Leave()
	require.Equal(t, 3, call.Callers())
	require.Nil(t, call.Loading())
	resolve := make(chan struct{})
	g.Run(t.Context(), limit, func(ctx context.Context) {
		call.LoadOn(ctx)
		<-resolve
		call.Resolve(7, nil)
	}, call)
	call.LeaveBehind() // its part goes on, and it does not wait
	require.Equal(t, 2, call.Callers())
	close(resolve)
	for range 2 {
		_, err := call.Wait(t.Context())
		require.NoError(t, err)
	}
	require.Equal(t, 2, call.Callers())
	require.NotNil(t, call.Loading())
	require.NoError(t, g.Close(t.Context(), ErrUnresolved))
}
