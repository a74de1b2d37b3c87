package tags

import (
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redisstore"
)

func TestTheGenerationOfANamedTagLivesLongerThanWhatCarriesIt(t *testing.T) {
	require.Equal(t, time.Hour+margin, Life(time.Hour))
	require.EqualValues(t, math.MaxInt64, Life(math.MaxInt64))
	require.Equal(t, redisstore.Tag{Key: red, Life: time.Minute}, withLife(red, time.Minute))
	for _, name := range []string{items, keyspace.All, keyspace.Sequence} {
		require.Equal(t, redisstore.Tag{Key: name}, withLife(name, time.Minute), "it lives for ever")
	}
}

// The sequence is the first name where named tags are invalidated. A category is no tag event.
func TestTagEventsAreInvalidationsOfNamedTags(t *testing.T) {
	r := newLocal(t)
	r.Retire([]string{items})
	r.Pushed(items)
	r.Pushed(red)
	require.Zero(t, r.Events())

	r.Retire([]string{keyspace.Sequence, red})
	require.Equal(t, Events{All: 1, Own: 1}, r.Events())
	r.Pushed(keyspace.Sequence)
	require.Equal(t, Events{All: 2, Own: 1}, r.Events())
	r.Gap()
	require.Equal(t, Events{All: 3, Own: 1}, r.Events())

	var removed atomic.Int64
	done := make(chan struct{})
	r.RetireAll([]string{keyspace.Sequence, red}, &removed, done)
	<-done
	require.Equal(t, Events{All: 4, Own: 2}, r.Events())
}

func TestTagsAreBumpedInTheirOrder(t *testing.T) {
	r, server, _ := newConnected(t)
	require.Len(t, r.Bump(t.Context(), keyspace.Sequence, red, items), 3)
	require.Equal(t, []redisstore.Tag{{Key: keyspace.Sequence}, {Key: red, Life: margin}, {Key: items}}, server.bumped)
}

// A server is away all the time since a name was asked for only if its connection has not come up in between.
func TestAServerThatHasComeBackInBetweenIsNotCutOff(t *testing.T) {
	r, server, _ := newConnected(t)
	server.up = false
	n := r.Notice(red)
	require.True(t, r.CutOff(red, &n))
	server.up = true
	server.ups++
	require.False(t, r.CutOff(red, &n))
	server.up = false
	require.False(t, r.CutOff(red, &n), "this is another outage")
}

func TestANoticeIsGoodAsLongAsItsConnection(t *testing.T) {
	r, server, _ := newConnected(t)
	n := r.Notice(red)
	require.False(t, n.Tracked(), "it was not read yet")
	n.Validity = server.connection
	require.True(t, n.Tracked())
	server.connection.Lapse(1)
	require.False(t, n.Tracked())
}
