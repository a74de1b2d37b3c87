package near

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const staleFor = 30 * time.Second

func stale(clock *Clock, value any, ttl time.Duration, validities ...*Validity) *Entry {
	e := entry(clock, value, ttl, validities...)
	e.Scope.StaleFor = staleFor
	return e
}

func TestAnEntryThatHasLostItsVoucherIsFoundByStaleForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, clock := newCache(t, roomy)
		first, second := new(Validity), new(Validity)
		e := stale(clock, "v", time.Hour, first, second)
		require.True(t, insert(c, "k", e))
		require.Same(t, e, c.Stale("k"), "a fresh one too")
		time.Sleep(time.Minute)
		second.Lapse(clock.Now())
		require.Nil(t, c.Get("k"))
		time.Sleep(staleFor / 2)
		first.Lapse(clock.Now()) // the first loss counts
		second.Lapse(clock.Now())
		time.Sleep(staleFor/2 - time.Millisecond)
		require.Same(t, e, c.Stale("k"))
		require.Zero(t, c.Sweep())
		time.Sleep(time.Millisecond)
		require.Nil(t, c.Stale("k"))
		require.EqualValues(t, 1, c.Sweep())
		require.Zero(t, c.Len())
	})
}

// Hazard 250.
func TestWithoutATimeForStaleEntriesNoneIsFoundByALateClock(t *testing.T) {
	t.Parallel()
	for _, never := range []time.Duration{0, -1} {
		synctest.Test(t, func(t *testing.T) {
			clock := NewClock()
			defer clock.Stop()
			clock.offset += 2 * int64(margin) // by which the coarse time is late
			c := New(roomy, clock)
			defer c.Close()
			wire, generation := new(Validity), new(Validity)
			e := stale(clock, "v", time.Hour, wire)
			e.Scope.StaleFor = never
			require.True(t, insert(c, "k", e))
			f := c.Fence("tag", nil)
			defer f.End()
			g := c.Learn(f, 1, generation)
			wire.Lapse(clock.Now())
			generation.Lapse(clock.Now())
			require.True(t, clock.Before(clock.Now()), "the coarse time is late")
			require.Nil(t, c.Stale("k"))
			require.Nil(t, c.Lapsed("tag", never))
			runtime.KeepAlive(g)
		})
	}
}

func TestAStaleEntryEndsWithItsTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, clock := newCache(t, roomy)
		v := new(Validity)
		require.True(t, insert(c, "k", stale(clock, "v", time.Second, v)))
		v.Lapse(clock.Now())
		require.NotNil(t, c.Stale("k"))
		time.Sleep(time.Second)
		require.Nil(t, c.Stale("k"))
	})
}

func TestWhatIsOutOfDateIsNotStaleButGone(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(c *Cache, v *Validity){
		"revoked":              func(_ *Cache, v *Validity) { v.Revoke() },
		"lapsed, then revoked": func(c *Cache, v *Validity) { v.Lapse(c.clock.Now()); v.Revoke() },
		"revoked, then lapsed": func(c *Cache, v *Validity) { v.Revoke(); v.Lapse(c.clock.Now()) },
		"Delete":               func(c *Cache, v *Validity) { v.Lapse(c.clock.Now()); c.Delete("k") },
		"Push":                 func(c *Cache, v *Validity) { v.Lapse(c.clock.Now()); c.Push("k") },
		"Retire":               func(c *Cache, v *Validity) { v.Lapse(c.clock.Now()); c.Retire("tag") },
		"Push of the tag":      func(c *Cache, v *Validity) { v.Lapse(c.clock.Now()); c.Push("tag") },
		"another generation":   func(c *Cache, v *Validity) { v.Lapse(c.clock.Now()); learn(c, "tag", 8, new(Validity)) },
		"the same generation on another connection, and then Retire": func(c *Cache, v *Validity) {
			v.Lapse(c.clock.Now())
			learn(c, "tag", 7, new(Validity))
			c.Retire("tag")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, clock := newCache(t, roomy)
			v := new(Validity)
			g := learn(c, "tag", 7, v)
			require.True(t, insert(c, "k", stale(clock, "v", time.Hour, g.Validities([]*Validity{v})...)))
			change(c, v)
			require.Nil(t, c.Stale("k"))
		})
	}
}

func TestTheSameGenerationOnAnotherConnectionLeavesWhatIsStale(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	v := new(Validity)
	g := learn(c, "tag", 7, v)
	require.True(t, insert(c, "k", stale(clock, "v", time.Hour, g.Validities(nil)...)))
	v.Lapse(clock.Now())
	again := learn(c, "tag", 7, new(Validity))
	require.True(t, again.Valid())
	require.False(t, g.Valid())
	require.Nil(t, c.Get("k"))
	require.NotNil(t, c.Stale("k"))
}

func TestWhatNobodyVouchesForIsKeptForStaleAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, clock := newCache(t, roomy)
		f := c.Fence("k", nil)
		defer f.End()
		e := stale(clock, "v", time.Hour, Untracked)
		require.True(t, c.KeepUntracked("k", e, f))
		require.Nil(t, c.Get("k"))
		require.Same(t, e, c.Stale("k"))
		time.Sleep(staleFor)
		require.Nil(t, c.Stale("k"), "counted from the load")
		require.False(t, c.KeepUntracked("k", e, f), "its time is over")
	})
}

func TestKeepMindsFencesAndNewerEntries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, clock := newCache(t, roomy)
		f := c.Fence("k", nil)
		defer f.End()
		older := stale(clock, "older", time.Hour, Untracked)
		time.Sleep(time.Second)
		newer := stale(clock, "newer", time.Hour)
		require.True(t, insert(c, "k", newer))
		require.False(t, c.KeepUntracked("k", older, f))
		require.Same(t, newer, c.Get("k"))
		latest := stale(clock, "latest", time.Hour, Untracked)
		c.Delete("k")
		require.False(t, c.KeepUntracked("k", latest, f), "the fence is broken")
	})
}

func TestHoldEndsWithTheTag(t *testing.T) {
	t.Parallel()
	c, _ := newCache(t, roomy)
	hold := func(tag string) *Validity {
		f := c.Fence(tag, nil)
		defer f.End()
		return c.Hold(f)
	}
	unknown := hold("unknown")
	require.True(t, unknown.Valid())
	require.Same(t, unknown, hold("unknown"))
	require.Nil(t, c.Generation("unknown"))
	learn(c, "unknown", 7, nil)
	require.False(t, unknown.Valid(), "nobody knows whether that is the generation it stood for")

	g := learn(c, "known", 7, nil)
	require.Same(t, g.Validity, hold("known"))
	again := hold("retired")
	c.Retire("retired")
	require.False(t, again.Valid())

	f := c.Fence("overtaken", nil)
	defer f.End()
	c.Retire("overtaken")
	require.Nil(t, c.Hold(f))
}
