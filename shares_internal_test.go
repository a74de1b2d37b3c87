package aside

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatewayz/aside/internal/quota"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/outside"
)

func manyNames(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = prefix + strconv.Itoa(i)
	}
	return names
}

// What waits to be told is bounded in bytes, and does not become everything because of somebody outside.
func TestWhatIsNotToldYetIsBounded(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 1000} {
		var all atomic.Int64
		release := make(chan struct{})
		c, err := New(Options{OnInvalidated: func(i Invalidation) {
			<-release
			if i.All {
				all.Add(1)
			}
		}})
		require.NoError(t, err)
		p := &Policy{Name: "p", Category: "p", TTL: time.Hour}
		ctx := outside.With(context.Background(), "outside")
		refused := 0
		for i := range 20_000 {
			keys := []Key{p.Key(i)}
			for j := 1; j < size; j++ {
				keys = append(keys, p.Key(i, j))
			}
			if _, err := c.Invalidate(ctx, keys...); err != nil {
				require.ErrorIs(t, err, &Error{Code: CodeOverloaded})
				if refused++; refused > 100 {
					break
				}
			}
		}
		require.NotZero(t, refused)
		require.Less(t, c.told.size, mostUntoldSize/4)
		_, err = c.Invalidate(outside.With(context.Background(), "another"), p.Key("another's"))
		require.NoError(t, err, "one caller leaves room to the next one")
		_, err = c.Invalidate(context.Background(), p.Key("own"))
		require.NoError(t, err)
		close(release)
		require.NoError(t, c.Close())
		require.Zero(t, all.Load())
		require.Zero(t, inUse(&c.told.outside))
	}
}

func TestACategoryCannotBeCalledAll(t *testing.T) {
	t.Parallel()
	_, err := New(Options{Policies: []Policy{{Name: "x", Category: "all", TTL: time.Hour}}})
	require.ErrorContains(t, err, "reserved")
	c, err := New(Options{})
	require.NoError(t, err)
	defer c.Close()
	all := &Policy{Name: "x", Category: "all", TTL: time.Hour}
	other := &Policy{Name: "y", Category: "all2", TTL: time.Hour}
	require.NoError(t, Set(context.Background(), c, other.Key("a"), 1))
	require.ErrorContains(t, Set(context.Background(), c, all.Key("a"), 1), "reserved")
	_, err = c.InvalidateCategory(context.Background(), "all")
	require.ErrorContains(t, err, "InvalidateAll")
	require.Error(t, all.Match(Wildcard).Err())
	_, err = ParsePattern("all:*")
	require.Error(t, err)
	v, err := Get[int](context.Background(), c, other.Key("a"))
	require.NoError(t, err)
	require.Equal(t, 1, v)
}

// inUse is what all callers outside of the program have.
func inUse(s *quota.Shares) quota.Use {
	_, all := s.Taken()
	return all
}
