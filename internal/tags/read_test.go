package tags

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/wire"
)

func TestOnlyGenerationsThatAreNotKnownAreRead(t *testing.T) {
	r, server, held := newConnected(t)
	server.generations[red], server.generations[items] = 7, 8
	held[green] = true
	s := take(t, r, red, green, items)
	read(s)
	require.Equal(t, []string{red, green, items}, server.looked, "one in quarantine too, so that Redis notifies of its changes")
	require.True(t, s.State(green).Tracked())
	require.Equal(t, 1, s.Unread())

	server.looked = nil
	other := take(t, r, red, items, keyspace.All)
	other.Renew(true)
	read(other)
	require.Equal(t, []string{keyspace.All}, server.looked)
	require.False(t, other.State(keyspace.All).known, "it has no generation")
	require.True(t, other.State(keyspace.All).Tracked(), "all the same")
}

// The invalidation may be confirmed between the request and its reply.
func TestAGenerationOfATagThatComesIntoQuarantineOrLeavesItMeanwhileIsNone(t *testing.T) {
	r, server, held := newConnected(t)
	server.generations[red], server.generations[green] = 7, 8
	held[red] = true
	s := take(t, r, red, green)
	server.meanwhile = func(string) {
		delete(held, red)
		held[green] = true
	}
	read(s)
	require.Equal(t, 2, s.Unread())
	require.NoError(t, s.Unanswered([]string{red, green}))
}

func TestATagThatIsInvalidatedWhileItIsReadHasNoGenerationInMemory(t *testing.T) {
	r, server, _ := newConnected(t)
	server.generations[red] = 7
	s := take(t, r, red)
	server.meanwhile = func(string) { r.Retire([]string{keyspace.Sequence, red}) }
	read(s)
	require.Nil(t, s.State(red).Generation)
	require.Nil(t, r.near.Generation(red))
}

func TestWhatIsNoGenerationIsNone(t *testing.T) {
	for _, text := range []string{"", "0", "x", "12345678901234567", "-1"} {
		r, _, _ := newConnected(t)
		s := take(t, r, red)
		s.Learn([]redisstore.Read{{Value: []byte(text)}})
		require.Equal(t, 1, s.Unread(), text)
	}
}

func TestWhyAGenerationIsNotKnown(t *testing.T) {
	r, server, _ := newConnected(t)
	server.generations[red] = 7
	s := take(t, r, red)
	read(s)
	server.err = errAway
	s.Add(green)
	read(s)
	require.NoError(t, s.Unanswered([]string{red}))
	require.ErrorIs(t, s.Unanswered([]string{red, green}), errAway)
	require.False(t, s.State(green).Notice.Untrackable)
}

func TestATagThatOnlyAValueNamesIsLackingUntilItIsRead(t *testing.T) {
	r, server, held := newConnected(t)
	server.generations[green] = 7
	s, stored := take(t, r, red), []wire.Tag{{Name: green}}
	require.False(t, s.Lacks(stored), "the snapshot does not have it")
	s.AddStored(stored, true)
	require.True(t, s.Lacks(stored))
	read(s)
	require.False(t, s.Lacks(stored))
	held[red] = true
	s.Renew(true)
	require.False(t, s.Lacks([]wire.Tag{{Name: red}}), "it is in quarantine: there is no use in asking")
}
