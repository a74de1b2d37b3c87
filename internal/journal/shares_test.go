package journal

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/quota"

	"github.com/stretchr/testify/require"
)

// order is what an order of the admin API does to the journal while Redis confirms nothing.
func order(j *Journal, caller string, names ...string) bool {
	end, ok := j.Reserve(caller, names)
	if ok {
		j.Enter(caller, names...)
		end()
	}
	return ok
}

func manyNames(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = prefix + strconv.Itoa(i)
	}
	return names
}

// Hazard 120: whoever may not invalidate everything cannot fill the journal.
func TestACallerOutsideOfTheProgramCausesNoOverflow(t *testing.T) {
	t.Parallel()
	for kind, prefix := range map[string]string{"keys": "c:", "tags": keyspace.NamedPrefix, "categories": keyspace.CategoryPrefix, "patterns": keyspace.PatternPrefix + "c:"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			j := New()
			for i := range 3000 {
				for _, caller := range []string{"flood", "second", "third"} {
					order(j, caller, manyNames(prefix+caller+strconv.Itoa(i)+".", 16)...)
					order(j, caller, prefix+caller+strconv.Itoa(i))
				}
			}
			require.Nil(t, j.entries[keyspace.All])
			require.LessOrEqual(t, len(j.entries), mostOutside.Entries)
			require.LessOrEqual(t, len(j.patterns), mostOutside.Patterns)
			require.False(t, order(j, "flood", manyNames(prefix, 17_000)...), "more than its share")

			// The program has as much room as ever.
			if kind == "patterns" {
				j.Enter("", manyNames(keyspace.PatternPrefix+"own:", mostPatterns)...)
			} else {
				j.Enter("", manyNames("own:", mostUnconfirmed)...)
			}
			require.Nil(t, j.entries[keyspace.All])
			if kind == "patterns" {
				j.Enter("", keyspace.PatternPrefix+"own:more")
			} else {
				j.Enter("", "own:more")
			}
			require.True(t, j.entries[keyspace.All].overflow)
			require.False(t, order(j, "another", "c:1"), "or everything would be invalidated once more for it")
			_, _, upTo := j.Batch()
			j.Confirm(upTo, keyspace.All)
			require.True(t, order(j, "another", "c:1"))
		})
	}
}

func TestEachCallerFindsRoomThoughAnotherTakesWhatItCan(t *testing.T) {
	t.Parallel()
	j := New()
	n := 0
	for order(j, "flood", manyNames("c:"+strconv.Itoa(n)+".", 1000)...) {
		n++
	}
	require.LessOrEqual(t, n, 16)
	require.GreaterOrEqual(t, n, 15)
	for i := range 4 {
		require.True(t, order(j, "other "+strconv.Itoa(i), manyNames("d:"+strconv.Itoa(i)+".", 1000)...))
	}
	require.True(t, order(j, "one more", keyspace.PatternPrefix+"c:*"))
	require.False(t, order(j, "flood", "c:last"))
	_, keys, upTo := j.Batch()
	j.Confirm(upTo, keys...)
	require.False(t, order(j, "flood", manyNames("e:", 1000)...), "a few are confirmed")
	for range 40 {
		_, keys, upTo := j.Batch()
		j.Confirm(upTo, keys...)
		j.Recorded(j.Watermark())
	}
	require.True(t, order(j, "flood", manyNames("e:", 1000)...), "all are")
}

// Hazard 120: nor by way of what is sent again, each time that the connection is lost just then.
func TestWhatIsSentAgainStaysInItsShare(t *testing.T) {
	t.Parallel()
	j := New()
	for i := range 200 {
		for n := range 20 {
			order(j, "flood", manyNames("c:"+strconv.Itoa(i)+"."+strconv.Itoa(n)+".", 1000)...)
			order(j, "flood", keyspace.PatternPrefix+"c:"+strconv.Itoa(i)+"."+strconv.Itoa(n))
		}
		_, keys, upTo := j.Batch()
		tasks, _ := j.Patterns()
		j.ConnectionLost()
		j.Confirm(upTo, keys...) // and so they are entered once more
		for _, task := range tasks {
			j.Confirm(upTo, task.Name)
		}
		require.Zero(t, j.own)
		_, keys, upTo = j.Batch()
		j.Confirm(upTo, keys...)
		j.Recorded(j.Watermark())
	}
	require.Nil(t, j.entries[keyspace.All])
	require.LessOrEqual(t, len(j.entries), mostOutside.Entries)
}

// Hazard 121: a server that has forgotten more than is remembered has everything invalidated, so nobody outside may get so far ahead of
// what is written down.
func TestACallerOutsideConfirmsNoMoreThanIsRemembered(t *testing.T) {
	t.Parallel()
	j := New()
	confirmed := 0
	for i := range 100 {
		names := manyNames("c:"+strconv.Itoa(i)+".", 1000)
		if !confirmFor(j, "flood", names...) {
			break
		}
		confirmed += len(names)
	}
	require.Equal(t, 16_000, confirmed)
	j.Recover(0)
	require.Nil(t, j.entries[keyspace.All])
	require.Len(t, j.entries, confirmed)
	_, keys, upTo := j.Batch()
	require.Len(t, keys, batchSize)
	j.Confirm(upTo, keys...)
	j.Recorded(j.Watermark())
	end, ok := j.Reserve("flood", []string{"c:1"})
	require.True(t, ok)
	end()
}

// However names come and go, what is counted is what there is.
func TestTheRoomInTheJournalIsCountedRight(t *testing.T) {
	t.Parallel()
	j := New()
	callers := []string{"", "a", "b"}
	check := func() {
		want := make(map[string]quota.Use)
		var all, own quota.Use
		count := func(caller, name string) {
			if caller == "" {
				return
			}
			want[caller] = want[caller].Plus(quota.Of(name))
			all.Add(name, 1)
		}
		for name, e := range j.entries {
			count(e.caller, name)
			if e.caller == "" {
				own.Add(name, 1)
			}
		}
		size := 0
		for _, c := range j.recent.list {
			if size += len(c.name); c.number > j.recent.recorded {
				count(c.caller, c.name)
			}
		}
		by, outside := j.outside.Taken()
		if len(want) > 0 {
			require.Equal(t, want, by)
		}
		require.Equal(t, all, outside)
		require.Equal(t, own, j.own)
		require.Equal(t, size, j.recent.bytes)
	}
	for i := range 20_000 {
		caller, name := callers[rand.IntN(3)], []string{"c:", keyspace.NamedPrefix, keyspace.PatternPrefix + "c:"}[rand.IntN(3)]+strconv.Itoa(rand.IntN(200))
		switch rand.IntN(10) {
		case 0:
			_, keys, upTo := j.Batch()
			j.Confirm(upTo, keys...)
		case 1:
			tags, _, upTo := j.Batch()
			j.Confirm(upTo, tags...)
		case 2:
			tasks, upTo := j.Patterns()
			for _, task := range tasks {
				j.Confirm(upTo, task.Name)
			}
		case 3:
			before := j.Now(caller)
			j.ConnectionLost()
			j.Confirm(before, name)
		case 4:
			j.Recover(j.Watermark() - min(j.Watermark(), uint64(rand.IntN(50))))
		case 5:
			j.Recorded(j.Watermark() - min(j.Watermark(), uint64(rand.IntN(50))))
		case 6:
			if caller != "" {
				confirmFor(j, caller, name)
			}
		default:
			if caller == "" {
				j.Enter("", name)
			} else {
				order(j, caller, name)
			}
		}
		if i%100 == 0 {
			check()
		}
	}
	j.Enter("", manyNames("more:", mostUnconfirmed+1)...)
	check()
}

// The names in the journal are bounded in bytes, waiting or confirmed.
func TestTheJournalIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 64<<10)
	j := New()
	for i := range 4000 {
		j.Enter("", "c:"+long+strconv.Itoa(i))
	}
	size := 0
	for name := range j.entries {
		size += len(name)
	}
	require.LessOrEqual(t, size, mostUnconfirmedBytes)
	require.True(t, j.Contains(keyspace.All), "the program's own invalidations are not lost")

	j = New()
	for i := range 4000 {
		j.Confirm(j.Now(""), "c:"+long+strconv.Itoa(i))
	}
	size = 0
	for _, c := range j.recent.list {
		size += len(c.name)
	}
	require.Equal(t, j.recent.bytes, size)
	require.LessOrEqual(t, size, mostRecentBytes)
	require.EqualValues(t, 4000, j.Watermark())
	j.Recover(3999)
	require.True(t, j.Contains("c:"+long+"3999"))

	j = New()
	n := 0
	for order(j, "outside", manyNames(strings.Repeat("x", 1000)+strconv.Itoa(n)+".", 60)...) {
		n++
	}
	require.Less(t, n*60*1000, mostOutside.Bytes)
	require.Nil(t, j.entries[keyspace.All])
}

// inUse is what all callers outside of the program have.
func inUse(s *quota.Shares) quota.Use {
	_, all := s.Taken()
	return all
}
