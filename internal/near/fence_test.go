package near

import (
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestALoadThatBeganBeforeADeleteIsNotStoredAfterIt(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	for _, there := range []bool{false, true} {
		if there {
			require.True(t, insert(c, "k", entry(clock, "old", time.Hour)))
		}
		fence := c.Fence("k")
		require.Equal(t, there, c.Delete("k"))
		require.False(t, c.Insert("k", entry(clock, "older than the Delete", time.Hour), fence))
		require.Nil(t, c.Get("k"))
	}
	require.True(t, insert(c, "k", entry(clock, "new", time.Hour)), "a load that begins later is stored")
	require.Equal(t, "new", c.Get("k").Value)
}

func TestARefusedInsertLeavesTheEntryThatIsThere(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	fence := c.Fence("k")
	c.Delete("k")
	require.True(t, insert(c, "k", entry(clock, "new", time.Hour)))
	require.False(t, c.Insert("k", entry(clock, "old", time.Hour), fence))
	require.Equal(t, "new", c.Get("k").Value)
}

func TestAPutSupersedesTheLoadsUnderWay(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	load := c.Fence("k")
	require.True(t, c.Put("k", entry(clock, "put", time.Hour), c.Fence("k")))
	require.False(t, c.Insert("k", entry(clock, "loaded before", time.Hour), load))
	require.Equal(t, "put", c.Get("k").Value)

	require.True(t, insert(c, "k", entry(clock, "loaded after", time.Hour)))
	require.Equal(t, "loaded after", c.Get("k").Value)
}

func TestAPutTakesThePlaceOfALoadThatWasStoredMeanwhile(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	put := c.Fence("k")
	require.True(t, insert(c, "k", entry(clock, "loaded", time.Hour)))
	require.True(t, c.Put("k", entry(clock, "put", time.Hour), put))
	require.Equal(t, "put", c.Get("k").Value)
}

func TestAPutUnderABrokenFenceLeavesNoEntry(t *testing.T) {
	t.Parallel()
	breaks := map[string]func(c *Cache, clock *Clock){
		"by Delete": func(c *Cache, _ *Clock) { c.Delete("k") },
		"by another Put": func(c *Cache, clock *Clock) {
			require.True(t, c.Put("k", entry(clock, "other", time.Hour), c.Fence("k")))
		},
		"by Delete, then loaded": func(c *Cache, clock *Clock) {
			c.Delete("k")
			require.True(t, insert(c, "k", entry(clock, "loaded", time.Hour)))
		},
	}
	for name, breakFence := range breaks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, clock := newCache(t, roomy)
			fence := c.Fence("k")
			breakFence(c, clock)
			require.False(t, c.Put("k", entry(clock, "put", time.Hour), fence))
			require.Nil(t, c.Get("k"), "nobody knows which write was the last")
		})
	}
}

func TestAPutSupersedesTheLoadsUnderWayEvenIfItIsNotStored(t *testing.T) {
	t.Parallel()
	later := map[string]func(string, *Cache, *Entry, Fence) bool{
		"load":  func(key string, c *Cache, e *Entry, f Fence) bool { return c.Insert(key, e, f) },
		"write": func(key string, c *Cache, e *Entry, f Fence) bool { return c.Put(key, e, f) },
	}
	for name, store := range later {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, clock := newCache(t, roomy)
			put := c.Fence("k")
			c.Delete("k")
			under := c.Fence("k") // takes the source's old value; then comes the write that the Put stands for
			require.False(t, c.Put("k", entry(clock, "new", time.Hour), put))
			require.False(t, store("k", c, entry(clock, "old", time.Hour), under))
			require.Nil(t, c.Get("k"))
		})
	}
}

func TestKeysThatShareAFenceCostEachOtherARefusalAtMost(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	var same, other string
	for i := 0; same == "" || other == ""; i++ {
		if k := strconv.Itoa(i); c.stripe(k) == c.stripe("k") {
			same = k
		} else {
			other = k
		}
	}
	require.True(t, insert(c, same, entry(clock, "kept", time.Hour)))
	fenceSame, fenceOther := c.Fence(same), c.Fence(other)
	c.Delete("k")
	require.Equal(t, "kept", c.Get(same).Value, "what is stored stays")
	require.False(t, c.Insert(same, entry(clock, "loading", time.Hour), fenceSame))
	require.True(t, c.Insert(other, entry(clock, "v", time.Hour), fenceOther), "a key on another stripe")
}

func TestKeysAreSpreadOverTheFences(t *testing.T) {
	t.Parallel()
	c, _ := newCache(t, roomy)
	used := make(map[*atomic.Uint64]bool)
	for i := range stripes {
		used[c.stripe("models:"+strconv.Itoa(i))] = true
	}
	// 63% of them, if the hash is as good as chance.
	require.Greater(t, len(used), stripes/2)
}

// rounds is how many races a race test runs.
func rounds() uint64 {
	switch {
	case testing.Short():
		return 10_000
	case raceDetector: // a tenth of the speed
		return 40_000
	default:
		return 200_000
	}
}

// await spins until ok, which other goroutines are busy to bring about.
func await(ok func() bool) bool {
	for deadline := time.Now().Add(bound); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// loaders fill key from source whenever it is missing, each with a fence taken before it reads. What they return ends
// them and says how many fills were accepted and refused.
func loaders(c *Cache, clock *Clock, key string, source *atomic.Uint64, turns []atomic.Uint64) (end func() (accepted, refused uint64)) {
	var stop atomic.Bool
	var ok, no atomic.Uint64
	var wg sync.WaitGroup
	for i := range turns {
		wg.Go(func() {
			for n := uint64(0); !stop.Load(); n++ {
				if c.Get(key) == nil {
					fence := c.Fence(key)
					version := source.Load()
					if n%2 == 0 {
						runtime.Gosched() // the time that a load takes
					}
					if c.Insert(key, entry(clock, version, time.Hour), fence) {
						ok.Add(1)
					} else {
						no.Add(1)
					}
				} else {
					runtime.Gosched()
				}
				turns[i].Add(1)
			}
		})
	}
	return func() (uint64, uint64) {
		stop.Store(true)
		wg.Wait()
		return ok.Load(), no.Load()
	}
}

// settled waits until every loader has ended what it was at.
func settled(turns []atomic.Uint64) bool {
	for i := range turns {
		before := turns[i].Load()
		if !await(func() bool { return turns[i].Load() > before }) {
			return false
		}
	}
	return true
}

// atLeast fails the test if key has a value that is older than version.
func atLeast(t *testing.T, c *Cache, key string, version uint64) {
	if e := c.Get(key); e != nil && e.Value.(uint64) < version {
		require.FailNow(t, "an older value is read", "version %d after %d", e.Value, version)
	}
}

func TestNobodyReadsAnOlderVersionOnceDeleteHasReturned(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	var source atomic.Uint64
	turns := make([]atomic.Uint64, 2)
	end := loaders(c, clock, "k", &source, turns)
	defer end()
	for n := range rounds() {
		version := source.Add(1)
		c.Delete("k")
		atLeast(t, c, "k", version)
		if n%4 == 0 { // else the next Delete comes upon a load
			require.True(t, settled(turns), "a loader hangs")
			// A stale fill that was on its way has landed now, and since loaders leave alone what is there, it would show.
			atLeast(t, c, "k", version)
		}
	}
	accepted, refused := end()
	t.Logf("%d fills accepted, %d refused", accepted, refused)
	require.Positive(t, accepted)
	require.Positive(t, refused, "no Delete came during a load: the race never took place")
}

func TestNobodyReadsAnOlderVersionOncePutHasReturned(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	var source, stored, beaten atomic.Uint64
	turns := make([]atomic.Uint64, 1)
	end := loaders(c, clock, "k", &source, turns)
	defer end()
	var writers sync.WaitGroup
	for range 2 {
		writers.Go(func() {
			for n := range rounds() / 2 {
				fence := c.Fence("k")
				version := source.Add(1)
				if n%8 == 0 {
					runtime.Gosched() // the time that a write takes
				}
				if c.Put("k", entry(clock, version, time.Hour), fence) {
					stored.Add(1)
				} else {
					beaten.Add(1)
				}
				if n%4 == 0 && !settled(turns) {
					t.Error("a loader hangs")
					return
				}
				if e := c.Get("k"); e != nil && e.Value.(uint64) < version {
					t.Errorf("version %d is read after %d", e.Value, version)
					return
				}
				if n%2 == 0 {
					c.Delete("k") // or the loaders would have little to do
				}
			}
		})
	}
	writers.Wait()
	accepted, refused := end()
	t.Logf("%d writes stored, %d beaten by another; %d fills accepted, %d refused", stored.Load(), beaten.Load(), accepted, refused)
	require.Positive(t, stored.Load())
	require.Positive(t, beaten.Load(), "no write broke the other's fence: the race never took place")
	require.Positive(t, accepted)
	require.Positive(t, refused, "no write came during a load: the race never took place")
}
