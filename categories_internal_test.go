package aside

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

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
