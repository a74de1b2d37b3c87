package redisstore

import (
	"context"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

func TestNothingIsSentForACallerWhoHasLeft(t *testing.T) {
	t.Parallel()
	s := connected(t, miniredis.RunT(t).Addr())
	left, leave := context.WithCancel(t.Context())
	leave()
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	spent, cancel := (&Store{}).Budget(t.Context(), 0, 1)
	defer cancel()
	<-spent.Done()
	for _, ctx := range []context.Context{left, late, spent} {
		results := s.each(ctx, batch{content: content{names: make([]string, 2), plain: func(rueidis.Client, int) rueidis.Completed {
			t.Error("a command was made")
			return rueidis.Completed{}
		}}})
		require.Len(t, results, 2)
		for _, r := range results {
			require.ErrorIs(t, r.Error(), ctx.Err())
		}
	}
	require.Zero(t, only(s).failed.Load())
}
