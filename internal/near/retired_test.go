package near

import (
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhichTagsWereRetiredSinceAMark(t *testing.T) {
	t.Parallel()
	clock := NewClock()
	defer clock.Stop()
	c := New(Options{MaxEntries: 10, MaxBytes: 1 << 20}, clock)
	defer c.Close()
	for n := range 2 * remembered { // the mark is at every place of the ring
		c.Retire("before")
		mark := c.Retired()
		require.False(t, c.RetiredSince("before", mark))
		c.Retire("one")
		c.RetireAll([]string{"two"}, new(atomic.Int64), make(chan struct{}))
		c.Push("pushed")
		for name, want := range map[string]bool{"before": false, "one": true, "two": true, "pushed": false} {
			require.Equal(t, want, c.RetiredSince(name, mark), "%s, at %d", name, n)
		}
	}
}

func TestOfMoreTagsThanAreRememberedAnyMayHaveBeenRetired(t *testing.T) {
	t.Parallel()
	clock := NewClock()
	defer clock.Stop()
	c := New(Options{MaxEntries: 10, MaxBytes: 1 << 20}, clock)
	defer c.Close()
	mark := c.Retired()
	for i := range remembered - 1 {
		c.Retire(strconv.Itoa(i))
		require.True(t, c.RetiredSince("0", mark))
		require.False(t, c.RetiredSince("another", mark))
	}
	c.Retire("last")
	require.True(t, c.RetiredSince("0", mark))
	require.True(t, c.RetiredSince("another", mark))
}
