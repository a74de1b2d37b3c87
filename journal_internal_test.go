package aside

import (
	"strconv"
	"testing"

	"github.com/gatewayz/aside/internal/keyspace"

	"github.com/stretchr/testify/require"
)

func ended(list []*pending) (n int) {
	for _, w := range list {
		select {
		case <-w.confirmed:
			n++
		default:
		}
	}
	return n
}

func TestTheJournalKeepsTheLastInvalidationOfEachName(t *testing.T) {
	t.Parallel()
	j := newJournal()
	first := j.enter("a", "b")
	_, keys, upTo := j.pending()
	require.ElementsMatch(t, []string{"a", "b"}, keys)
	again := j.enter("a") // while that is on its way
	j.confirm(upTo, "a", "b")
	require.Equal(t, 2, ended(first))
	require.Zero(t, ended(again))
	require.True(t, j.holds("a"), "the later one is not confirmed")
	require.False(t, j.holds("b"))
	_, _, upTo = j.pending()
	j.confirm(upTo, "a")
	require.Equal(t, 2, ended(first))
	require.Equal(t, 1, ended(again))
	require.False(t, j.holds("a"))
}

func TestTheSequenceOfTagsIsSentBeforeAnyNamedTag(t *testing.T) {
	t.Parallel()
	j := newJournal()
	j.enter(keyspace.NamedPrefix+"x", keyspace.All, keyspace.CategoryPrefix+"c", "c:key")
	tags, keys, _ := j.pending()
	require.Equal(t, []string{keyspace.Sequence, keyspace.All, keyspace.CategoryPrefix + "c", keyspace.NamedPrefix + "x"}, tags)
	require.Equal(t, []string{"c:key"}, keys)
}

func TestAJournalThatIsFullInvalidatesEverything(t *testing.T) {
	t.Parallel()
	j := newJournal()
	var done []*pending
	for i := range mostUnconfirmed {
		done = append(done, j.enter("c:"+strconv.Itoa(i))...)
	}
	require.EqualValues(t, mostUnconfirmed, j.waiting.Load())
	require.NotEmpty(t, j.enter("c:0"), "one that is there already takes no room")
	require.False(t, j.holds(keyspace.All))
	last := j.enter("c:one too many")
	require.True(t, j.holds(keyspace.All))
	require.EqualValues(t, 1, j.waiting.Load())
	tags, keys, upTo := j.pending()
	require.Equal(t, []string{keyspace.All}, tags)
	require.Empty(t, keys)
	require.Zero(t, ended(done)+ended(last))
	j.confirm(upTo, keyspace.All)
	require.Equal(t, mostUnconfirmed, ended(done), "all of them are as good as confirmed")
	require.Equal(t, 1, ended(last))
}

func TestWhatAServerDoesNotKnowOfIsSentToItAgain(t *testing.T) {
	t.Parallel()
	const all = 3 * mostRecent
	for name, c := range map[string]struct {
		mark  uint64
		holds []string
		not   string
	}{
		"all":                    {all, nil, nameOf(all - 1)},
		"all but the last three": {all - 3, []string{nameOf(all - 3), nameOf(all - 2), nameOf(all - 1)}, nameOf(all - 4)},
		"too few to say which":   {all - 2*mostRecent - 1, []string{keyspace.All}, nameOf(all - 1)},
		"none":                   {0, []string{keyspace.All}, nameOf(all - 1)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := newJournal()
			for i := range all {
				j.confirm(j.now(), nameOf(i))
			}
			require.EqualValues(t, all, j.mark())
			require.Zero(t, j.waiting.Load())
			j.found(c.mark)
			require.EqualValues(t, len(c.holds), j.waiting.Load())
			for _, held := range c.holds {
				require.True(t, j.holds(held))
			}
			require.False(t, j.holds(c.not))
		})
	}
}

func nameOf(i int) string { return "c:" + strconv.Itoa(i) }

// A long outage has no end of names: what the journal keeps of them is bounded all the same.
func TestAJournalThatStaysFullDoesNotGrow(t *testing.T) {
	t.Parallel()
	j := newJournal()
	kept := func() (n int) {
		for _, e := range j.entries {
			n += 1 + len(e.waiters)
		}
		return n
	}
	for i := range mostUnconfirmed + 1 {
		j.enter(nameOf(i))
	}
	full := kept()
	var late []*pending
	for i := range 3 * mostUnconfirmed {
		late = append(late, j.enter(nameOf(-1-i))...)
		if i%1000 == 0 {
			j.pending() // it is tried again and again
		}
	}
	require.Less(t, kept(), full+10)
	require.Len(t, late, 3*mostUnconfirmed)
	for _, w := range late {
		require.NotNil(t, w.tally, "what is removed for it is counted")
	}
	require.Len(t, j.enter(keyspace.Sequence, keyspace.NamedPrefix+"a", keyspace.NamedPrefix+"b"), 1, "what is removed for it counts once")
	require.EqualValues(t, 1, j.waiting.Load())

	_, _, upTo := j.pending()
	after := j.enter(nameOf(0)) // which may have come too late for what was sent
	j.confirm(upTo, keyspace.All)
	require.Zero(t, ended(after))
	require.True(t, j.holds(keyspace.All))
	_, _, upTo = j.pending()
	j.confirm(upTo, keyspace.All)
	require.Equal(t, len(late)+1, ended(append(late, after...)))
	j.enter(nameOf(0))
	require.True(t, j.holds(nameOf(0)), "there is room again")
	require.False(t, j.holds(keyspace.All))
}

func TestWhoWaitsForAPatternHearsThatThereIsNoRoomForIt(t *testing.T) {
	t.Parallel()
	j := newJournal()
	var list []*pending
	for i := range mostPatterns + 1 {
		list = append(list, j.enter(keyspace.PatternPrefix+nameOf(i))...)
	}
	for _, w := range list[:mostPatterns] {
		select {
		case <-w.failed:
		default:
			t.Fatal("nobody tells, as long as Redis is away")
		}
	}
	require.Nil(t, list[mostPatterns].failed)
	require.Zero(t, ended(list))
}
