package near

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// learn reads the generation of a tag.
func learn(c *Cache, tag string, value uint64, by *Validity) *Generation {
	fence := c.Fence(tag, nil)
	defer fence.End()
	fence.Arm()
	return c.Learn(fence, value, by)
}

func TestAnEntryIsServedWhileAllItsVouchersAreGood(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	for n := range 6 {
		for revoked := range n {
			validities := make([]*Validity, n)
			for i := range validities {
				validities[i] = new(Validity)
			}
			e := entry(clock, "v", time.Hour, validities...)
			require.True(t, insert(c, "k", e))
			other := entry(clock, "other", time.Hour, new(Validity))
			require.True(t, insert(c, "other", other))
			require.Same(t, e, c.Get("k"))

			require.True(t, validities[revoked].Valid())
			validities[revoked].Revoke()
			require.False(t, validities[revoked].Valid())
			require.Nil(t, c.Get("k"), "validity %d of %d is revoked", revoked+1, n)
			require.False(t, c.Delete("k"), "nothing was there that anybody could have got")
			validities[revoked].Revoke()
			require.False(t, validities[revoked].Valid(), "it never becomes good again")

			c.Put("k", e)
			require.Nil(t, c.Get("k"), "nor is such a value served when it is put")
			require.Same(t, other, c.Get("other"))
		}
	}
}

func TestAnEntryWithoutAGoodVoucherIsNotStored(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	good, bad := new(Validity), new(Validity)
	bad.Revoke()
	kept := entry(clock, "kept", time.Hour, good)
	require.True(t, insert(c, "k", kept))
	for name, validities := range map[string][]*Validity{"only": {bad}, "first": {bad, good}, "last": {good, good, good, good, bad}} {
		require.False(t, insert(c, "new", entry(clock, "v", time.Hour, validities...)), name)
		require.False(t, insert(c, "k", entry(clock, "v", time.Hour, validities...)), name)
	}
	require.Equal(t, 1, c.Len())
	require.Same(t, kept, c.Get("k"))
}

func TestAGenerationIsKnownUntilItsTagChanges(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(t *testing.T, c *Cache, by *Validity)
		next   uint64 // what is known then; 0 for nothing
	}{
		"Retire":                  {func(_ *testing.T, c *Cache, _ *Validity) { c.Retire("tag") }, 0},
		"Push":                    {func(_ *testing.T, c *Cache, _ *Validity) { c.Push("tag") }, 0},
		"its validity is revoked": {func(_ *testing.T, _ *Cache, by *Validity) { by.Revoke() }, 0},
		"another value is learnt": {func(t *testing.T, c *Cache, by *Validity) { require.NotNil(t, learn(c, "tag", 8, by)) }, 8},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, clock := newCache(t, roomy)
			require.Nil(t, c.Generation("tag"), "nothing is known yet")
			by := new(Validity)
			g, other := learn(c, "tag", 7, by), learn(c, "other", 7, nil)
			require.EqualValues(t, 7, g.Value)
			require.True(t, g.Valid())
			require.Same(t, g, c.Generation("tag"))
			e := entry(clock, "v", time.Hour, g.Validities(nil)...)
			require.True(t, insert(c, "k", e))
			require.Same(t, e, c.Get("k"))

			test.change(t, c, by)
			require.False(t, g.Valid())
			require.Nil(t, c.Get("k"))
			require.False(t, insert(c, "k", e))
			if now := c.Generation("tag"); test.next == 0 {
				require.Nil(t, now)
			} else {
				require.NotSame(t, g, now)
				require.Equal(t, test.next, now.Value)
				require.True(t, now.Valid())
			}
			require.Same(t, other, c.Generation("other"))
			require.True(t, other.Valid())

			again := learn(c, "tag", 7, new(Validity)) // of the same value, which no old entry is to be found for
			require.Same(t, again, c.Generation("tag"))
			require.NotSame(t, g, again)
			require.False(t, g.Valid())
			require.Nil(t, c.Get("k"))
		})
	}
}

func TestWhatIsLearntTwiceIsOneGeneration(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]*Validity{"with a validity": {}, "without": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := newCache(t, roomy)
			g := learn(c, "tag", 7, by)
			require.NotNil(t, g)
			require.Same(t, g, learn(c, "tag", 7, by))
			require.True(t, g.Valid())
			require.NotSame(t, g, learn(c, "other", 7, by))
			require.True(t, g.Valid())
		})
	}
}

func TestAGenerationThatWasWithdrawnDoesNotComeBack(t *testing.T) {
	t.Parallel()
	c, _ := newCache(t, roomy)
	by := new(Validity)
	g := learn(c, "tag", 7, by)
	g.Revoke()
	require.Nil(t, c.Generation("tag"))
	again := learn(c, "tag", 7, by)
	require.NotSame(t, g, again)
	require.True(t, again.Valid())
	require.False(t, g.Valid())
	require.Same(t, again, c.Generation("tag"))
}

func TestNothingIsLearntUnderAFenceThatWasBrokenSince(t *testing.T) {
	t.Parallel()
	forEachChange(t, func(t *testing.T, c *Cache, clock *Clock, ch change) {
		before := c.Fence("tag", nil)
		defer before.End()
		before.Arm()
		ch.do(c, clock, "tag")
		require.Nil(t, c.Learn(before, 7, nil))
		require.Nil(t, c.Generation("tag"))

		g := learn(c, "tag", 8, nil)
		require.NotNil(t, g, "it was read after the change")
		require.Nil(t, c.Learn(before, 7, nil))
		require.Nil(t, c.Learn(before, 8, nil))
		require.Same(t, g, c.Generation("tag"), "what was read before takes nothing away")
		require.True(t, g.Valid())
	})
}

func TestNothingIsLearntUnderAFenceThatHasEnded(t *testing.T) {
	t.Parallel()
	c, _ := newCache(t, roomy)
	f := c.Fence("tag", nil)
	f.End()
	require.Nil(t, c.Learn(f, 7, nil))
	require.Nil(t, c.Generation("tag"))
}

func TestWhatIsLearntAheadOfTheReplyOutlivesAnOlderPush(t *testing.T) {
	t.Parallel()
	c, _ := newCache(t, roomy)
	f := c.Fence("tag", nil)
	defer f.End()
	c.Push("tag")
	f.Arm()
	g := c.Learn(f, 7, nil)
	require.NotNil(t, g)
	require.Same(t, g, c.Generation("tag"))
}

func TestTheVouchersOfAnEntryAreListedOnce(t *testing.T) {
	t.Parallel()
	c, _ := newCache(t, roomy)
	one, two := new(Validity), new(Validity)
	a, b, d, e := learn(c, "a", 1, one), learn(c, "b", 2, one), learn(c, "d", 3, two), learn(c, "e", 4, nil)
	tests := map[string]struct {
		own  []*Validity
		gens []*Generation
		want []*Validity
	}{
		"one tag":                            {nil, []*Generation{a}, []*Validity{a.Validity, one}},
		"it has no connection":               {nil, []*Generation{e}, []*Validity{e.Validity}},
		"two tags of one connection":         {nil, []*Generation{a, b}, []*Validity{a.Validity, one, b.Validity}},
		"the entry's own connection":         {[]*Validity{one}, []*Generation{a, b}, []*Validity{one, a.Validity, b.Validity}},
		"two connections":                    {[]*Validity{one}, []*Generation{d, a, e}, []*Validity{one, d.Validity, two, a.Validity, e.Validity}},
		"two connections, taking their turn": {nil, []*Generation{a, d, b}, []*Validity{a.Validity, one, d.Validity, two, b.Validity}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list := test.own
			for _, g := range test.gens {
				list = g.Validities(list)
			}
			require.Len(t, list, len(test.want))
			for i, v := range test.want { // not require.Equal: all validities are equal, but not the same
				require.Same(t, v, list[i])
			}
		})
	}
}

func TestAnEntryRestsOnItsTagsAndOnTheirConnections(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	ways := map[string]func(conn *Validity){
		"the first tag":  func(*Validity) { c.Retire("a") },
		"the second tag": func(*Validity) { c.Push("b") },
		"the connection": func(conn *Validity) { conn.Revoke() },
	}
	for name, end := range ways { // one after the other: they share the tags
		conn := new(Validity)
		list := learn(c, "b", 1, conn).Validities(learn(c, "a", 1, nil).Validities(nil))
		require.True(t, insert(c, "k", entry(clock, "v", time.Hour, list...)))
		require.NotNil(t, c.Get("k"))
		end(conn)
		require.Nil(t, c.Get("k"), name)
	}
}

func TestSweepLeavesWhatHasTakenAnEntrysPlaceMeanwhile(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	lost := new(Validity)
	lost.Revoke()
	var stop atomic.Bool
	var swept atomic.Int64
	var sweeper sync.WaitGroup
	defer sweeper.Wait()
	defer stop.Store(true)
	sweeper.Go(func() {
		for !stop.Load() {
			swept.Add(c.Sweep())
		}
	})
	for n, start := uint64(0), time.Now(); goesOn(start, n, uint64(swept.Load())); n++ {
		c.Put("k", entry(clock, "old", time.Hour, lost))
		if n%16 == 0 {
			runtime.Gosched()
		}
		e := entry(clock, "new", time.Hour)
		c.Put("k", e)
		if n%4 == 0 {
			runtime.Gosched()
		}
		require.Same(t, e, c.Get("k"))
	}
	require.Positive(t, swept.Load())
}

func TestAnEntryThatHasLostAVoucherGivesBackItsMemoryUnasked(t *testing.T) {
	t.Parallel()
	inBubble(t, roomy, func(t *testing.T, c *Cache, clock *Clock) {
		v := new(Validity)
		require.True(t, insert(c, "lost", entry(clock, "v", 10*sweepEvery, v)))
		require.True(t, insert(c, "kept", entry(clock, "v", 10*sweepEvery, new(Validity))))
		for range 2 {
			time.Sleep(sweepEvery)
			synctest.Wait()
			require.Equal(t, 2, c.Len())
		}
		v.Revoke()
		time.Sleep(sweepEvery)
		synctest.Wait()
		require.Equal(t, 1, c.Len())
		require.NotNil(t, c.Get("kept"))
	})
}

func TestTheFirstGenerationThatAProcessMakesCounts(t *testing.T) {
	c, _ := newCache(t, Options{MaxEntries: 10, MaxBytes: 1 << 20})
	a, b := c.Fence("tag", nil), c.Fence("tag", nil)
	defer a.End()
	defer b.End()
	first := c.LearnFirst(a, 1)
	require.True(t, first == c.LearnFirst(b, 2), "what the first has stored stays right")
	require.EqualValues(t, 1, first.Value)
	c.Retire("tag")
	require.Nil(t, c.LearnFirst(a, 3), "its fence is broken")
	after := c.Fence("tag", nil)
	defer after.End()
	require.EqualValues(t, 4, c.LearnFirst(after, 4).Value)
}
