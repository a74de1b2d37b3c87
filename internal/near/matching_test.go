package near

import (
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func startsWith(prefix string) func(string) bool {
	return func(key string) bool { return strings.HasPrefix(key, prefix) }
}

func TestDeletingWhatMatchesTakesEntriesAndBreaksFences(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, Options{MaxEntries: 1000, MaxBytes: 1 << 20})
	for i := range 100 {
		c.Put("a:"+strconv.Itoa(i), entry(clock, 1, time.Hour))
		c.Put("b:"+strconv.Itoa(i), entry(clock, 1, time.Hour))
	}
	ours, stored, theirs := c.Fence("a:absent", nil), c.Fence("a:1", nil), c.Fence("b:1", nil)
	defer ours.End()
	defer stored.End()
	defer theirs.End()
	require.EqualValues(t, 100, c.DeleteMatching(startsWith("a:")))
	require.True(t, ours.BrokenHere(), "nothing was stored under it, but a load is under way")
	require.True(t, stored.BrokenHere())
	require.False(t, theirs.Broken())
	require.False(t, c.Insert("a:absent", entry(clock, 1, time.Hour), ours))
	require.Nil(t, c.Get("a:1"))
	require.NotNil(t, c.Get("b:1"))
	require.Zero(t, c.DeleteMatching(startsWith("a:")))
	n := 0
	for key := range c.All() {
		require.True(t, strings.HasPrefix(key, "b:"))
		n++
	}
	require.Equal(t, 100, n)
	for range c.All() {
		break
	}
}

// What is stored under a fence from before is gone when DeleteMatching has returned, whenever it was inserted.
func TestNothingSurvivesThatBeganBefore(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, Options{MaxEntries: 1000, MaxBytes: 1 << 20})
	refused, found := 0, 0
	mayTake := time.Now().Add(2 * time.Minute)
	for round := 0; round < 3000 || refused == 0 && time.Now().Before(mayTake); round++ { // who is first is up to the scheduler
		fences := make([]*Fence, 4)
		for i := range fences {
			fences[i] = c.Fence("a:"+strconv.Itoa(i), nil)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for i, f := range fences {
				if !c.Insert("a:"+strconv.Itoa(i), entry(clock, 1, time.Hour), f) {
					refused++
				}
			}
		})
		c.DeleteMatching(startsWith("a:"))
		wg.Wait()
		for i, f := range fences {
			if c.Get("a:"+strconv.Itoa(i)) != nil {
				found++
			}
			f.End()
		}
		require.Zero(t, found, round)
	}
	require.NotZero(t, refused, "the race really happened")
}

func TestExpiredEntriesAreNeitherCountedNorListed(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, Options{MaxEntries: 1000, MaxBytes: 1 << 20})
	c.Put("a:1", entry(clock, 1, time.Millisecond))
	require.Eventually(t, func() bool { return c.Get("a:1") == nil }, bound, time.Millisecond)
	for range c.All() {
		t.Error("it has expired")
	}
	require.Zero(t, c.DeleteMatching(startsWith("a:")))
}
