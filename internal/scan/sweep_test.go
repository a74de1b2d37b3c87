package scan

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/keyspace"
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
