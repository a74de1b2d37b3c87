package engine

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSetsWhileRedisIsAwayLeaveNoLeasesToGiveBack(t *testing.T) {
	t.Parallel()
	e := open(t, "127.0.0.1:1") // where nobody listens
	r := requestOf(items(), "a")
	for range 100 {
		require.NoError(t, e.Set(t.Context(), r, given("v")))
	}
	e.Close(context.Background()) // it waits for what they have begun
	some, _ := e.leases.ReleaseAgain(t.Context())
	require.False(t, some)
}
