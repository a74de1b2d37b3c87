package near

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/freshness"
)

// planned is an entry with a strategy, whose load begins now.
func planned(clock *Clock, value any, windows freshness.Windows, ttl time.Duration) *Entry {
	e := entry(clock, value, ttl)
	e.Plan = &Plan{Times: windows.Times(e.LoadedAt, e.Until, 0, 0)}
	e.Until = e.Plan.Until()
	return e
}

// Hazard 44: a load that was given up returns when the value of a later load is past its TTL.
func TestTheValueOfALaterLoadStaysUntilItIsDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, clock := newCache(t, roomy)
		windows := freshness.Windows{Stale: time.Minute, OnError: time.Hour}
		early := planned(clock, "early", windows, 10*time.Hour)
		time.Sleep(time.Second)
		late := planned(clock, "late", windows, time.Second)
		require.True(t, insert(c, "k", late))
		for _, wait := range []time.Duration{0, time.Second, time.Minute, time.Hour - time.Minute - time.Millisecond} {
			time.Sleep(wait)
			require.False(t, insert(c, "k", early), wait)
			there, _ := c.Old("k")
			require.Same(t, late, there)
		}
		time.Sleep(time.Millisecond)
		require.True(t, insert(c, "k", early))
	})
}

// Hazard 47: of two callers that find one entry, one postpones it, and neither postpones another entry.
func TestAnEntryIsPostponedOnceAndOnlyWhileItIsThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, clock := newCache(t, roomy)
		windows := freshness.Windows{Stale: time.Minute}
		first := planned(clock, "first", windows, time.Second)
		require.True(t, insert(c, "k", first))
		f := c.Fence("k", nil)
		defer f.End()
		require.True(t, c.Postpone("k", first, clock.Now()+1))
		require.False(t, f.Broken(), "nothing has changed")
		require.False(t, c.Postpone("k", first, clock.Now()+1))
		require.True(t, insert(c, "k", planned(clock, "second", windows, time.Second)))
		postponed, _ := c.Old("k")
		require.Equal(t, "second", postponed.Value)
		require.True(t, c.Postpone("k", postponed, clock.Now()+1))
		require.True(t, insert(c, "k", planned(clock, "third", windows, time.Second)))
		require.False(t, c.Postpone("k", postponed, clock.Now()+1))
		there, _ := c.Old("k")
		require.Equal(t, "third", there.Value)
		c.Delete("k")
		require.False(t, c.Postpone("k", there, clock.Now()+1))
	})
}

func TestASweepCountsValuesThatCouldStillBeServed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, clock := newCache(t, roomy)
		v := new(Validity)
		for _, ttl := range []time.Duration{time.Second, time.Minute} {
			e := planned(clock, "v", freshness.Windows{Ahead: 0.5, Stale: time.Minute}, ttl)
			e.Scope.Validities = []*Validity{v}
			require.True(t, insert(c, ttl.String(), e))
		}
		time.Sleep(45 * time.Second)
		v.Revoke()
		require.EqualValues(t, 2, c.Sweep())
	})
}
