package redisstore

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A call that reads several large values one after the other has the time for all of them.
func TestWhatIsAddedToABudgetAddsUp(t *testing.T) {
	t.Parallel()
	s := &Store{}
	s.opTimeout = time.Second
	ctx, cancel := s.Budget(t.Context(), 0, 1)
	defer cancel()
	first, ok := ctx.Deadline()
	require.True(t, ok)
	for i, size := range []int64{bytesPerSecond, bytesPerSecond, 0} {
		more, cancel := s.More(ctx, size, 1)
		defer cancel()
		until, _ := more.Deadline()
		require.Equal(t, first.Add(time.Duration(min(i+1, 2))*time.Second), until)
	}
}
