package tags

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
)

// loadOf begins a load with one tag.
func loadOf(t *testing.T, r *Registry, server *server) (s *Snapshot, c Capture, began Events) {
	t.Helper()
	server.generations[items], server.generations[keyspace.Sequence] = 7, 50
	began = r.Events()
	s = take(t, r, items, keyspace.Sequence)
	read(s)
	require.True(t, s.Capture(&c, []string{items}))
	require.True(t, c.Has(items))
	require.False(t, c.Has(keyspace.Sequence), "no entry carries it")
	return s, c, began
}

func TestWhatIsCapturedIsFromBeforeTheLoad(t *testing.T) {
	r, server, _ := newConnected(t)
	s, c, _ := loadOf(t, r, server)
	server.generations[items]++
	r.near.Push(items)
	s.Renew(true)
	read(s)
	require.EqualValues(t, 7, c.Tags[0].Value)
	list, ok := c.Validities([]*near.Validity{server.connection})
	require.True(t, ok)
	require.False(t, list[1].Valid(), "an entry with it is out of date")
}

func TestACaptureWithoutOneOfItsGenerationsIsNotComplete(t *testing.T) {
	r, server, _ := newConnected(t)
	s, c, _ := loadOf(t, r, server)
	require.False(t, s.Capture(&c, []string{red, items}))
	require.Empty(t, c.Tags)
}

// In memory mode, a tag can be invalidated just before it is given its first generation.
func TestNoEntryIsMadeWithoutOneOfItsTags(t *testing.T) {
	r := newLocal(t)
	s := take(t, r, items, keyspace.Sequence)
	s.Renew(true)
	r.Retire([]string{items})
	s.Local()
	var c Capture
	require.False(t, s.Capture(&c, []string{items}))
	_, ok := c.Validities(nil)
	require.False(t, ok)
	s.Renew(true)
	s.Local()
	require.True(t, s.Capture(&c, []string{items}))
	_, ok = c.Validities(nil)
	require.True(t, ok)
}

func TestAnEntryRestsOnItsKeyAndItsTags(t *testing.T) {
	r, server, _ := newConnected(t)
	_, c, _ := loadOf(t, r, server)
	own := new(near.Validity)
	list, ok := c.Validities([]*near.Validity{own})
	require.True(t, ok)
	require.Equal(t, own, list[0])
	require.Len(t, list, 3, "its own, that of the tag, and that of the connection that the tag was read by")
	list, ok = c.Validities([]*near.Validity{server.connection})
	require.True(t, ok)
	require.Len(t, list, 2, "each once")
	c.Tags = append(c.Tags, Carried{Tag: red, Value: 9})
	_, ok = c.Validities([]*near.Validity{own})
	require.False(t, ok, "this one is not tracked")
}

func TestLateTagsAreAddedWithTheirGenerations(t *testing.T) {
	r, server, _ := newConnected(t)
	s, c, began := loadOf(t, r, server)
	unmoved, err := s.AddLate(t.Context(), &c, []string{red, green}, began, time.Hour)
	require.NoError(t, err)
	require.True(t, unmoved)
	require.Equal(t, []redisstore.Tag{{Key: red, Life: time.Hour}, {Key: green, Life: time.Hour}, {Key: keyspace.Sequence}}, server.asked, "the sequence is the last")
	require.Len(t, c.Tags, 3)
	_, ok := c.Validities([]*near.Validity{server.connection})
	require.True(t, ok)
}

// Whoever invalidates a tag changes the sequence first.
func TestALateTagMayHaveBeenInvalidatedSinceTheLoadBegan(t *testing.T) {
	for name, invalidate := range map[string]func(*Registry, *server, map[string]bool){
		"elsewhere":                           func(_ *Registry, s *server, _ map[string]bool) { s.generations[keyspace.Sequence]++ },
		"here":                                func(r *Registry, _ *server, _ map[string]bool) { r.Retire([]string{keyspace.Sequence, green}) },
		"here, which Redis has not confirmed": func(_ *Registry, _ *server, held map[string]bool) { held[red] = true },
		"and the sequence is lost":            func(_ *Registry, s *server, _ map[string]bool) { delete(s.generations, keyspace.Sequence) },
		"while the generations are asked for": func(_ *Registry, s *server, _ map[string]bool) {
			s.meanwhile = func(name string) {
				if name == red {
					s.generations[keyspace.Sequence]++
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, server, held := newConnected(t)
			s, c, began := loadOf(t, r, server)
			invalidate(r, server, held)
			unmoved, err := s.AddLate(t.Context(), &c, []string{red}, began, time.Hour)
			require.NoError(t, err)
			require.False(t, unmoved)
		})
	}
}

func TestLateTagsThatRedisDoesNotAnswerForAreAnError(t *testing.T) {
	r, server, _ := newConnected(t)
	s, c, began := loadOf(t, r, server)
	server.err = errAway
	unmoved, err := s.AddLate(t.Context(), &c, []string{red}, began, time.Hour)
	require.ErrorIs(t, err, errAway)
	require.False(t, unmoved)
}

func TestInMemoryModeALateTagIsOutOfDateIfAnyWasInvalidated(t *testing.T) {
	r := newLocal(t)
	for _, invalidated := range []bool{false, true} {
		began := r.Events()
		s := take(t, r, items, keyspace.Sequence)
		s.Renew(true)
		s.Local()
		var c Capture
		require.True(t, s.Capture(&c, []string{items}))
		if invalidated {
			r.Retire([]string{keyspace.Sequence, green})
		}
		unmoved, err := s.AddLate(t.Context(), &c, []string{red}, began, time.Hour)
		require.NoError(t, err)
		require.Equal(t, !invalidated, unmoved)
		require.Len(t, c.Tags, 2)
	}
}

func TestOnlyNamedTagsAreMadeToOutliveTheirEntry(t *testing.T) {
	r, server, _ := newConnected(t)
	c := Capture{Tags: []Carried{{Tag: items, Value: 7}}}
	unmoved, err := r.Outlive(&c, time.Hour)
	require.NoError(t, err)
	require.True(t, unmoved)
	require.Empty(t, server.asked)

	server.generations[red] = 9
	c.Tags = append(c.Tags, Carried{Tag: red, Value: 9})
	unmoved, err = r.Outlive(&c, time.Hour)
	require.NoError(t, err)
	require.True(t, unmoved)
	require.Equal(t, []redisstore.Tag{{Key: red, Life: time.Hour}}, server.asked)

	server.generations[red]++
	unmoved, err = r.Outlive(&c, time.Hour)
	require.NoError(t, err)
	require.False(t, unmoved, "it was invalidated")

	server.err = errAway
	_, err = r.Outlive(&c, time.Hour)
	require.ErrorIs(t, err, errAway)
}
