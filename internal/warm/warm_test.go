package warm

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func upTo(n int) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

func TestBatchesRunAtOnceAndAreToldInTheirOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		var told []Counts
		got, err := Run(t.Context(), upTo(25), 10, 2, func(_ context.Context, ids []int) Counts {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			time.Sleep(time.Duration(30-ids[0]) * time.Second) // the first one takes longest
			return Counts{Seen: len(ids), Loaded: len(ids) - 1, Failed: 1}
		}, func(c Counts) { told = append(told, c) })
		require.NoError(t, err)
		require.EqualValues(t, 2, most.Load())
		require.Equal(t, Counts{Seen: 25, Loaded: 22, Failed: 3}, got)
		require.Equal(t, []int{10, 20, 25}, []int{told[0].Seen, told[1].Seen, told[2].Seen})
	})
}

func TestTheEndOfTheContextEndsARun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		begun := 0
		got, err := Run(ctx, upTo(1<<40), 10, 1, func(context.Context, []int) Counts {
			if begun++; begun == 3 {
				cancel()
			}
			return Counts{Seen: 10}
		}, nil)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, 3, begun)
		require.Equal(t, 30, got.Seen)
	})
}

func TestNoIDsAreNoBatch(t *testing.T) {
	t.Parallel()
	got, err := Run(t.Context(), slices.Values([]int(nil)), 10, 4, func(context.Context, []int) Counts { panic("no batch") }, nil)
	require.NoError(t, err)
	require.Zero(t, got)
}

func TestAPanicIsRepeatedWhereTheCallerCanRecoverIt(t *testing.T) {
	t.Parallel()
	require.PanicsWithValue(t, "the program's bug", func() {
		_, _ = Run(t.Context(), upTo(1<<40), 10, 2, func(context.Context, []int) Counts { panic("the program's bug") }, nil)
	})
	require.PanicsWithValue(t, "the program's bug", func() {
		_, _ = Run(t.Context(), upTo(1<<40), 10, 2, func(context.Context, []int) Counts { return Counts{} }, func(Counts) { panic("the program's bug") })
	})
}
