package journal

import (
	"strconv"
	"testing"

	"github.com/gatewayz/aside/internal/keyspace"

	"github.com/stretchr/testify/require"
)

func ended(list []*Pending) (n int) {
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
	j := New()
	first := j.Enter("", "a", "b")
	_, keys, upTo := j.Batch()
	require.ElementsMatch(t, []string{"a", "b"}, keys)
	again := j.Enter("", "a") // while that is on its way
	j.Confirm(upTo, "a", "b")
	require.Equal(t, 2, ended(first))
	require.Zero(t, ended(again))
	require.True(t, j.Contains("a"), "the later one is not confirmed")
	require.False(t, j.Contains("b"))
	_, _, upTo = j.Batch()
	j.Confirm(upTo, "a")
	require.Equal(t, 2, ended(first))
	require.Equal(t, 1, ended(again))
	require.False(t, j.Contains("a"))
}

func TestTheSequenceOfTagsIsSentBeforeAnyNamedTag(t *testing.T) {
	t.Parallel()
	j := New()
	j.Enter("", keyspace.NamedPrefix+"x", keyspace.All, keyspace.CategoryPrefix+"c", "c:key")
	tags, keys, _ := j.Batch()
	require.Equal(t, []string{keyspace.Sequence, keyspace.All, keyspace.CategoryPrefix + "c", keyspace.NamedPrefix + "x"}, tags)
	require.Equal(t, []string{"c:key"}, keys)
}

func TestAJournalThatIsFullInvalidatesEverything(t *testing.T) {
	t.Parallel()
	j := New()
	var done []*Pending
	for i := range mostUnconfirmed {
		done = append(done, j.Enter("", "c:"+strconv.Itoa(i))...)
	}
	require.EqualValues(t, mostUnconfirmed, j.waiting.Load())
	require.NotEmpty(t, j.Enter("", "c:0"), "one that is there already takes no room")
	require.False(t, j.Contains(keyspace.All))
	last := j.Enter("", "c:one too many")
	require.True(t, j.Contains(keyspace.All))
	require.EqualValues(t, 1, j.waiting.Load())
	tags, keys, upTo := j.Batch()
	require.Equal(t, []string{keyspace.All}, tags)
	require.Empty(t, keys)
	require.Zero(t, ended(done)+ended(last))
	j.Confirm(upTo, keyspace.All)
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
			j := New()
			for i := range all {
				j.Confirm(j.Now(""), nameOf(i))
			}
			require.EqualValues(t, all, j.Watermark())
			require.Zero(t, j.waiting.Load())
			j.Recover(c.mark)
			require.EqualValues(t, len(c.holds), j.waiting.Load())
			for _, held := range c.holds {
				require.True(t, j.Contains(held))
			}
			require.False(t, j.Contains(c.not))
		})
	}
}

func nameOf(i int) string { return "c:" + strconv.Itoa(i) }

// A long outage has no end of names: what the journal keeps of them is bounded all the same.
func TestAJournalThatStaysFullDoesNotGrow(t *testing.T) {
	t.Parallel()
	j := New()
	kept := func() (n int) {
		for _, e := range j.entries {
			n += 1 + len(e.waiters)
		}
		return n
	}
	for i := range mostUnconfirmed + 1 {
		j.Enter("", nameOf(i))
	}
	full := kept()
	var late []*Pending
	for i := range 3 * mostUnconfirmed {
		late = append(late, j.Enter("", nameOf(-1-i))...)
		if i%1000 == 0 {
			j.Batch() // it is tried again and again
		}
	}
	require.Less(t, kept(), full+10)
	require.Len(t, late, 3*mostUnconfirmed)
	for _, w := range late {
		require.NotNil(t, w.count, "what is removed for it is counted")
	}
	require.Len(t, j.Enter("", keyspace.Sequence, keyspace.NamedPrefix+"a", keyspace.NamedPrefix+"b"), 1, "what is removed for it counts once")
	require.EqualValues(t, 1, j.waiting.Load())

	_, _, upTo := j.Batch()
	after := j.Enter("", nameOf(0)) // which may have come too late for what was sent
	j.Confirm(upTo, keyspace.All)
	require.Zero(t, ended(after))
	require.True(t, j.Contains(keyspace.All))
	_, _, upTo = j.Batch()
	j.Confirm(upTo, keyspace.All)
	require.Equal(t, len(late)+1, ended(append(late, after...)))
	j.Enter("", nameOf(0))
	require.True(t, j.Contains(nameOf(0)), "there is room again")
	require.False(t, j.Contains(keyspace.All))
}

func TestWhoWaitsForAPatternHearsThatThereIsNoRoomForIt(t *testing.T) {
	t.Parallel()
	j := New()
	var list []*Pending
	for i := range mostPatterns + 1 {
		list = append(list, j.Enter("", keyspace.PatternPrefix+nameOf(i))...)
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

// The invalidations that a server that fails has confirmed last are the ones that its successor is most likely not to know:
// their answers and the end of the connection arrive together.
func TestWhatIsConfirmedByAConnectionThatIsLostMeanwhileIsInDoubt(t *testing.T) {
	t.Parallel()
	j := New()
	before := j.Now("") // then it is sent, and answered
	j.ConnectionLost()  // the connection breaks before the caller has run on
	_, again := j.Confirm(before, "c:a")
	require.Len(t, again, 1)
	require.True(t, j.Contains("c:a"), "it is sent again")
}
