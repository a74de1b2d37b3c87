package tags

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/near"
)

func TestWhatIsNotStoredIsKeptWhereRedisNotifiesOrIsAway(t *testing.T) {
	r, server, _ := newConnected(t)
	server.generations[red] = 7
	names := []string{red, green}
	s := take(t, r, names...)
	all, away := s.Tracked(names)
	require.False(t, all || away, "Redis is there, and was not asked")
	read(s)
	all, away = s.Tracked(names)
	require.True(t, all && away)
	list, ok := s.Validities([]*near.Validity{server.connection}, names)
	require.True(t, ok)
	for _, v := range list {
		require.True(t, v.Valid())
	}
	r.near.Push(green)
	_, ok = s.Validities(nil, names)
	require.False(t, ok)

	server.up = false
	s = take(t, r, names...)
	all, away = s.Tracked(names)
	require.False(t, all)
	require.True(t, away)
	server.up, server.ups = true, server.ups+1
	all, away = s.Tracked(names)
	require.False(t, all || away)
}

// Only what this process invalidates itself ends what it was not notified of.
func TestWhatNobodyNotifiesOfEndsWithAnInvalidationHere(t *testing.T) {
	r, _, _ := newConnected(t)
	s := take(t, r, red, items)
	list, ok := s.Hold(nil, []string{red, items})
	require.True(t, ok)
	require.Len(t, list, 2)
	r.Retire([]string{keyspace.Sequence, red})
	require.False(t, list[0].Valid())
	require.True(t, list[1].Valid())
	_, ok = s.Hold(nil, []string{red, items})
	require.False(t, ok)
}

func TestALoadWithoutRedisHearsOfChangesAllTheSame(t *testing.T) {
	r, _, _ := newConnected(t)
	s := take(t, r, red, items)
	s.Await([]string{red})
	r.near.Push(red)
	r.near.Push(items)
	require.True(t, s.State(red).Fence.Broken())
	require.False(t, s.State(items).Fence.Broken(), "nothing has armed it")
}
