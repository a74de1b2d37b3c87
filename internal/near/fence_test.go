package near

import (
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/maypok86/otter/v2"
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
	defer fence.End()
	c.Delete("k")
	require.True(t, insert(c, "k", entry(clock, "new", time.Hour)))
	require.False(t, c.Insert("k", entry(clock, "old", time.Hour), fence))
	require.Equal(t, "new", c.Get("k").Value)
}

func TestAPutSupersedesTheLoadsUnderWay(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	load := c.Fence("k")
	put := c.Fence("k")
	require.True(t, c.Put("k", entry(clock, "put", time.Hour), put))
	require.False(t, c.Insert("k", entry(clock, "loaded before", time.Hour), load))
	require.False(t, c.Insert("k", entry(clock, "again", time.Hour), put), "its own fence is used up")
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

func TestAPutWithoutAFenceIsNeverRefused(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	for n := range 3 {
		loads := []*Fence{c.Fence("k"), c.Fence("k")}
		refresh := c.Fence("k")
		c.Delete("k")
		loads = append(loads, c.Fence("k"))
		require.True(t, c.Put("k", entry(clock, n, time.Hour), nil))
		for _, load := range loads {
			require.False(t, c.Insert("k", entry(clock, "loaded before", time.Hour), load))
		}
		require.False(t, c.Put("k", entry(clock, "loaded before", time.Hour), refresh))
		require.Equal(t, n, c.Get("k").Value)
	}
	require.True(t, insert(c, "k", entry(clock, "loaded after", time.Hour)))
	require.Equal(t, "loaded after", c.Get("k").Value)
}

func TestAPutUnderABrokenFenceIsNotStored(t *testing.T) {
	t.Parallel()
	breaks := map[string]struct {
		breakFence func(t *testing.T, c *Cache, clock *Clock)
		leaves     any
	}{
		"by Delete": {func(_ *testing.T, c *Cache, _ *Clock) { c.Delete("k") }, nil},
		"by a Set": {func(t *testing.T, c *Cache, clock *Clock) {
			require.True(t, c.Put("k", entry(clock, "set", time.Hour), nil))
		}, "set"},
		"by another Put": {func(t *testing.T, c *Cache, clock *Clock) {
			require.True(t, c.Put("k", entry(clock, "other", time.Hour), c.Fence("k")))
		}, nil}, // nobody knows which of the two loads read the newer value
		"by another Put, then a Set": {func(t *testing.T, c *Cache, clock *Clock) {
			require.True(t, c.Put("k", entry(clock, "other", time.Hour), c.Fence("k")))
			require.True(t, c.Put("k", entry(clock, "set", time.Hour), nil))
		}, "set"},
		"by another Put, then a third": {func(t *testing.T, c *Cache, clock *Clock) {
			require.True(t, c.Put("k", entry(clock, "other", time.Hour), c.Fence("k")))
			require.True(t, c.Put("k", entry(clock, "third", time.Hour), c.Fence("k")))
		}, "third"}, // whose load began after the other Put, and so after this one
		"by Delete, then loaded": {func(t *testing.T, c *Cache, clock *Clock) {
			c.Delete("k")
			require.True(t, insert(c, "k", entry(clock, "loaded", time.Hour)))
		}, "loaded"},
	}
	for name, test := range breaks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, clock := newCache(t, roomy)
			require.True(t, insert(c, "k", entry(clock, "first", time.Hour)))
			fence := c.Fence("k")
			test.breakFence(t, c, clock)
			later := c.Fence("k")
			require.False(t, c.Put("k", entry(clock, "put", time.Hour), fence))
			if test.leaves == nil {
				require.Nil(t, c.Get("k"))
			} else {
				require.Equal(t, test.leaves, c.Get("k").Value)
			}
			require.True(t, c.Insert("k", entry(clock, "later", time.Hour), later), "nor is a later load's fence broken")
		})
	}
}

func TestOtherKeysNeverBreakAFence(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	fence := c.Fence("k")
	defer fence.End()
	neighbours := 0
	for i := range 10_000 {
		key := strconv.Itoa(i)
		if c.shard(key) == c.shard("k") {
			neighbours++
		}
		other := c.Fence(key)
		switch i % 3 {
		case 0:
			c.Delete(key)
		case 1:
			require.True(t, c.Put(key, entry(clock, i, time.Hour), nil))
		default:
			require.True(t, c.Put(key, entry(clock, i, time.Hour), other))
		}
		require.True(t, other.broken())
		other.End()
	}
	require.Positive(t, neighbours)
	require.True(t, c.Insert("k", entry(clock, "v", time.Hour), fence))
	require.Equal(t, "v", c.Get("k").Value)
}

func TestTheKeysAreSpreadOverTheShards(t *testing.T) {
	t.Parallel()
	c, _ := newCache(t, roomy)
	used := make(map[*shard]bool)
	for i := range shards {
		used[c.shard("models:"+strconv.Itoa(i))] = true
	}
	require.Greater(t, len(used), shards/3) // 63% of them, if the hash is as good as chance
}

// watched is how many keys are kept track of.
func watched(c *Cache) (n int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		n += len(s.watches)
		s.mu.Unlock()
	}
	return n
}

func TestSeveralLoadsOfAKeyHaveAFenceEach(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	a, b, d := c.Fence("k"), c.Fence("k"), c.Fence("k")
	a.End()
	require.True(t, c.Insert("k", entry(clock, "b", time.Hour), b), "the end of a load leaves the others theirs")
	b.End()
	require.Equal(t, 1, watched(c))
	c.Delete("k")
	e := c.Fence("k")
	require.False(t, c.Insert("k", entry(clock, "d", time.Hour), d))
	d.End()
	require.Equal(t, 1, watched(c), "the end of a broken fence leaves its successor")
	require.True(t, c.Insert("k", entry(clock, "e", time.Hour), e))
	c.Delete("k")
	require.False(t, c.Insert("k", entry(clock, "e again", time.Hour), e))
	e.End()
	require.Zero(t, watched(c))
}

func TestAFenceEndsOnce(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	(*Fence)(nil).End()
	a, b := c.Fence("k"), c.Fence("k")
	a.End()
	a.End()
	require.Equal(t, 1, watched(c), "the second End is not the other fence's")
	c.Delete("k")
	require.False(t, c.Insert("k", entry(clock, "old", time.Hour), b))
	b.End()
	b.End()
	require.Zero(t, watched(c))
}

func TestNothingIsStoredUnderAFenceThatHasEnded(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	fence := c.Fence("k")
	fence.End()
	c.Delete("k") // unnoticed by the fence: nobody keeps track of the key
	require.False(t, c.Insert("k", entry(clock, "old", time.Hour), fence))
	require.False(t, c.Put("k", entry(clock, "old", time.Hour), fence))
	require.Nil(t, c.Get("k"))
}

func TestOnlyKeysWithAFenceAreKeptTrackOf(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	for i := range 1000 {
		key := strconv.Itoa(i)
		require.True(t, c.Put(key, entry(clock, i, time.Hour), nil))
		c.Get(key)
		c.Delete(key)
	}
	require.Zero(t, watched(c))
	fences := make([]*Fence, 1000)
	for i := range fences {
		fences[i] = c.Fence(strconv.Itoa(i))
	}
	require.Equal(t, 1000, watched(c))
	for i, f := range fences {
		switch i % 4 {
		case 0:
			c.Delete(strconv.Itoa(i))
		case 1:
			c.Put(strconv.Itoa(i), entry(clock, i, time.Hour), f)
		case 2:
			c.Insert(strconv.Itoa(i), entry(clock, i, time.Hour), f)
		}
		f.End()
	}
	require.Zero(t, watched(c))
}

// hold keeps everybody else from changing key until release is called.
func hold(c *Cache, key string) (release func()) {
	held, released, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		c.store.Compute(key, func(*Entry, bool) (*Entry, otter.ComputeOp) {
			close(held)
			<-released
			return nil, otter.CancelOp
		})
	}()
	<-held
	return func() {
		close(released)
		<-done
	}
}

// blocked waits until a goroutine in method waits for a lock.
func blocked(method string) bool {
	stacks := make([]byte, 1<<20)
	return await(func() bool {
		n := runtime.Stack(stacks, true)
		for stack := range strings.SplitSeq(string(stacks[:n]), "\n\n") {
			if strings.Contains(stack, "[sync.Mutex.Lock") && strings.Contains(stack, "near.(*Cache)."+method+"(") {
				return true
			}
		}
		return false
	})
}

// Not parallel, as the next one: in other tests the methods wait for locks, too.
func TestADeleteBreaksTheFencesAndRemovesInOneStep(t *testing.T) {
	c, clock := newCache(t, roomy)
	require.True(t, insert(c, "k", entry(clock, "v", time.Hour)))
	fence := c.Fence("k")
	defer fence.End()
	release := hold(c, "k")
	deleted := make(chan bool)
	go func() { deleted <- c.Delete("k") }()
	waits := blocked("Delete")
	broken, there := fence.broken(), c.Get("k") != nil
	release()
	require.True(t, waits)
	require.True(t, <-deleted)
	require.False(t, broken, "a Put that is refused meanwhile would leave the entry to readers")
	require.True(t, there)
	require.True(t, fence.broken())
	require.Nil(t, c.Get("k"))
}

func TestTheFenceIsLookedAtUnderTheKeysLock(t *testing.T) {
	stores := map[string]func(*Cache, *Entry, *Fence) bool{
		"Insert": func(c *Cache, e *Entry, f *Fence) bool { return c.Insert("k", e, f) },
		"Put":    func(c *Cache, e *Entry, f *Fence) bool { return c.Put("k", e, f) },
	}
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			c, clock := newCache(t, roomy)
			fence := c.Fence("k")
			e := entry(clock, "old", time.Hour)
			release := hold(c, "k")
			stored := make(chan bool)
			go func() { stored <- store(c, e, fence) }()
			waits := blocked(name)
			c.breakFences("k", nil) // the first half of a Delete
			release()
			require.True(t, waits)
			require.False(t, <-stored)
			require.Nil(t, c.Get("k"))
		})
	}
}

// enough is when a race test ends before its rounds are over, on a machine that is slow or has too little to spare.
const enough = 10 * time.Second

// races is how often a race has to have taken place before its test ends, however many rounds that takes.
const races = 10

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
// them and says how many fills were accepted; refused counts the others.
func loaders(c *Cache, clock *Clock, key string, source *atomic.Uint64, turns []atomic.Uint64, refused *atomic.Uint64) (end func() (accepted uint64)) {
	var stop atomic.Bool
	var ok atomic.Uint64
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
						refused.Add(1)
					}
					fence.End()
				} else {
					runtime.Gosched()
				}
				turns[i].Add(1)
			}
		})
	}
	return func() uint64 {
		stop.Store(true)
		wg.Wait()
		return ok.Load()
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
	var source, refused atomic.Uint64
	turns := make([]atomic.Uint64, 2)
	end := loaders(c, clock, "k", &source, turns, &refused)
	defer end()
	for n, start := uint64(0), time.Now(); (n < rounds() || refused.Load() < races) && time.Since(start) < enough; n++ {
		version := source.Add(1)
		c.Delete("k")
		atLeast(t, c, "k", version)
		if n%4 == 0 { // else the next Delete comes upon a load
			require.True(t, settled(turns), "a loader hangs")
			// A stale fill that was on its way has landed now, and since loaders leave alone what is there, it would show.
			atLeast(t, c, "k", version)
		}
	}
	accepted := end()
	t.Logf("%d fills accepted, %d refused", accepted, refused.Load())
	require.Positive(t, accepted)
	require.Positive(t, refused.Load(), "no Delete came during a load: the race never took place")
	require.Zero(t, watched(c), "fences are left over")
}

func TestNobodyReadsAnOlderVersionOncePutHasReturned(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	var source, stored, beaten, refused atomic.Uint64
	turns := make([]atomic.Uint64, 1)
	end := loaders(c, clock, "k", &source, turns, &refused)
	defer end()
	older := func(than uint64) bool {
		e := c.Get("k")
		return e != nil && e.Value.(uint64) < than
	}
	var stop atomic.Bool
	var refreshes, sets sync.WaitGroup
	for range 2 {
		refreshes.Go(func() {
			for n := 0; !stop.Load(); n++ {
				written := source.Load()
				fence := c.Fence("k")
				version := source.Load()
				if n%2 == 0 {
					runtime.Gosched() // the time that a load takes
				}
				if c.Put("k", entry(clock, version, time.Hour), fence) {
					stored.Add(1)
				} else {
					beaten.Add(1)
				}
				fence.End()
				if older(written) {
					t.Errorf("older than %d is read, after a load that began later was put", written)
					return
				}
				runtime.Gosched()
			}
		})
	}
	// One goroutine writes, or nobody could say which of two Sets comes last.
	sets.Go(func() {
		raced := func() bool { return min(stored.Load(), beaten.Load(), refused.Load()) >= races }
		for n, start := uint64(0), time.Now(); (n < rounds() || !raced()) && time.Since(start) < enough; n++ {
			version := source.Add(1)
			if n%3 == 0 { // or the loaders would have little to do
				c.Delete("k")
			} else if !c.Put("k", entry(clock, version, time.Hour), nil) {
				t.Error("a Set is refused")
				return
			}
			if older(version) {
				t.Errorf("older than %d is read", version)
				return
			}
			if n%4 == 0 {
				if !settled(turns) {
					t.Error("a loader hangs")
					return
				}
				if older(version) {
					t.Errorf("older than %d is read after a load has landed", version)
					return
				}
			}
		}
	})
	sets.Wait()
	stop.Store(true)
	refreshes.Wait()
	accepted := end()
	t.Logf("%d refreshes stored, %d beaten by another write; %d fills accepted, %d refused", stored.Load(), beaten.Load(), accepted, refused.Load())
	require.Positive(t, stored.Load())
	require.Positive(t, beaten.Load(), "no write broke a refresh's fence: the race never took place")
	require.Positive(t, accepted)
	require.Positive(t, refused.Load(), "no write came during a load: the race never took place")
	require.Zero(t, watched(c), "fences are left over")
}
