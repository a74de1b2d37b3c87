package tags

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/wire"
)

// ask asks for the generations of a load's own tags, and notes the answers.
func ask(t *testing.T, s *Snapshot, lives map[string]time.Duration) []redisstore.Tag {
	t.Helper()
	a := s.Asks(lives)
	s.Given(t.Context(), a, s.registry.redis.ensure(t.Context(), a.Tags...))
	return a.Tags
}

func TestALoadAsksForItsOwnTags(t *testing.T) {
	r, server, held := newConnected(t)
	held[green] = true
	lives := map[string]time.Duration{red: time.Minute, green: time.Minute, items: time.Minute}
	s := take(t, r, red, green, items, keyspace.Sequence)
	s.AddStored([]wire.Tag{{Name: keyspace.NamedPrefix + "of the value"}}, true)
	require.ElementsMatch(t, []redisstore.Tag{{Key: red, Life: time.Minute}, {Key: items}, {Key: keyspace.Sequence}}, ask(t, s, lives),
		"none in quarantine, and none that only a stored value names")
	require.ElementsMatch(t, []string{red, items, keyspace.Sequence}, server.looked, "they are read, so that Redis notifies of their changes")
	for _, name := range server.looked {
		require.True(t, s.State(name).Generation.Valid())
	}
}

// The key of a named tag may have to live longer. Those of the others are used, so that a full server does not evict them.
func TestALoadAsksForKnownGenerationsSeldom(t *testing.T) {
	r, server, _ := newConnected(t)
	lives := map[string]time.Duration{red: time.Minute, items: time.Minute}
	s := take(t, r, red, items)
	ask(t, s, lives)
	require.Len(t, ask(t, s, lives), 2, "this is the first time that one of a known category is used")
	server.looked = nil
	require.Equal(t, []redisstore.Tag{{Key: red, Life: time.Minute}}, ask(t, s, lives))
	require.Empty(t, server.looked, "nothing has changed")
}

func TestAGenerationWhoseKeyWasChangedIsReadAgain(t *testing.T) {
	r, server, _ := newConnected(t)
	lives := map[string]time.Duration{red: time.Minute}
	s := take(t, r, red)
	ask(t, s, lives)
	before := s.State(red).Generation
	server.generations[red]++
	r.near.Push(red)
	ask(t, s, lives)
	require.False(t, before.Valid())
	require.Equal(t, server.generations[red], s.State(red).value)
	require.Equal(t, []string{red, red}, server.looked)
}

// Hazard 35: the load has not begun yet, so the newer generation is the one that it begins with.
func TestAGenerationThatChangesBeforeItIsReadIsTheNewOne(t *testing.T) {
	r, server, _ := newConnected(t)
	s := take(t, r, red)
	a := s.Asks(map[string]time.Duration{red: time.Minute})
	generations := server.ensure(t.Context(), a.Tags...)
	server.generations[red]++
	s.Given(t.Context(), a, generations)
	require.Equal(t, generations[0].Value+1, s.State(red).value)
	require.True(t, s.State(red).Generation.Valid())
	var c Capture
	is, _ := s.Judge(&c, []wire.Tag{{Name: red, Generation: generations[0].Value}}, nil, true, 0)
	require.Equal(t, Outdated, is)
}

// What its loader names is read after the load: there the newer generation would be on an old value.
func TestALateTagThatChangesBeforeItIsReadIsNotVouchedFor(t *testing.T) {
	r, server, _ := newConnected(t)
	s, asked := take(t, r, keyspace.Sequence), false
	server.meanwhile = func(name string) {
		if name == red && asked {
			server.generations[red]++
		}
		asked = asked || name == red
	}
	ask(t, s, nil)
	var c Capture
	require.True(t, s.Capture(&c, nil))
	_, err := s.AddLate(t.Context(), &c, []string{red}, r.Events(), time.Minute)
	require.NoError(t, err)
	require.Equal(t, server.generations[red]-1, s.State(red).value)
	require.Nil(t, s.State(red).Generation)
	require.True(t, s.State(red).Tracked(), "Redis notifies of its changes all the same")
}

func TestAnAnswerForATagInQuarantineIsNone(t *testing.T) {
	r, server, held := newConnected(t)
	s := take(t, r, red, green)
	a := s.Asks(map[string]time.Duration{red: time.Minute})
	held[red] = true
	s.Given(t.Context(), a, server.ensure(t.Context(), a.Tags...))
	a = s.Asks(map[string]time.Duration{green: time.Minute})
	server.err = errAway
	s.Given(t.Context(), a, server.ensure(t.Context(), a.Tags...))
	require.False(t, s.State(red).known || s.State(green).known)
	require.Empty(t, server.looked)
}
