package aside_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// The time for one large value is not taken from the next one's, nor from that of what is asked of Redis after them.
func TestABatchOfLargeValuesHasTheTimeForAllOfThem(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	writer := connected(t, at(server.Addr()))
	ids := []int{1, 2, 3, 4}
	name := func(id int) aside.Key { return items.Key("large" + strconv.Itoa(id)) }
	for _, id := range ids {
		v, err := aside.GetOrLoad(t.Context(), writer, name(id), func(ctx context.Context) ([]byte, error) {
			aside.Loading(ctx).Tag("late")
			return large(20 * chunk), nil
		})
		require.NoError(t, err)
		require.Len(t, v, 20*chunk)
	}
	eventually(t, "they are stored", func() bool {
		for _, id := range ids {
			if server.MustDo(t, "EXISTS", name(id).String()).(int64) == 0 {
				return false
			}
		}
		return true
	})
	w := watchedAs(t, server, func(addr string) aside.Options {
		o := at(addr)
		o.OpTimeout = 300 * time.Millisecond
		return o
	})
	w.proxy.SetDelay(8 * time.Millisecond) // five windows of each value
	began := time.Now()
	got, err := aside.GetOrLoadMany(t.Context(), w.Cache, ids, name, func(_ context.Context, missing []int) (map[int][]byte, error) {
		t.Errorf("loaded after %v: %v", time.Since(began), missing)
		return nil, nil
	})
	require.NoError(t, err)
	require.Len(t, got, len(ids))
	require.Greater(t, time.Since(began), 350*time.Millisecond, "longer than the limit: what comes after the chunks was asked for too")
}
