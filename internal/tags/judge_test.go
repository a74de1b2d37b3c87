package tags

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/wire"
)

func TestAStoredValueIsAsGoodAsTheGenerationsOfItsTags(t *testing.T) {
	r, server, _ := newConnected(t)
	server.generations[red], server.generations[items] = 7, 8
	s := take(t, r, red, items, green)
	read(s)
	for _, test := range []struct {
		stored   []wire.Tag
		required []string
		is       Standing
	}{
		{nil, nil, Current},
		{[]wire.Tag{{Name: red, Generation: 7}, {Name: items, Generation: 8}}, []string{items}, Current},
		{[]wire.Tag{{Name: red, Generation: 6}, {Name: items, Generation: 8}}, []string{items}, Outdated},
		{[]wire.Tag{{Name: red, Generation: 7}}, []string{items}, Outdated},
		{[]wire.Tag{{Name: green, Generation: 9}}, nil, Outdated},
	} {
		var c Capture
		is, why := s.Judge(&c, test.stored, test.required, false, time.Hour)
		require.NoError(t, why)
		require.Equal(t, test.is, is, test.stored)
		if is == Current {
			require.Len(t, c.Tags, len(test.stored))
			_, ok := c.Validities(nil)
			require.True(t, ok)
		} else {
			require.Empty(t, c.Tags)
		}
	}
}

// What memory knew of a tag whose server is away counts for a while.
func TestAStoredValueWithATagWhoseServerIsAway(t *testing.T) {
	r, server, _ := newConnected(t)
	server.generations[red], server.generations[items] = 7, 8
	read(take(t, r, red))
	server.connection.Lapse(r.clock.Now())
	server.err, server.up = errAway, false
	s := take(t, r, red, items)
	s.Renew(true)
	read(s)
	stored := []wire.Tag{{Name: red, Generation: 7}}
	for _, test := range []struct {
		stored   []wire.Tag
		strong   bool
		degraded time.Duration
		is       Standing
	}{
		{stored, false, time.Hour, Lapsed},
		{stored, false, -1, Unknown},
		{stored, true, time.Hour, Unknown},
		{[]wire.Tag{{Name: red, Generation: 6}}, false, time.Hour, Outdated},
		{append(stored, wire.Tag{Name: items, Generation: 8}), false, time.Hour, Unknown},
	} {
		is, why := s.Judge(new(Capture), test.stored, nil, test.strong, test.degraded)
		require.Equal(t, test.is, is, test)
		if is != Outdated {
			require.ErrorIs(t, why, errAway)
		}
	}
	r.Retire([]string{keyspace.Sequence, red})
	is, _ := s.Judge(new(Capture), stored, nil, false, time.Hour)
	require.Equal(t, Unknown, is, "this process has invalidated it")
}

func TestAManifestIsOutdatedByAGenerationThatIsKnown(t *testing.T) {
	r, server, _ := newConnected(t)
	server.generations[red] = 7
	s := take(t, r, red, items)
	read(s)
	require.False(t, s.Outdated([]wire.Tag{{Name: red, Generation: 7}, {Name: items, Generation: 1}, {Name: green, Generation: 1}}))
	require.True(t, s.Outdated([]wire.Tag{{Name: items, Generation: 1}, {Name: red, Generation: 6}}))
}
