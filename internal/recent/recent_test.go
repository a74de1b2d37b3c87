package recent

import (
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestARingKeepsTheLastEventsInTheirOrder(t *testing.T) {
	t.Parallel()
	var r Ring[int]
	require.Equal(t, []int{}, r.All())
	for n := 1; n <= 3*Most; n++ {
		r.Add(n)
		all := r.All()
		require.Len(t, all, min(n, Most))
		for i, event := range all {
			require.Equal(t, n-len(all)+1+i, event)
		}
	}
}

func TestAMillionEventsTakeTheMemoryOfTheLast(t *testing.T) {
	t.Parallel()
	var r Ring[string]
	for range 1_000_000 {
		r.Add("event")
	}
	require.Len(t, r.All(), Most)
	require.LessOrEqual(t, cap(r.events), 2*Most)
}

func TestTheListOfEventsIsTheCallers(t *testing.T) {
	t.Parallel()
	var r Ring[int]
	r.Add(1)
	r.All()[0] = 7
	require.Equal(t, []int{1}, r.All())
}

func TestEventsAreReadWhileOthersAreAdded(t *testing.T) {
	t.Parallel()
	var r Ring[int]
	var adding sync.WaitGroup
	for range 4 {
		adding.Go(func() {
			for n := range 1000 {
				r.Add(n)
				require.LessOrEqual(t, len(r.All()), Most)
			}
		})
	}
	adding.Wait()
	require.Len(t, r.All(), Most)
}

func TestTextsAreBounded(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"a", "bb", "cc…"}, Texts([]string{"a", "bb", "ccc", "d"}, 3, 2))
	require.Empty(t, Texts(nil, 3, 2))
	given := []string{"long"}
	Texts(given, 1, 2)
	require.Equal(t, "long", given[0])

	cut := Text(strings.Repeat("ü", 10), 5)
	require.Equal(t, "üü…", cut)
	require.True(t, utf8.ValidString(cut))
}
