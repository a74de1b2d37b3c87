package near

import (
	"math/rand/v2"
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
		fence := c.Fence("k", nil)
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
	fence := c.Fence("k", nil)
	defer fence.End()
	c.Delete("k")
	require.True(t, insert(c, "k", entry(clock, "new", time.Hour)))
	require.False(t, c.Insert("k", entry(clock, "old", time.Hour), fence))
	require.Equal(t, "new", c.Get("k").Value)
}

func TestAPutSupersedesTheLoadsUnderWay(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	for n := range 3 {
		loads := []*Fence{c.Fence("k", nil), c.Fence("k", nil)}
		c.Delete("k")
		loads = append(loads, c.Fence("k", nil))
		c.Put("k", entry(clock, n, time.Hour))
		for _, load := range loads {
			require.False(t, c.Insert("k", entry(clock, "loaded before", time.Hour), load))
		}
		require.Equal(t, n, c.Get("k").Value)
	}
	require.True(t, insert(c, "k", entry(clock, "loaded after", time.Hour)))
	require.Equal(t, "loaded after", c.Get("k").Value)
}

func TestAPutTakesThePlaceOfWhateverIsThere(t *testing.T) {
	t.Parallel()
	inBubble(t, roomy, func(t *testing.T, c *Cache, clock *Clock) {
		put := entry(clock, "put", time.Hour)
		time.Sleep(time.Nanosecond)
		require.True(t, insert(c, "k", entry(clock, "its load began later", time.Hour)))
		c.Put("k", put)
		require.Same(t, put, c.Get("k"))
	})
}

// A change is one of the ways in which a key or a tag can change.
type change struct {
	name   string
	do     func(c *Cache, clock *Clock, key string)
	pushed bool // it comes from elsewhere
	entry  bool // it is about the entry of that name, and not only about the tag
}

var changes = []change{
	{name: "Delete", do: func(c *Cache, _ *Clock, key string) { c.Delete(key) }, entry: true},
	{name: "Put", do: func(c *Cache, clock *Clock, key string) { c.Put(key, entry(clock, "put", time.Hour)) }, entry: true},
	{name: "Break", do: func(c *Cache, _ *Clock, key string) { c.Break(key) }, entry: true},
	{name: "Retire", do: func(c *Cache, _ *Clock, key string) { c.Retire(key) }},
	{name: "Push", do: func(c *Cache, _ *Clock, key string) { c.Push(key) }, pushed: true, entry: true},
}

// forEachChange runs a test for each way in which a key can change.
func forEachChange(t *testing.T, test func(t *testing.T, c *Cache, clock *Clock, ch change)) {
	for _, ch := range changes {
		t.Run(ch.name, func(t *testing.T) {
			t.Parallel()
			c, clock := newCache(t, roomy)
			test(t, c, clock, ch)
		})
	}
}

func TestAChangeBreaksTheFencesThatWereTakenBefore(t *testing.T) {
	t.Parallel()
	forEachChange(t, func(t *testing.T, c *Cache, clock *Clock, ch change) {
		unarmed, armed := c.Fence("k", nil), c.Fence("k", nil)
		armed.Arm()
		for _, f := range []*Fence{unarmed, armed} {
			require.False(t, f.Broken())
			require.False(t, f.BrokenHere())
		}
		ch.do(c, clock, "k")
		require.True(t, armed.Broken())
		require.Equal(t, !ch.pushed, unarmed.Broken(), "a push is older than the reply that has not come yet")
		for _, f := range []*Fence{unarmed, armed} {
			require.Equal(t, !ch.pushed, f.BrokenHere())
		}

		later := c.Fence("k", nil)
		later.Arm()
		require.False(t, later.Broken(), "it was taken after the change")
		require.True(t, armed.Broken(), "once broken, it stays so")
		require.False(t, c.Insert("k", entry(clock, "loaded before", time.Hour), armed))
		require.True(t, c.Insert("k", entry(clock, "loaded after", time.Hour), later))
		for _, f := range []*Fence{unarmed, armed, later} {
			f.End()
		}
		require.Zero(t, watched(c))
	})
}

func TestAPushBreaksOnlyAFenceThatWasArmedBefore(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	f, other := c.Fence("k", nil), c.Fence("k", nil)
	defer other.End()
	c.Push("k")
	c.Push("k")
	require.False(t, f.Broken(), "not armed yet")
	f.Arm()
	require.False(t, f.Broken(), "those pushes were about what is older")
	c.Push("k")
	require.True(t, f.Broken())
	require.False(t, f.BrokenHere(), "nothing has changed in this process")
	require.False(t, c.Insert("k", entry(clock, "v", time.Hour), f))
	require.False(t, other.Broken(), "each is armed by itself")
	c.Push("k")
	require.True(t, f.Broken())

	f.Arm() // for another reply
	require.False(t, f.Broken())
	require.True(t, c.Insert("k", entry(clock, "v", time.Hour), f))
	c.Push("k")
	require.True(t, f.Broken(), "the second reply is out of date as well")

	f.Arm()
	c.Delete("k")
	f.Arm()
	require.True(t, f.Broken(), "a change in this process is not forgiven")
	require.True(t, f.BrokenHere())
	f.End()
}

func TestAFenceThatHasEndedIsBroken(t *testing.T) {
	t.Parallel()
	c, _ := newCache(t, roomy)
	f := c.Fence("k", nil)
	f.Arm()
	f.End()
	require.True(t, f.Broken())
	require.True(t, f.BrokenHere())
	f.Arm()
	require.True(t, f.Broken(), "whatever comes later")
}

func TestAChangeWakesWhoWaitsForIt(t *testing.T) {
	t.Parallel()
	forEachChange(t, func(t *testing.T, c *Cache, clock *Clock, ch change) {
		one, shared := make(chan struct{}, 1), make(chan struct{}, 3)
		other, gone := make(chan struct{}, 1), make(chan struct{}, 1)
		fences := []*Fence{
			c.Fence("k", one), c.Fence("k", shared), c.Fence("k", shared), c.Fence("other", shared), c.Fence("other", other), c.Fence("k", gone),
		}
		fences[5].End()
		ch.do(c, clock, "k")
		require.Len(t, one, 1)
		require.Len(t, shared, 2, "one for each fence of the key")
		require.Empty(t, other)
		require.Empty(t, gone, "nobody waits any more")
		ch.do(c, clock, "other")
		require.Len(t, shared, 3)
		require.Len(t, other, 1)
		for _, f := range fences {
			f.End()
		}
	})
}

func TestNoChangeWaitsForWhomItWakes(t *testing.T) {
	t.Parallel()
	forEachChange(t, func(t *testing.T, c *Cache, clock *Clock, ch change) {
		full, roomless := make(chan struct{}, 1), make(chan struct{})
		full <- struct{}{}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 3 {
				for _, wake := range []chan struct{}{full, roomless, nil} {
					defer c.Fence("k", wake).End()
				}
				ch.do(c, clock, "k")
			}
		}()
		select {
		case <-done:
		case <-time.After(bound):
			require.FailNow(t, "it waits")
		}
		require.Len(t, full, 1)
	})
}

func TestOtherKeysNeverBreakAFence(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	fence := c.Fence("k", nil)
	defer fence.End()
	fence.Arm()
	neighbours := 0
	for i := range 10_000 {
		key := strconv.Itoa(i)
		if c.shard(key) == c.shard("k") {
			neighbours++
		}
		other := c.Fence(key, nil)
		switch i % 3 {
		case 0:
			c.Delete(key)
		case 1:
			c.Put(key, entry(clock, i, time.Hour))
		default:
			c.Break(key)
		}
		require.True(t, other.Broken())
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
	a, b, d := c.Fence("k", nil), c.Fence("k", nil), c.Fence("k", nil)
	a.End()
	require.True(t, c.Insert("k", entry(clock, "b", time.Hour), b), "the end of a load leaves the others theirs")
	b.End()
	require.Equal(t, 1, watched(c))
	c.Delete("k")
	e := c.Fence("k", nil)
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
	a, b := c.Fence("k", nil), c.Fence("k", nil)
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
	fence := c.Fence("k", nil)
	fence.End()
	c.Delete("k") // unnoticed by the fence: nobody keeps track of the key
	require.False(t, c.Insert("k", entry(clock, "old", time.Hour), fence))
	require.Nil(t, c.Get("k"))
}

func TestOnlyKeysWithAFenceAreKeptTrackOf(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	for i := range 1000 {
		key := strconv.Itoa(i)
		c.Put(key, entry(clock, i, time.Hour))
		c.Get(key)
		c.Delete(key)
	}
	require.Zero(t, watched(c))
	fences := make([]*Fence, 1000)
	for i := range fences {
		fences[i] = c.Fence(strconv.Itoa(i), nil)
	}
	require.Equal(t, 1000, watched(c))
	for i, f := range fences {
		switch n := i % (len(changes) + 2); n {
		case len(changes):
			require.True(t, c.Insert(strconv.Itoa(i), entry(clock, i, time.Hour), f))
		case len(changes) + 1: // nothing happens
		default:
			changes[n].do(c, clock, strconv.Itoa(i))
		}
		f.End()
	}
	require.Zero(t, watched(c))
}

// A model of a fence is what should have become of it.
type model struct {
	*Fence
	key                        string
	armed, here, pushed, ended bool
}

// check compares all fences with what they should be, and the books that are kept of them.
func check(t *testing.T, c *Cache, models []*model) {
	t.Helper()
	whole := make(map[string]int)
	for _, m := range models {
		require.Equal(t, m.here || m.pushed || m.ended, m.Broken())
		require.Equal(t, m.here || m.ended, m.BrokenHere())
		if !m.here && !m.ended {
			whole[m.key]++
		}
	}
	require.Equal(t, len(whole), watched(c))
	for key, n := range whole {
		w := c.shard(key).watches[key]
		require.Len(t, w.fences, n)
		for i, f := range w.fences[:cap(w.fences)] {
			if i < n {
				require.Equal(t, i, f.place)
			} else {
				require.Nil(t, f, "the memory of what has ended is given back")
			}
		}
	}
}

// moved is how many fences have another place than before.
func moved(models []*model, before []int) (n int) {
	for i, m := range models {
		if m.place != before[i] {
			n++
		}
	}
	return n
}

func TestFencesTakenChangedAndEndedInAnyOrderAreKeptTrackOf(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			c, clock := newCache(t, roomy)
			r := rand.New(rand.NewPCG(seed, 0))
			var models []*model
			// end ends a fence, at the same cost however many there are: one other may take its place.
			end := func(m *model) {
				before := make([]int, len(models))
				for i, m := range models {
					before[i] = m.place
				}
				m.End()
				m.ended = true
				require.LessOrEqual(t, moved(models, before), 1)
			}
			for range 200 {
				key := strconv.Itoa(r.IntN(3))
				switch n := r.IntN(12); {
				case n < 6:
					models = append(models, &model{Fence: c.Fence(key, nil), key: key})
				case n < 8 && len(models) > 0:
					m := models[r.IntN(len(models))]
					m.Arm()
					m.armed, m.pushed = true, false
				case n < 10 && len(models) > 0:
					end(models[r.IntN(len(models))]) // perhaps not for the first time
				default:
					ch := changes[r.IntN(len(changes))]
					ch.do(c, clock, key)
					for _, m := range models {
						if m.key == key && !m.here && !m.ended {
							m.here = !ch.pushed
							m.pushed = m.pushed || ch.pushed && m.armed
						}
					}
				}
				check(t, c, models)
			}
			for _, i := range r.Perm(len(models)) {
				end(models[i])
				check(t, c, models)
			}
			require.Zero(t, watched(c))
		})
	}
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

// Not parallel, as the next two: in other tests the methods wait for locks, too.
func TestAChangeWaitsForTheStoreThatIsUnderWayAndThenComesInOneStep(t *testing.T) {
	for _, ch := range changes {
		if !ch.entry {
			continue
		}
		t.Run(ch.name, func(t *testing.T) {
			c, clock := newCache(t, roomy)
			e := entry(clock, "v", time.Hour)
			require.True(t, insert(c, "k", e))
			fence := c.Fence("k", nil)
			defer fence.End()
			fence.Arm()
			release := hold(c, "k") // as a load that has passed its check and is about to be stored
			changed := make(chan struct{})
			go func() { defer close(changed); ch.do(c, clock, "k") }()
			waits := blocked(ch.name)
			broken, there := fence.Broken(), c.Get("k")
			release()
			<-changed
			require.True(t, waits)
			require.False(t, broken, "who is refused meanwhile would still find what is about to go")
			require.Same(t, e, there)
			require.True(t, fence.Broken())
			require.Equal(t, ch.name == "Break", c.Get("k") == e)
		})
	}
}

func TestWhatIsThereGoesNoSoonerThanTheFencesBreak(t *testing.T) {
	for _, ch := range changes {
		if !ch.entry {
			continue
		}
		t.Run(ch.name, func(t *testing.T) {
			c, clock := newCache(t, roomy)
			e := entry(clock, "v", time.Hour)
			require.True(t, insert(c, "k", e))
			s := c.shard("k")
			s.mu.Lock() // nobody can break a fence
			changed := make(chan struct{})
			go func() { defer close(changed); ch.do(c, clock, "k") }()
			waits := blocked(ch.name)
			there := c.Get("k")
			s.mu.Unlock()
			<-changed
			require.True(t, waits)
			require.Same(t, e, there, "a load that began before could be stored where it was")
		})
	}
}

func TestTheFenceIsLookedAtUnderTheKeysLock(t *testing.T) {
	c, clock := newCache(t, roomy)
	fence := c.Fence("k", nil)
	defer fence.End()
	e := entry(clock, "old", time.Hour)
	release := hold(c, "k")
	stored := make(chan bool)
	go func() { stored <- c.Insert("k", e, fence) }()
	waits := blocked("Insert")
	c.breakFences("k") // the first half of a Delete
	release()
	require.True(t, waits)
	require.False(t, <-stored)
	require.Nil(t, c.Get("k"))
}

// enough is when a race test ends before its rounds are over, on a machine that is slow or has too little to spare.
const enough = 10 * time.Second

// goesOn reports whether a race test does that has begun at start: until it has run its rounds, and the race has taken place often enough.
// On a slow machine it goes on until the race has taken place at all.
func goesOn(start time.Time, n, raced uint64) bool {
	if time.Since(start) < enough {
		return n < rounds() || raced < races
	}
	return raced == 0 && time.Since(start) < bound
}

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

// loaders fill key from source whenever it is missing, and now and then although it is there, each with a fence taken and
// armed before it reads. What they return ends them and says how many fills were accepted; refused counts those that a
// broken fence refused.
func loaders(c *Cache, clock *Clock, key string, source *atomic.Uint64, turns []atomic.Uint64, refused *atomic.Uint64) (end func() (accepted uint64)) {
	var stop atomic.Bool
	var ok atomic.Uint64
	var wg sync.WaitGroup
	for i := range turns {
		wg.Go(func() {
			for n := uint64(0); !stop.Load(); n++ {
				if c.Get(key) == nil || n%8 == 0 {
					fence := c.Fence(key, nil)
					fence.Arm()
					e := entry(clock, nil, time.Hour)
					version := source.Load()
					e.Value = version
					if n%2 == 0 {
						runtime.Gosched() // the time that a load takes
					}
					if c.Insert(key, e, fence) {
						ok.Add(1)
					} else if fence.Broken() {
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

func TestNobodyReadsAnOlderVersionOnceAChangeHasReturned(t *testing.T) {
	t.Parallel()
	tests := map[string]func(c *Cache, clock *Clock, version uint64){
		"Delete": func(c *Cache, _ *Clock, _ uint64) { c.Delete("k") },
		"Push":   func(c *Cache, _ *Clock, _ uint64) { c.Push("k") },
		"Put": func(c *Cache, clock *Clock, version uint64) {
			if version%3 == 0 { // or the loaders would have little to do
				c.Delete("k")
				return
			}
			c.Put("k", entry(clock, version, time.Hour))
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, clock := newCache(t, roomy)
			var source, refused atomic.Uint64
			turns := make([]atomic.Uint64, 2)
			end := loaders(c, clock, "k", &source, turns, &refused)
			defer end()
			for n, start := uint64(0), time.Now(); goesOn(start, n, refused.Load()); n++ {
				version := source.Add(1)
				change(c, clock, version)
				atLeast(t, c, "k", version)
				if n%4 == 0 { // else the next change comes upon a load
					require.True(t, settled(turns), "a loader hangs")
					// A stale fill that was on its way has landed now, and since loaders mostly leave alone what is there, it
					// would show.
					atLeast(t, c, "k", version)
				}
			}
			accepted := end()
			t.Logf("%d fills accepted, %d refused", accepted, refused.Load())
			require.Positive(t, accepted)
			require.Positive(t, refused.Load(), "no change came during a load: the race never took place")
			require.Zero(t, watched(c), "fences are left over")
		})
	}
}

// An older load must not be stored after a newer one has succeeded, whatever has become of the newer value.
func TestALoadThatIsOvertakenIsNotStored(t *testing.T) {
	t.Parallel()
	c, _ := newCache(t, Options{MaxEntries: 10, MaxBytes: 1 << 20})
	older, newer, newest := c.Fence("a", nil), c.Fence("a", nil), c.Fence("a", nil)
	other := c.Fence("b", nil)
	newer.Overtake()
	require.True(t, older.Broken())
	for _, f := range []*Fence{newer, newest, other} {
		require.False(t, f.Broken())
		f.End()
	}
	older.End() // again
	require.Empty(t, c.shard("a").watches)
}
