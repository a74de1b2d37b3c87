package quota

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/keyspace"
)

func TestAUseCountsNamesTheirBytesAndThePatternsAmongThem(t *testing.T) {
	t.Parallel()
	pattern := keyspace.PatternPrefix + "c:*"
	u := Of("c:1", keyspace.NamedPrefix+"x", pattern)
	require.Equal(t, Use{Entries: 3, Patterns: 1, Bytes: len("c:1") + len(keyspace.NamedPrefix+"x") + len(pattern)}, u)
	u.Add(pattern, -1)
	require.Equal(t, Of("c:1", keyspace.NamedPrefix+"x"), u)
	require.True(t, u.Within(u))
	require.False(t, Use{Entries: 1}.Within(Use{Patterns: 1, Bytes: 1}))
	require.False(t, Use{Patterns: 1}.Within(Use{Entries: 1, Bytes: 1}))
	require.False(t, Use{Bytes: 1}.Within(Use{Entries: 1, Patterns: 1}))
}

func TestACallerTakesAHalfOfWhatOthersHaveLeft(t *testing.T) {
	t.Parallel()
	var s Shares
	most, one := Use{Entries: 64}, Use{Entries: 1}
	for _, want := range []int{32, 16, 8, 4} {
		caller, n := string(rune('a'+want)), 0
		for ; ; n++ {
			if _, ok := s.Reserve(most, caller, one); !ok {
				break
			}
		}
		require.Equal(t, want, n)
	}
}

func TestAReservationEndsOnce(t *testing.T) {
	t.Parallel()
	var s Shares
	end, ok := s.Reserve(Use{Entries: 8, Bytes: 100}, "a", Of("c:1"))
	require.True(t, ok)
	s.Take("a", Of("c:1"))
	by, all := s.Taken()
	require.Equal(t, map[string]Use{"a": Of("c:1", "c:1")}, by)
	require.Equal(t, Of("c:1", "c:1"), all)
	end()
	end()
	_, all = s.Taken()
	require.Equal(t, Of("c:1"), all)
	s.Release("a", Of("c:1"))
	by, all = s.Taken()
	require.Empty(t, by)
	require.Zero(t, all)
}

func TestTheProgramItselfIsNotCounted(t *testing.T) {
	t.Parallel()
	var s Shares
	s.Take("", Of("c:1"))
	by, all := s.Taken()
	require.Empty(t, by)
	require.Zero(t, all)
}

// Hazard 141: the patterns that a caller has do not keep it from invalidating keys.
func TestPatternsOfACallerLeaveRoomForItsKeys(t *testing.T) {
	t.Parallel()
	var s Shares
	most := Use{Entries: 1000, Patterns: 4, Bytes: 1 << 20}
	for _, caller := range []string{"a", "b"} { // after that, the first caller has more patterns than are left
		for {
			if _, ok := s.Reserve(most, caller, Of(keyspace.PatternPrefix+"c:*")); !ok {
				break
			}
		}
	}
	_, ok := s.Reserve(most, "a", Of("c:1"))
	require.True(t, ok)
	_, ok = s.Reserve(most, "a", Of("c:1", keyspace.PatternPrefix+"d:*"))
	require.False(t, ok)
}
