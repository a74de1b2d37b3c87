package aside

import (
	"strconv"
	"testing"

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
	j.enter(tagNamed+"x", tagAll, tagCategory+"c", "c:key")
	tags, keys, _ := j.pending()
	require.Equal(t, []string{tagSequence, tagAll, tagCategory + "c", tagNamed + "x"}, tags)
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
	require.False(t, j.holds(tagAll))
	last := j.enter("c:one too many")
	require.True(t, j.holds(tagAll))
	require.EqualValues(t, 1, j.waiting.Load())
	tags, keys, upTo := j.pending()
	require.Equal(t, []string{tagAll}, tags)
	require.Empty(t, keys)
	require.Zero(t, ended(done)+ended(last))
	j.confirm(upTo, tagAll)
	require.Equal(t, mostUnconfirmed, ended(done), "all of them are as good as confirmed")
	require.Equal(t, 1, ended(last))
}

func TestWhatWasConfirmedOfLateIsDoubtedOnce(t *testing.T) {
	t.Parallel()
	j := newJournal()
	for i := range 3 * mostRecent {
		j.confirm(j.number(), "c:"+strconv.Itoa(i))
	}
	require.Zero(t, j.waiting.Load())
	j.doubt()
	require.EqualValues(t, mostRecent, j.waiting.Load())
	require.True(t, j.holds("c:"+strconv.Itoa(3*mostRecent-1)))
	_, _, upTo := j.pending()
	for i := range 3 * mostRecent {
		j.confirm(upTo, "c:"+strconv.Itoa(i))
	}
	require.Zero(t, j.waiting.Load())
}
