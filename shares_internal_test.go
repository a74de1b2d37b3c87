package aside

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/quota"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/outside"
	"github.com/gatewayz/aside/internal/redisstore"
)

// order is what an order of the admin API does to the journal while Redis confirms nothing.
func order(j *journal, caller string, names ...string) bool {
	end, ok := j.reserve(caller, names)
	if ok {
		j.enterFor(caller, names...)
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
			j := newJournal()
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
				j.enter(manyNames(keyspace.PatternPrefix+"own:", mostPatterns)...)
			} else {
				j.enter(manyNames("own:", mostUnconfirmed)...)
			}
			require.Nil(t, j.entries[keyspace.All])
			if kind == "patterns" {
				j.enter(keyspace.PatternPrefix + "own:more")
			} else {
				j.enter("own:more")
			}
			require.True(t, j.entries[keyspace.All].others)
			require.False(t, order(j, "another", "c:1"), "or everything would be invalidated once more for it")
			_, _, upTo := j.pending()
			j.confirm(upTo, keyspace.All)
			require.True(t, order(j, "another", "c:1"))
		})
	}
}

func TestEachCallerFindsRoomThoughAnotherTakesWhatItCan(t *testing.T) {
	t.Parallel()
	j := newJournal()
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
	_, keys, upTo := j.pending()
	j.confirm(upTo, keys...)
	require.False(t, order(j, "flood", manyNames("e:", 1000)...), "a few are confirmed")
	for range 40 {
		_, keys, upTo := j.pending()
		j.confirm(upTo, keys...)
		j.wrote(j.mark())
	}
	require.True(t, order(j, "flood", manyNames("e:", 1000)...), "all are")
}

// Hazard 120: nor by way of what is sent again, each time that the connection is lost just then.
func TestWhatIsSentAgainStaysInItsShare(t *testing.T) {
	t.Parallel()
	j := newJournal()
	for i := range 200 {
		for n := range 20 {
			order(j, "flood", manyNames("c:"+strconv.Itoa(i)+"."+strconv.Itoa(n)+".", 1000)...)
			order(j, "flood", keyspace.PatternPrefix+"c:"+strconv.Itoa(i)+"."+strconv.Itoa(n))
		}
		_, keys, upTo := j.pending()
		tasks, _ := j.tasks()
		j.doubt()
		j.confirm(upTo, keys...) // and so they are entered once more
		for _, task := range tasks {
			j.confirm(upTo, task.name)
		}
		require.Zero(t, j.own)
		_, keys, upTo = j.pending()
		j.confirm(upTo, keys...)
		j.wrote(j.mark())
	}
	require.Nil(t, j.entries[keyspace.All])
	require.LessOrEqual(t, len(j.entries), mostOutside.Entries)
}

// Hazard 121: a server that has forgotten more than is remembered has everything invalidated, so nobody outside may get so far ahead of
// what is written down.
func TestACallerOutsideConfirmsNoMoreThanIsRemembered(t *testing.T) {
	t.Parallel()
	j := newJournal()
	confirmed := 0
	for i := range 100 {
		names := manyNames("c:"+strconv.Itoa(i)+".", 1000)
		if !confirmFor(j, "flood", names...) {
			break
		}
		confirmed += len(names)
	}
	require.Equal(t, 16_000, confirmed)
	j.found(0)
	require.Nil(t, j.entries[keyspace.All])
	require.Len(t, j.entries, confirmed)
	_, keys, upTo := j.pending()
	require.Len(t, keys, replayAtOnce)
	j.confirm(upTo, keys...)
	j.wrote(j.mark())
	end, ok := j.reserve("flood", []string{"c:1"})
	require.True(t, ok)
	end()
}

// However names come and go, what is counted is what there is.
func TestTheRoomInTheJournalIsCountedRight(t *testing.T) {
	t.Parallel()
	j := newJournal()
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
		for _, c := range j.recent {
			if size += len(c.name); c.number > j.marked {
				count(c.caller, c.name)
			}
		}
		by, outside := j.outside.Taken()
		if len(want) > 0 {
			require.Equal(t, want, by)
		}
		require.Equal(t, all, outside)
		require.Equal(t, own, j.own)
		require.Equal(t, size, j.bytes)
	}
	for i := range 20_000 {
		caller, name := callers[rand.IntN(3)], []string{"c:", keyspace.NamedPrefix, keyspace.PatternPrefix + "c:"}[rand.IntN(3)]+strconv.Itoa(rand.IntN(200))
		switch rand.IntN(10) {
		case 0:
			_, keys, upTo := j.pending()
			j.confirm(upTo, keys...)
		case 1:
			tags, _, upTo := j.pending()
			j.confirm(upTo, tags...)
		case 2:
			tasks, upTo := j.tasks()
			for _, task := range tasks {
				j.confirm(upTo, task.name)
			}
		case 3:
			before := j.now()
			before.caller = caller
			j.doubt()
			j.confirm(before, name)
		case 4:
			j.found(j.mark() - min(j.mark(), uint64(rand.IntN(50))))
		case 5:
			j.wrote(j.mark() - min(j.mark(), uint64(rand.IntN(50))))
		case 6:
			if caller != "" {
				confirmFor(j, caller, name)
			}
		default:
			if caller == "" {
				j.enter(name)
			} else {
				order(j, caller, name)
			}
		}
		if i%100 == 0 {
			check()
		}
	}
	j.enter(manyNames("more:", mostUnconfirmed+1)...)
	check()
}

// The names in the journal are bounded in bytes, waiting or confirmed.
func TestTheJournalIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 64<<10)
	j := newJournal()
	for i := range 4000 {
		j.enter("c:" + long + strconv.Itoa(i))
	}
	size := 0
	for name := range j.entries {
		size += len(name)
	}
	require.LessOrEqual(t, size, mostUnconfirmedBytes)
	require.True(t, j.holds(keyspace.All), "the program's own invalidations are not lost")

	j = newJournal()
	for i := range 4000 {
		j.confirm(j.now(), "c:"+long+strconv.Itoa(i))
	}
	size = 0
	for _, c := range j.recent {
		size += len(c.name)
	}
	require.Equal(t, j.bytes, size)
	require.LessOrEqual(t, size, mostRecentBytes)
	require.EqualValues(t, 4000, j.mark())
	j.found(3999)
	require.True(t, j.holds("c:"+long+"3999"))

	j = newJournal()
	n := 0
	for order(j, "outside", manyNames(strings.Repeat("x", 1000)+strconv.Itoa(n)+".", 60)...) {
		n++
	}
	require.Less(t, n*60*1000, mostOutside.Bytes)
	require.Nil(t, j.entries[keyspace.All])
}

// What waits to be told is bounded in bytes, and does not become everything because of somebody outside.
func TestWhatIsNotToldYetIsBounded(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 1000} {
		var all atomic.Int64
		release := make(chan struct{})
		c, err := New(Options{OnInvalidated: func(i Invalidation) {
			<-release
			if i.All {
				all.Add(1)
			}
		}})
		require.NoError(t, err)
		p := &Policy{Name: "p", Category: "p", TTL: time.Hour}
		ctx := outside.With(context.Background(), "outside")
		refused := 0
		for i := range 20_000 {
			keys := []Key{p.Key(i)}
			for j := 1; j < size; j++ {
				keys = append(keys, p.Key(i, j))
			}
			if _, err := c.Invalidate(ctx, keys...); err != nil {
				require.ErrorIs(t, err, &Error{Code: CodeOverloaded})
				if refused++; refused > 100 {
					break
				}
			}
		}
		require.NotZero(t, refused)
		require.Less(t, c.told.size, mostUntoldSize/4)
		_, err = c.Invalidate(outside.With(context.Background(), "another"), p.Key("another's"))
		require.NoError(t, err, "one caller leaves room to the next one")
		_, err = c.Invalidate(context.Background(), p.Key("own"))
		require.NoError(t, err)
		close(release)
		require.NoError(t, c.Close())
		require.Zero(t, all.Load())
		require.Zero(t, inUse(&c.told.outside))
	}
}

func TestTagsToSweepAreBounded(t *testing.T) {
	t.Parallel()
	s := &sweeps{wake: make(chan struct{}, 1)}
	for i := range mostDue {
		s.begin(keyspace.NamedPrefix+strconv.Itoa(i), 1)
	}
	_, ok := s.reserve("outside", []string{keyspace.NamedPrefix + "more"})
	require.False(t, ok)
	waiting := newTally()
	for _, tally := range []*tally{s.begin(keyspace.NamedPrefix+"more", 1, waiting), waiting} {
		select {
		case <-tally.done:
		default:
			t.Fatal("nobody would ever close it")
		}
	}
	require.Len(t, s.due, mostDue)
	s.begin(keyspace.NamedPrefix+"1", 2)
	round := s.take()
	require.EqualValues(t, 2, round[keyspace.NamedPrefix+"1"].generation)
	s.done(round)
	_, ok = s.reserve("outside", []string{keyspace.NamedPrefix + "more"})
	require.True(t, ok)
}

func TestACategoryCannotBeCalledAll(t *testing.T) {
	t.Parallel()
	_, err := New(Options{Policies: []Policy{{Name: "x", Category: "all", TTL: time.Hour}}})
	require.ErrorContains(t, err, "reserved")
	c, err := New(Options{})
	require.NoError(t, err)
	defer c.Close()
	all := &Policy{Name: "x", Category: "all", TTL: time.Hour}
	other := &Policy{Name: "y", Category: "all2", TTL: time.Hour}
	require.NoError(t, Set(context.Background(), c, other.Key("a"), 1))
	require.ErrorContains(t, Set(context.Background(), c, all.Key("a"), 1), "reserved")
	_, err = c.InvalidateCategory(context.Background(), "all")
	require.ErrorContains(t, err, "InvalidateAll")
	require.Error(t, all.Match(Wildcard).Err())
	_, err = ParsePattern("all:*")
	require.Error(t, err)
	v, err := Get[int](context.Background(), c, other.Key("a"))
	require.NoError(t, err)
	require.Equal(t, 1, v)
}

// Hazard 79: nothing is to be swept of a tag that had no generation.
func TestATagThatWasMissingIsNotSwept(t *testing.T) {
	t.Parallel()
	c := &Cache{sweeps: sweeps{wake: make(chan struct{}, 1)}}
	waiting := newTally()
	require.Empty(t, c.sweepAfter("", keyspace.NamedPrefix+"x", redisstore.Generation{Value: 1, Missing: true}, waiting))
	<-waiting.done
	require.Empty(t, c.sweeps.due)
	require.Len(t, c.sweepAfter("", keyspace.NamedPrefix+"x", redisstore.Generation{Value: 1}), 1)
	require.Len(t, c.sweeps.due, 1)
}

// inUse is what all callers outside of the program have.
func inUse(s *quota.Shares) quota.Use {
	_, all := s.Taken()
	return all
}
