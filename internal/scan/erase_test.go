package scan

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/journal"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/redistest"
)

// entered are the patterns with these texts, in their order, and the counts of those who wait for them.
func entered(t *testing.T, texts ...string) (patterns []journal.Pattern, counts []*journal.Count) {
	t.Helper()
	j := journal.New()
	for _, text := range texts {
		counts = append(counts, j.Enter("", keyspace.PatternPrefix+text)[0].Count())
	}
	patterns, _ = j.Patterns()
	slices.SortFunc(patterns, func(a, b journal.Pattern) int { return slices.Index(texts, a.Text) - slices.Index(texts, b.Text) })
	return patterns, counts
}

func TestPatternsAreSearchedForTogether(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		texts []string
		match string
		one   bool
	}{
		{[]string{"items:a"}, "items:a", true},
		{[]string{"items:a*"}, "items:a*", false},
		{[]string{`items:a\*`}, `items:a\*`, false},
		{[]string{"items:a:*", "items:abc"}, "items:a*", false},
		{[]string{"items:a:*", "items:b:*", "items:a:c"}, "items:*", false},
	} {
		patterns, _ := entered(t, c.texts...)
		match, one := together(patterns)
		require.Equal(t, c.match, match, c.texts)
		require.Equal(t, c.one, one, c.texts)
	}
}

func TestEraseRemovesValuesAndLeasesThatMatch(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.bump(t, keyspace.Sequence)
	lease := redisstore.LeasePattern("items:a:3") // a pattern without a special character is the name
	for _, key := range []string{"items:a:1", "items:a:2", "items:b:1", "users:a:1"} {
		f.put(t, key, nil)
	}
	f.server.MustDo(t, "SET", lease, "a nonce", "PX", "60000")
	f.server.MustDo(t, "SET", "items:a:foreign", "something else")
	all := []string{"items:a:1", "items:a:2", "items:b:1", "users:a:1", lease, "items:a:foreign"}

	patterns, counts := entered(t, "items:a:1")
	require.NoError(t, f.Erase(t.Context(), patterns))
	require.Equal(t, all[1:], f.left(t, all...))
	require.EqualValues(t, 1, counts[0].Removed.Load())
	require.NotEqual(t, "1763950000000000", f.server.MustDo(t, "GET", keyspace.Sequence), "the sequence is raised")
	require.NotNil(t, f.server.MustDo(t, "GET", keyspace.ErasureTag("items")), "and the erasure tag")

	f.put(t, "items:a:1", nil)
	patterns, counts = entered(t, "items:a:*", "items:*:1")
	require.NoError(t, f.Erase(t.Context(), patterns))
	require.Equal(t, []string{"users:a:1", "items:a:foreign"}, f.left(t, all...))
	require.EqualValues(t, 2, counts[0].Removed.Load())
	require.EqualValues(t, 2, counts[1].Removed.Load(), "one of them is counted for both")
}

// A server that becomes a replica during the scan has keys to go over, but perhaps not all of them.
func TestEraseFailsWhereTheServerHasBecomeAReplicaMeanwhile(t *testing.T) {
	t.Parallel()
	f, other := newFixture(t), redistest.Start(t)
	f.put(t, "items:a", nil)
	passes := 0
	gate := f.proxy.HoldReplies(func(args []string) bool {
		if strings.EqualFold(args[0], "SCAN") {
			passes++
		}
		return passes == 2
	})
	patterns, _ := entered(t, "items:b*")
	erased := make(chan error, 1)
	go func() { erased <- f.Erase(t.Context(), patterns) }()
	gate.Wait(t)
	f.server.MustDo(t, "REPLICAOF", "127.0.0.1", strconv.Itoa(other.Port()))
	gate.Release()
	require.Error(t, <-erased)
}
