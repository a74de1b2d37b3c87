package scan

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/redistest"
	"github.com/gatewayz/aside/internal/wire"
)

// swept sweeps, and returns how many values were removed for each tag.
func (f *fixture) swept(t *testing.T, current map[string]uint64) map[string]int64 {
	t.Helper()
	counts := make(map[string]int64)
	require.NoError(t, f.sweep(t.Context(), current, func(tag string, n int64) { counts[tag] += n }))
	return counts
}

func TestASweepRemovesValuesThatCarryAnOlderGeneration(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	x, y := keyspace.NamedPrefix+"x", keyspace.NamedPrefix+"y"
	f.put(t, "items:a", nil, wire.Tag{Name: x, Generation: now - 1})
	f.put(t, "items:b", nil, wire.Tag{Name: y, Generation: now - 1})
	f.put(t, "users:c", nil, wire.Tag{Name: x, Generation: now - 1})
	f.put(t, "users:d", nil, wire.Tag{Name: x, Generation: now})
	f.put(t, "users:e", nil, wire.Tag{Name: x, Generation: 1 << 60}) // is no generation
	f.put(t, "others:f", nil, wire.Tag{Name: x, Generation: now - 1})
	f.server.MustDo(t, "SET", "items:foreign", "something else")
	all := []string{"items:a", "items:b", "users:c", "users:d", "users:e", "others:f", "items:foreign"}

	require.Empty(t, f.swept(t, map[string]uint64{keyspace.CategoryTag("items"): now}))
	require.Equal(t, all, f.left(t, all...))
	require.Equal(t, map[string]int64{x: 3}, f.swept(t, map[string]uint64{x: now}))
	require.Equal(t, []string{"items:b", "users:d", "others:f", "items:foreign"}, f.left(t, all...), "the process does not know the third category")
	require.Equal(t, map[string]int64{"%c:others": 1}, f.swept(t, map[string]uint64{"%c:others": now + 1}))
	require.Equal(t, map[string]int64{y: 1, "%c:users": 1}, f.swept(t, map[string]uint64{y: now, "%c:users": now + 1}))
	require.Equal(t, []string{"items:foreign"}, f.left(t, all...))

	f.put(t, "items:a", nil)
	require.Equal(t, map[string]int64{keyspace.All: 1}, f.swept(t, map[string]uint64{keyspace.All: now + 1}))
	require.Empty(t, f.left(t, "items:a"))
}

// Hazard 176: a sweep of a cluster gathers many keys before it removes their values. While slots go on moving, no sweep goes over all keys.
func TestASweepOfAClusterWhoseSlotsMoveRemovesWhatItHasFound(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	store := redisstore.Open(redisstore.Options{
		Client: rueidis.ClientOption{InitAddress: cluster.Addrs()}, OpTimeout: bound, Lease: bound, Format: formatOfValues,
	})
	t.Cleanup(store.Close)
	require.Eventually(t, store.Up, bound, time.Millisecond)
	tag, slot := keyspace.NamedPrefix+"x", redistest.Slot("another")
	var once sync.Once
	moves := func() {
		to := cluster.Primaries()[0]
		if to == cluster.OwnerOf(slot) {
			to = cluster.Primaries()[1]
		}
		cluster.MigrateSlot(slot, to)
	}
	s := New(Options{
		Store: store, Categories: func() []string { return []string{"items"} }, Unconfirmed: func(string) bool { return false },
		Logger: slog.New(slog.DiscardHandler), Now: func() int64 { return 1 },
		Named: func(key string) string { // called with what was found
			once.Do(moves)
			return key
		},
	})
	var keys []string
	for i := range 20 {
		key := "items:" + strconv.Itoa(i)
		keys = append(keys, key)
		cluster.MustDo(t, key, "SET", key, valueOf(t, key, nil, wire.Tag{Name: tag, Generation: now - 1}))
	}
	removed := int64(0)
	sweep := func(ctx context.Context) error {
		return s.sweep(ctx, map[string]uint64{tag: now}, func(_ string, n int64) { removed += n })
	}
	require.ErrorIs(t, sweep(t.Context()), redisstore.ErrMoved)
	left := int64(0)
	for _, key := range keys {
		left += cluster.MustDo(t, key, "EXISTS", key).(int64)
	}
	require.Positive(t, removed)
	require.Equal(t, int64(len(keys))-left, removed)
	require.Eventually(t, func() bool { return sweep(t.Context()) == nil }, bound, time.Millisecond)
	require.EqualValues(t, len(keys), removed)
}
