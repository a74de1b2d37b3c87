package near

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var roomy = Options{MaxEntries: 1000, MaxBytes: 1 << 20}

// bound is how long a test waits for what must happen: far longer than it takes, as a busy machine may stand still for seconds. Mutants, for
// which it never does, are given less.
var bound = func() time.Duration {
	if os.Getenv("ASIDE_TEST_BOUND") != "" {
		return 20 * time.Second
	}
	return 3 * time.Minute
}()

// open makes a cache and its clock; what it returns ends them.
func open(o Options) (c *Cache, clock *Clock, shut func()) {
	clock = NewClock()
	c = New(o, clock)
	return c, clock, func() {
		c.Close()
		clock.Stop()
	}
}

// newCache makes a cache that ends with its test.
func newCache(t testing.TB, o Options) (*Cache, *Clock) {
	c, clock, shut := open(o)
	t.Cleanup(shut)
	return c, clock
}

// inBubble runs a test on fake time.
func inBubble(t *testing.T, o Options, test func(t *testing.T, c *Cache, clock *Clock)) {
	synctest.Test(t, func(t *testing.T) {
		c, clock, shut := open(o)
		defer shut() // before the bubble's time stops
		test(t, c, clock)
	})
}

// entry is a fresh entry for as long as ttl, and the validities are good.
func entry(clock *Clock, value any, ttl time.Duration, validities ...*Validity) *Entry {
	now := clock.Now()
	return &Entry{Value: value, LoadedAt: now, Until: now + int64(ttl), Scope: &Scope{Validities: validities}, Size: 8}
}

// insert is a load.
func insert(c *Cache, key string, e *Entry) bool {
	fence := c.Fence(key, nil)
	defer fence.End()
	return c.Insert(key, e, fence)
}

func TestAnEntryIsServedUntilTheNanosecondItsTimeIsUp(t *testing.T) {
	t.Parallel()
	ttls := []time.Duration{
		time.Nanosecond, time.Millisecond, tick - 1, tick, margin, margin + 1, 123_456_789,
		300 * time.Millisecond, 5 * time.Second, 10*time.Minute + 7*time.Millisecond,
	}
	// Some deadlines fall on a tick of the coarse clock and some between two.
	for _, offset := range []time.Duration{0, 1, 5 * time.Millisecond, tick - 1} {
		if offset == tick-1 {
			ttls = append(ttls, time.Hour)
		}
		for _, ttl := range ttls {
			t.Run(fmt.Sprintf("%v after %v", ttl, offset), func(t *testing.T) {
				t.Parallel()
				inBubble(t, roomy, func(t *testing.T, c *Cache, clock *Clock) {
					time.Sleep(offset)
					e := entry(clock, "v", ttl)
					require.True(t, insert(c, "k", e))
					require.Same(t, e, c.Get("k"))
					time.Sleep(ttl - 1)
					synctest.Wait()
					require.Same(t, e, c.Get("k"), "one nanosecond is left")
					time.Sleep(time.Nanosecond)
					require.Nil(t, c.Get("k"), "the time is up")
					time.Sleep(margin)
					require.Nil(t, c.Get("k"))
				})
			})
		}
	}
}

func TestAnEntryThatIsAlreadyOldIsNeverServed(t *testing.T) {
	t.Parallel()
	inBubble(t, roomy, func(t *testing.T, c *Cache, clock *Clock) {
		for _, age := range []time.Duration{0, 1, margin - 1, margin, margin + 1, time.Hour} {
			require.True(t, insert(c, "k", entry(clock, "v", -age)), "there is nothing to keep: no fence refused it")
			require.Nil(t, c.Get("k"), "%v too old", age)
			require.Zero(t, c.Len(), "it takes no memory")
		}
	})
}

func TestAPutOfAnEntryThatIsAlreadyOldRemovesWhatIsThere(t *testing.T) {
	t.Parallel()
	inBubble(t, roomy, func(t *testing.T, c *Cache, clock *Clock) {
		require.True(t, insert(c, "k", entry(clock, "v", time.Hour)))
		load := c.Fence("k", nil)
		defer load.End()
		c.Put("k", entry(clock, "old", 0))
		require.Nil(t, c.Get("k"))
		require.Zero(t, c.Len())
		require.False(t, c.Insert("k", entry(clock, "loaded before", time.Hour), load), "it breaks the fences all the same")
		require.Nil(t, c.Get("k"))
	})
}

func TestAnInsertOfAnEntryThatIsAlreadyOldLeavesWhatIsThere(t *testing.T) {
	t.Parallel()
	inBubble(t, roomy, func(t *testing.T, c *Cache, clock *Clock) {
		kept := entry(clock, "v", time.Hour)
		require.True(t, insert(c, "k", kept))
		require.True(t, insert(c, "k", entry(clock, "old", 0)))
		require.Same(t, kept, c.Get("k"))
	})
}

func TestANewEntryTakesThePlaceOfTheOldOneWithItsOwnExpiry(t *testing.T) {
	t.Parallel()
	inBubble(t, roomy, func(t *testing.T, c *Cache, clock *Clock) {
		require.True(t, insert(c, "k", entry(clock, "long", time.Minute)))
		require.True(t, insert(c, "k", entry(clock, "short", time.Second)))
		require.Equal(t, "short", c.Get("k").Value)
		require.True(t, insert(c, "k2", entry(clock, "short", time.Second)))
		require.True(t, insert(c, "k2", entry(clock, "long", time.Minute)))
		time.Sleep(time.Second)
		require.Nil(t, c.Get("k"))
		time.Sleep(time.Minute - time.Second - 1)
		require.Equal(t, "long", c.Get("k2").Value)
	})
}

func TestKeysAreKeptApart(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	require.Nil(t, c.Get(""))
	for i, key := range []string{"", "a", "b", "a\x00"} {
		require.True(t, insert(c, key, entry(clock, i, time.Hour)))
	}
	for i, key := range []string{"", "a", "b", "a\x00"} {
		require.Equal(t, i, c.Get(key).Value)
	}
	require.Nil(t, c.Get("c"))
}

func TestDeleteReportsWhetherSomethingFreshWasThere(t *testing.T) {
	t.Parallel()
	inBubble(t, roomy, func(t *testing.T, c *Cache, clock *Clock) {
		require.False(t, c.Delete("k"), "nothing was there")
		insert(c, "k", entry(clock, "v", 305*time.Millisecond))
		time.Sleep(305*time.Millisecond - 1)
		require.True(t, c.Delete("k"), "fresh for another nanosecond")
		require.False(t, c.Delete("k"), "deleted already")

		insert(c, "k", entry(clock, "v", 305*time.Millisecond))
		time.Sleep(305 * time.Millisecond)
		require.False(t, c.Delete("k"), "expired, though not swept yet")
		require.Nil(t, c.Get("k"))
	})
}

func TestALoadThatBeganEarlierDoesNotTakeThePlaceOfAUsableEntry(t *testing.T) {
	t.Parallel()
	inBubble(t, roomy, func(t *testing.T, c *Cache, clock *Clock) {
		early := entry(clock, "early", time.Hour)
		time.Sleep(time.Nanosecond)
		validity := new(Validity)
		late := entry(clock, "late", time.Minute, validity)
		require.True(t, insert(c, "k", late))
		require.False(t, insert(c, "k", early))
		require.Same(t, late, c.Get("k"))

		validity.Revoke()
		require.True(t, insert(c, "k", early), "what nobody can get is in nobody's way")
		require.Same(t, early, c.Get("k"))

		late = entry(clock, "late", time.Minute)
		require.True(t, insert(c, "k", late))
		time.Sleep(time.Minute)
		require.True(t, insert(c, "k", early))
		require.Same(t, early, c.Get("k"))
	})
}

func TestDiscardRemovesOnlyWhatWasLoadedBefore(t *testing.T) {
	t.Parallel()
	inBubble(t, roomy, func(t *testing.T, c *Cache, clock *Clock) {
		c.Discard("k", clock.Now()) // of nothing is nothing
		e, other := entry(clock, "v", time.Hour), entry(clock, "other", time.Hour)
		require.True(t, insert(c, "k", e))
		require.True(t, insert(c, "other", other))
		load := c.Fence("k", nil)
		defer load.End()
		c.Discard("k", e.LoadedAt-1)
		c.Discard("k", e.LoadedAt)
		require.Same(t, e, c.Get("k"), "it is as new")

		c.Discard("k", e.LoadedAt+1)
		require.Nil(t, c.Get("k"))
		require.Equal(t, 1, c.Len())
		require.Same(t, other, c.Get("other"))
		require.True(t, c.Insert("k", e, load), "no load under way is given up for it")
	})
}

func TestBreakLeavesWhatIsStored(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	c.Break("k")
	e := entry(clock, "v", time.Hour)
	require.True(t, insert(c, "k", e))
	load := c.Fence("k", nil)
	defer load.End()
	c.Break("k")
	require.Same(t, e, c.Get("k"))
	require.False(t, c.Insert("k", entry(clock, "loaded before", time.Hour), load))
	require.Same(t, e, c.Get("k"))
}

func TestAPushRemovesWhatIsStored(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	c.Push("k")
	other := entry(clock, "other", time.Hour)
	require.True(t, insert(c, "k", entry(clock, "v", time.Hour)))
	require.True(t, insert(c, "other", other))
	c.Push("k")
	require.Nil(t, c.Get("k"))
	require.Equal(t, 1, c.Len(), "it takes no memory")
	require.Same(t, other, c.Get("other"))
	require.True(t, insert(c, "k", entry(clock, "new", time.Hour)))
	require.Equal(t, "new", c.Get("k").Value)
}

func TestSweepRemovesWhatIsOfNoUseAndCountsWhatHadLostAVoucher(t *testing.T) {
	t.Parallel()
	inBubble(t, roomy, func(t *testing.T, c *Cache, clock *Clock) {
		good, bad := new(Validity), new(Validity)
		require.Zero(t, c.Sweep())
		const short = time.Second // sooner than it is done unasked
		for i := range 10 {
			n := strconv.Itoa(i)
			require.True(t, insert(c, "fresh"+n, entry(clock, n, time.Hour, good)))
			require.True(t, insert(c, "lost"+n, entry(clock, n, time.Hour, good, bad)))
			require.True(t, insert(c, "expired"+n, entry(clock, n, short, good)))
			require.True(t, insert(c, "both"+n, entry(clock, n, short, bad)))
		}
		require.Zero(t, c.Sweep(), "everything is of use")
		require.Equal(t, 40, c.Len())
		time.Sleep(short)
		bad.Revoke()
		require.Equal(t, 40, c.Len())
		require.EqualValues(t, 10, c.Sweep())
		require.Equal(t, 10, c.Len())
		for i := range 10 {
			require.NotNil(t, c.Get("fresh"+strconv.Itoa(i)))
		}
		require.Zero(t, c.Sweep())
	})
}

// Not parallel: other tests' allocations would be counted too.
func TestAHitAndAMissMakeNoAllocation(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	c, clock := newCache(t, roomy)
	e := entry(clock, "v", time.Hour)
	require.True(t, insert(c, "k", e))
	require.Zero(t, testing.AllocsPerRun(10_000, func() {
		if c.Get("k") != e {
			t.Fatal("no hit")
		}
	}))
	require.Zero(t, testing.AllocsPerRun(10_000, func() {
		if c.Get("absent") != nil {
			t.Fatal("no miss")
		}
	}))
	fence := c.Fence("k", nil)
	defer fence.End()
	require.Zero(t, testing.AllocsPerRun(10_000, func() { c.Get("k") }), "with a fence")
	validities := []*Validity{{}, {}, {}, {}, {}}
	valid := entry(clock, "v", time.Hour, validities...)
	require.True(t, insert(c, "valid", valid))
	get := func(want *Entry) func() {
		return func() {
			if c.Get("valid") != want {
				t.Fatal("not what it should be")
			}
		}
	}
	require.Zero(t, testing.AllocsPerRun(10_000, get(valid)), "with validities")
	validities[4].Revoke()
	require.Zero(t, testing.AllocsPerRun(10_000, get(nil)), "without the last of them")
	near := entry(clock, "v", margin)
	require.True(t, insert(c, "near", near))
	require.Zero(t, testing.AllocsPerRun(1000, func() { c.Get("near") }), "close to the deadline, with the precise clock")
}

func BenchmarkFence(b *testing.B) {
	c, _ := newCache(b, roomy)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c.Fence("models:all:all", nil).End()
		}
	})
}

func BenchmarkHit(b *testing.B) {
	c, clock := newCache(b, roomy)
	insert(c, "models:all:all", entry(clock, "v", time.Hour))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if c.Get("models:all:all") == nil {
				b.Error("no hit")
			}
		}
	})
}

func TestAnEntryThatIsDeadWhenItComesEndsAnOlderOne(t *testing.T) {
	t.Parallel()
	inBubble(t, roomy, func(t *testing.T, c *Cache, clock *Clock) {
		old := entry(clock, "old", time.Hour)
		require.True(t, insert(c, "k", old))
		earlier := entry(clock, "earlier", -time.Second)
		earlier.LoadedAt = old.LoadedAt - 1
		require.False(t, insert(c, "k", earlier))
		require.Same(t, old, c.Get("k"), "it is not the older one")

		newer := entry(clock, "newer", -time.Second)
		newer.LoadedAt = old.LoadedAt + 1
		broken := c.Fence("k", nil)
		defer broken.End()
		c.Delete("k")
		require.True(t, insert(c, "k", old))
		require.False(t, c.Insert("k", newer, broken))
		require.Same(t, old, c.Get("k"), "a refused one changes nothing")
		require.True(t, insert(c, "k", newer))
		require.Nil(t, c.Get("k"))
		require.Zero(t, c.Len())
	})
}
