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

// The time for one large value is not taken from the next one's, nor from that of what is asked of Redis after them. It is not run
// in parallel with others: what it moves has to be moved in time.
func TestABatchOfLargeValuesHasTheTimeForAllOfThem(t *testing.T) {
	server := redistest.Start(t)
	writer := connected(t, at(server.Addr()))
	ids := []int{1, 2, 3, 4}
	name := func(id int) aside.Key { return items.Key("large" + strconv.Itoa(id)) }
	for _, id := range ids {
		v, err := aside.GetOrLoad(t.Context(), writer, name(id), func(ctx context.Context) ([]byte, error) {
			aside.Loading(ctx).Tag("late")
			return large(40 * chunk), nil
		})
		require.NoError(t, err)
		require.Len(t, v, 40*chunk)
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
		o.OpTimeout = 2 * time.Second // and 0.3 s for each value
		return o
	})
	w.proxy.SetDelay(28 * time.Millisecond) // ten windows of each value
	began := time.Now()
	got, err := aside.GetOrLoadMany(t.Context(), w.Cache, ids, name, func(_ context.Context, missing []int) (map[int][]byte, error) {
		t.Errorf("loaded after %v: %v", time.Since(began), missing)
		return nil, nil
	})
	require.NoError(t, err)
	require.Len(t, got, len(ids))
	require.Greater(t, time.Since(began), 2400*time.Millisecond, "longer than the limit: what comes after the chunks was asked for too")
}
