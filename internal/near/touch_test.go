package near

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSomeTagsAreOthersEachTime(t *testing.T) {
	t.Parallel()
	c, _ := newCache(t, Options{MaxEntries: 10_000, MaxBytes: 1 << 20})
	good := new(Validity)
	learn := func(tag string, by *Validity) {
		f := c.Fence(tag, nil)
		defer f.End()
		require.NotNil(t, c.Learn(f, 1, by))
	}
	suits := func(tag string) bool { return strings.HasPrefix(tag, "tag") }
	require.Empty(t, c.SomeTags(10, suits))
	lost := new(Validity)
	for i := range 5 {
		learn("tag"+strconv.Itoa(i), good)
		learn("other"+strconv.Itoa(i), good)
		learn("tag of a lost connection"+strconv.Itoa(i), lost)
	}
	lost.Lapse(1)
	require.ElementsMatch(t, []string{"tag0", "tag1", "tag2", "tag3", "tag4"}, c.SomeTags(10, suits))
	for i := range 1000 {
		learn("tag"+strconv.Itoa(i), good)
	}
	seen := make(map[string]bool)
	for range 10_000 {
		some := c.SomeTags(10, suits)
		require.Len(t, some, 10)
		for _, tag := range some {
			seen[tag] = true
		}
	}
	require.Len(t, seen, 1000, "each has its turn")
}
