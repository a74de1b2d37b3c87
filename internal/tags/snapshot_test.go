package tags

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/wire"
)

func TestASnapshotHasOneStateOfEachTag(t *testing.T) {
	s := take(t, newLocal(t))
	states := make(map[*State]bool)
	for range 2 {
		for i := range 3 * many {
			name := keyspace.NamedPrefix + strconv.Itoa(i)
			s.Add(name, name)
			require.Equal(t, name, s.State(name).Tag)
			states[s.State(name)] = true
		}
		require.Len(t, s.list, 3*many)
		require.Len(t, states, 3*many)
	}
}

// The tags of most calls are those of everything, of a category, and the sequence.
func TestThreeTagsHaveRoomInTheSnapshotItself(t *testing.T) {
	r := newLocal(t)
	s := r.Snapshot()
	defer s.End()
	for i, name := range []string{keyspace.All, items, keyspace.Sequence} {
		require.Same(t, &s.few[i], s.State(name))
	}
}

// What memory knows of a tag in quarantine is no more to be trusted than what Redis says: entering everything in its place, when
// the journal is full, does not retire what memory knows.
func TestNothingIsTakenFromMemoryForATagInQuarantine(t *testing.T) {
	t.Parallel()
	r, server, held := newConnected(t)
	server.generations[keyspace.All] = 7
	s := take(t, r, keyspace.All)
	read(s)
	k := s.State(keyspace.All)
	require.True(t, k.known)
	held[keyspace.All] = true
	s.Renew(true)
	require.True(t, k.quarantined)
	require.False(t, k.known)
	s.AddStored([]wire.Tag{{Name: keyspace.All}}, true)
	require.False(t, k.known)
	delete(held, keyspace.All)
	s.Renew(true)
	require.True(t, k.known)
}

func TestWithoutTrustNothingIsTakenFromMemory(t *testing.T) {
	r, server, _ := newConnected(t)
	server.generations[red] = 7
	s := take(t, r, red)
	read(s)
	s.Renew(false)
	require.Equal(t, 1, s.Unread())
	s.AddStored([]wire.Tag{{Name: red}}, false)
	require.True(t, s.Lacks([]wire.Tag{{Name: red}}))
	s.AddStored([]wire.Tag{{Name: red}}, true)
	require.False(t, s.Lacks([]wire.Tag{{Name: red}}))
}

func TestQuarantineIsLookedUpAgain(t *testing.T) {
	r, _, held := newConnected(t)
	s := take(t, r, red, green)
	require.False(t, s.Quarantined([]string{red, green}))
	held[green] = true
	require.False(t, s.Quarantined([]string{red, green}))
	s.Recheck([]string{red, green})
	require.True(t, s.Quarantined([]string{red, green}))
	require.False(t, s.Quarantined([]string{red}))
}

func TestAFenceThatThisProcessHasBrokenIsTakenAgain(t *testing.T) {
	r := newLocal(t)
	s := take(t, r, items)
	require.False(t, s.InvalidatedHere([]string{items}))
	r.Retire([]string{items})
	require.True(t, s.InvalidatedHere([]string{items}))
	s.Renew(true)
	require.False(t, s.InvalidatedHere([]string{items}))
}

func TestEndEndsTheFences(t *testing.T) {
	s := newLocal(t).Snapshot()
	s.Add(red, green)
	s.End()
	require.True(t, s.State(red).Fence.Broken() && s.State(green).Fence.Broken())
}

// Of two loads that both find no generation, the second must not put what the first has stored out of date.
func TestInMemoryModeAGenerationIsGivenOnce(t *testing.T) {
	r := newLocal(t)
	one, two := take(t, r, red), take(t, r, red)
	one.Local()
	two.Local()
	require.Same(t, one.State(red).Generation, two.State(red).Generation)
	r.Retire([]string{keyspace.Sequence, red})
	three := take(t, r, red)
	three.Local()
	require.NotEqual(t, one.State(red).value, three.State(red).value)
}

// known is a snapshot of red whose generation memory knows, by another snapshot.
func known(t *testing.T) (r *Registry, s *Snapshot) {
	t.Helper()
	r, server, _ := newConnected(t)
	server.generations[red] = 7
	read(take(t, r, red))
	s = take(t, r, red)
	require.Nil(t, s.State(red).Fence, "memory knows the generation")
	return r, s
}

func TestAnInvalidationHereIsNoticedWithoutAFence(t *testing.T) {
	t.Parallel()
	steps := map[string]func(r *Registry, s *Snapshot){
		"invalidated":                    func(r *Registry, _ *Snapshot) { r.Retire([]string{red}) },
		"pushed, then invalidated":       func(r *Registry, _ *Snapshot) { r.near.Push(red); r.Retire([]string{red}) },
		"invalidated, then learnt again": func(r *Registry, s *Snapshot) { r.Retire([]string{red}); read(s) },
		"invalidated before it is read":  func(r *Registry, s *Snapshot) { r.Retire([]string{red}); s.Await([]string{red}) },
		"invalidated after it was read":  func(r *Registry, s *Snapshot) { s.Await([]string{red}); r.Retire([]string{red}) },
		"pushed, invalidated, and read": func(r *Registry, s *Snapshot) {
			r.near.Push(red)
			r.Retire([]string{red})
			s.Await([]string{red})
		},
	}
	for name, step := range steps {
		r, s := known(t)
		step(r, s)
		require.True(t, s.InvalidatedHere([]string{red}), name)
		_, ok := s.Hold(nil, []string{red})
		require.False(t, ok, name)
		s.Renew(true)
		require.False(t, s.InvalidatedHere([]string{red}), "%s, and begun again", name)
	}
}

// Redis pushes a change of the key of a tag also when its life is made longer. A fill is not to be refused for that.
func TestAPushIsNoInvalidationByThisProcess(t *testing.T) {
	t.Parallel()
	r, s := known(t)
	r.near.Push(red)
	require.False(t, s.InvalidatedHere([]string{red}))
	s.Await([]string{red})
	require.False(t, s.InvalidatedHere([]string{red}))
	r.Retire([]string{green})
	require.False(t, s.InvalidatedHere([]string{red}), "it was another tag")
	_, ok := s.Hold(nil, []string{red})
	require.True(t, ok)
}

// A process that invalidates many tags while a load runs does not remember them all. Those from before the fence are known when it is taken.
func TestAPushBeforeTheFenceIsNotTakenForOneOfManyInvalidationsAfterIt(t *testing.T) {
	t.Parallel()
	r, s := known(t)
	r.near.Push(red)
	s.Await([]string{red})
	for i := range 300 {
		r.Retire([]string{keyspace.NamedPrefix + strconv.Itoa(i)})
	}
	require.False(t, s.InvalidatedHere([]string{red}))
	r.Retire([]string{red})
	require.True(t, s.InvalidatedHere([]string{red}))
}
