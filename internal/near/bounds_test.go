package near

import (
	"fmt"
	"math"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// present counts the entries that can be read, and their bytes.
func present(c *Cache, keys int) (entries int, bytes int64) {
	for i := range keys {
		if e := c.Get(strconv.Itoa(i)); e != nil {
			entries++
			bytes += e.Size
		}
	}
	return entries, bytes
}

func TestTheBoundsHold(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		o       Options
		size    int64
		inserts int
		atMost  int
		atLeast int
	}{
		"by number, when entries are small": {Options{MaxEntries: 1000, MaxBytes: 100 << 20}, 10, 20_000, 1000, 900},
		"by bytes, when entries are large":  {Options{MaxEntries: 1000, MaxBytes: 1 << 20}, 10 << 10, 5000, 102, 90},
		"more entries allowed than bytes":   {Options{MaxEntries: 1000, MaxBytes: 100}, 0, 5000, 100, 10},
		"one entry":                         {Options{MaxEntries: 1, MaxBytes: 1 << 20}, 10, 100, 1, 1},
		"keys count too":                    {Options{MaxEntries: 1000, MaxBytes: 3000}, 0, 1000, 1000, 900},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, clock := newCache(t, test.o)
			for i := range test.inserts {
				e := entry(clock, i, time.Hour)
				e.Size = test.size
				require.True(t, insert(c, strconv.Itoa(i), e))
			}
			var entries int
			var bytes int64
			require.Eventually(t, func() bool {
				entries, bytes = present(c, test.inserts)
				return entries <= test.atMost && bytes <= test.o.MaxBytes && c.Len() == entries
			}, bound, time.Millisecond)
			require.GreaterOrEqual(t, entries, test.atLeast, "room that is there is used")
		})
	}
}

func TestAnEntryIsCountedWithItsKey(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, Options{MaxEntries: 1000, MaxBytes: 100_000})
	const inserts, keyLen = 1000, 1000
	for i := range inserts {
		require.True(t, insert(c, fmt.Sprintf("%0*d", keyLen, i), entry(clock, i, time.Hour)))
	}
	require.Eventually(t, func() bool { return c.Len() <= 100_000/keyLen }, bound, time.Millisecond)
	require.Positive(t, c.Len())
}

func TestAnEntryThatAloneIsOverTheBoundDoesNotStay(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	small := entry(clock, "small", time.Hour)
	require.True(t, insert(c, "small", small))
	big := entry(clock, "big", time.Hour)
	big.Size = roomy.MaxBytes + 1
	require.True(t, insert(c, "big", big))
	require.Eventually(t, func() bool { return c.Get("big") == nil && c.Len() == 1 }, bound, time.Millisecond)
	require.Same(t, small, c.Get("small"), "it does not push out the others")
}

func TestSizesOverFourGiBAreNotTakenForSmallOnes(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, Options{MaxEntries: 1000, MaxBytes: 6 << 30})
	for i := range 10 {
		e := entry(clock, i, time.Hour)
		e.Size = 4<<30 + 1 // one, in the 32 bits that otter counts with
		insert(c, strconv.Itoa(i), e)
	}
	require.Eventually(t, func() bool { return c.Len() <= 1 }, bound, time.Millisecond)
}

func TestExpiredEntriesGiveBackTheirMemoryUnasked(t *testing.T) {
	t.Parallel()
	inBubble(t, roomy, func(t *testing.T, c *Cache, clock *Clock) {
		for i := range 500 {
			insert(c, strconv.Itoa(i), entry(clock, i, 300*time.Millisecond))
		}
		insert(c, "long", entry(clock, "v", time.Hour))
		synctest.Wait()
		require.Equal(t, 501, c.Len())
		time.Sleep(sweepEvery)
		synctest.Wait()
		require.Equal(t, 1, c.Len())
		require.NotNil(t, c.Get("long"))
	})
}

func TestCloseDropsEverythingAndLeavesNoGoroutine(t *testing.T) {
	t.Parallel()
	// The bubble fails the test if a goroutine of the cache or of its clock outlives it.
	synctest.Test(t, func(t *testing.T) {
		c, clock, shut := open(roomy)
		for i := range 100 {
			insert(c, strconv.Itoa(i), entry(clock, i, time.Hour))
		}
		shut()
		entries, _ := present(c, 100)
		require.Zero(t, entries)
		require.Zero(t, c.Len())
		shut() // twice is once
	})
}

func TestACacheThatIsDroppedWithoutACloseLeavesNoGoroutine(t *testing.T) {
	t.Parallel()
	var stopped chan struct{}
	func() {
		clock := NewClock()
		defer clock.Stop()
		c := New(roomy, clock)
		insert(c, "k", entry(clock, "v", time.Hour))
		stopped = c.sweeper.stopped
	}()
	require.True(t, await(func() bool {
		runtime.GC()
		select {
		case <-stopped:
			return true
		default:
			return false
		}
	}))
}

func TestBothBoundsHoldWhateverTheyAre(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{
		{MaxEntries: 100, MaxBytes: math.MaxInt64}, {MaxEntries: 100, MaxBytes: 1 << 40}, {MaxEntries: 3, MaxBytes: 10 << 30},
		{MaxEntries: math.MaxInt, MaxBytes: 100_000}, {MaxEntries: math.MaxInt, MaxBytes: 1}, {MaxEntries: 1, MaxBytes: 1},
		{MaxEntries: 1, MaxBytes: math.MaxInt64}, {MaxEntries: 600, MaxBytes: 1000}, {MaxEntries: 7, MaxBytes: 128 << 20},
	} {
		t.Run(fmt.Sprint(o), func(t *testing.T) {
			t.Parallel()
			c, clock := newCache(t, o)
			const inserts, size = 3000, 1000
			for i := range inserts {
				e := entry(clock, i, time.Hour)
				e.Size = size
				insert(c, fmt.Sprintf("%04d", i), e)
			}
			fit := min(int64(o.MaxEntries), o.MaxBytes/(size+4), inserts)
			require.Eventually(t, func() bool { return int64(c.Len()) <= fit }, bound, time.Millisecond)
			require.GreaterOrEqual(t, int64(c.Len()), fit*9/10, "room that is there is used")
			require.True(t, c.Fits("key", o.MaxBytes-3))
			require.False(t, c.Fits("key", o.MaxBytes-2))
		})
	}
}

// What is asked for again and again is kept, though what was asked for before fills most of memory and is never asked for any more.
func TestALargeEntryFindsRoom(t *testing.T) {
	t.Parallel()
	for _, percent := range []int64{13, 25, 40, 60, 90, 100} {
		for _, smalls := range []int{0, 10, 30, 60, 79, 85, 120} {
			t.Run(fmt.Sprintf("%d%% beside %d", percent, smalls), func(t *testing.T) {
				t.Parallel()
				const maxBytes = 1_000_000
				c, clock := newCache(t, Options{MaxEntries: 100_000, MaxBytes: maxBytes})
				ask := func(key string, size int64) (missed int) {
					if c.Get(key) != nil {
						return 0
					}
					e := entry(clock, key, time.Hour)
					e.Size = size - int64(len(key))
					require.True(t, insert(c, key, e))
					c.store.CleanUp()
					return 1
				}
				for range 20 {
					for i := range smalls {
						ask(strconv.Itoa(i), maxBytes/100)
					}
				}
				missed := 0
				for range 200 {
					missed += ask("large", percent*maxBytes/100)
				}
				require.LessOrEqual(t, missed, 20)
				require.LessOrEqual(t, c.store.WeightedSize(), c.scale.most)
			})
		}
	}
}

func TestTheLargeEntriesThatAreNotedAreBounded(t *testing.T) {
	t.Parallel()
	var l large
	for i := range 1000 {
		require.False(t, l.missed(strconv.Itoa(i)))
		require.LessOrEqual(t, len(l.visits), mostLarge)
	}
	rooms := 0
	for range 10_000 {
		if l.missed("k") {
			rooms++
		}
	}
	require.InDelta(t, 9+7, rooms, 2) // after 4, 8, … 1,024 visits, and then each 1,024: what it pushes out may be asked for too
}
