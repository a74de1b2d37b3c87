package backoff

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/near"
)

func TestTheNumberOfFailuresIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clock := near.NewClock()
		defer clock.Stop()
		f := New(clock, time.Second, time.Minute)
		note := func(i int, d time.Duration) {
			f.add(&failure{key: strconv.Itoa(i), err: errors.New("down"), expires: clock.Now() + int64(d)})
		}
		for i := range mostFailures + 100 {
			note(i, time.Hour)
			note(i, time.Hour) // once more is no other one
		}
		require.Len(t, f.byKey, mostFailures)
		require.Equal(t, mostFailures, f.order.Len())
		require.Nil(t, f.find("99", 0), "it failed first")
		require.NotNil(t, f.find("100", 0))
		require.NotNil(t, f.find(strconv.Itoa(mostFailures+99), 0))

		f.ForgetMatching(func(key string) bool { return key != "100" && key != "101" })
		require.Len(t, f.byKey, 2)
		f.Forget("101")
		f.Forget("102")
		require.Len(t, f.byKey, 1)
		require.NotNil(t, f.find("100", 0))
		time.Sleep(time.Hour)
		require.Nil(t, f.find("100", 0))
		require.Zero(t, f.count.Load(), "nobody looks for one any more")
	})
}

func TestFailuresThatAreOverGiveBackTheirMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clock := near.NewClock()
		defer clock.Stop()
		f := New(clock, time.Second, time.Minute)
		for i := range 1000 {
			f.add(&failure{key: strconv.Itoa(i), expires: clock.Now() + int64(time.Second)})
		}
		time.Sleep(time.Second)
		for range 250 {
			require.Nil(t, f.find("another", 0))
		}
		require.Zero(t, f.count.Load())
		require.Zero(t, f.order.Len())
		require.Nil(t, f.byKey)
	})
}

func TestErrorsThatAreKeptAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clock := near.NewClock()
		defer clock.Stop()
		f := New(clock, time.Second, time.Minute)
		defer f.Close()
		long := errors.New(strings.Repeat("ü", 1<<16))
		for i := range mostErrors + 1 {
			now := clock.Now()
			f.add(&failure{key: strconv.Itoa(i), err: fmt.Errorf("%w", long), until: now + int64(time.Second), expires: now + int64(time.Hour)})
		}
		require.Equal(t, strings.Repeat("ü", longestText)+"…", f.find("0", 0).err.Error())
		require.ErrorIs(t, f.find("1", 0).err, long)
		kept := func() int {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.kept.Len()
		}
		require.Equal(t, mostErrors, kept())
		f.Forget("1")
		require.Equal(t, mostErrors-1, kept())
		time.Sleep(tidyPause + time.Second)
		synctest.Wait()
		require.Zero(t, kept(), "nobody has asked")
		require.Empty(t, f.shared)
		require.NotNil(t, f.find("2", 0), "it is remembered")
		require.NoError(t, f.find("2", 0).err)
	})
}

func TestOneErrorOfManyKeysIsKeptOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clock := near.NewClock()
		defer clock.Stop()
		f := New(clock, time.Second, time.Minute)
		defer f.Close()
		down := errors.New("down")
		for i := range 2 * mostErrors {
			now := clock.Now()
			f.add(&failure{key: strconv.Itoa(i), err: down, until: now + int64(time.Hour), expires: now + int64(time.Hour)})
		}
		require.Equal(t, down, f.find("0", 0).err)
		f.ForgetMatching(func(key string) bool { return key != "7" })
		require.Equal(t, down, f.find("7", 0).err)
		f.Forget("7")
		f.mu.Lock()
		defer f.mu.Unlock()
		require.Empty(t, f.shared)
	})
}

func TestFailuresOfPoliciesThatShareAKeyAreApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clock := near.NewClock()
		defer clock.Stop()
		f := New(clock, time.Second, time.Minute)
		for owner := range uint64(3) {
			f.add(&failure{key: "a", owner: owner, expires: clock.Now() + int64(time.Hour)})
		}
		f.ForgetOwn("a", 1)
		require.NotNil(t, f.find("a", 0))
		require.Nil(t, f.find("a", 1))
		require.NotNil(t, f.find("a", 2))
		f.Forget("a")
		require.Nil(t, f.find("a", 0))
		require.Zero(t, f.count.Load())
		require.Nil(t, f.byKey)
	})
}

// fickle has a text the first time that it is asked, and panics from then on: what it is made of is used again, say.
type fickle struct{ asked int }

func (f *fickle) Error() string {
	if f.asked++; f.asked > 1 {
		panic("used again")
	}
	return "fickle"
}

// The text of an error that gives way to others is made when they come:
//
//  1. an error is kept whose text is sound;
//  2. so many others are kept that it gives way;
//  3. its methods panic by now. Those that note a failure may be on a goroutine of the standard library, where a panic ends the process.
func TestAnErrorThatGivesWayToOthersMayPanic(t *testing.T) {
	t.Parallel()
	clock := near.NewClock()
	defer clock.Stop()
	f := New(clock, time.Second, time.Minute)
	defer f.Close()
	note := func(i int, err error) {
		f.add(&failure{key: strconv.Itoa(i), err: err, until: clock.Now() + int64(time.Hour), expires: clock.Now() + int64(time.Hour)})
	}
	sound := &fickle{}
	_ = sound.Error() // the cache has looked at it before
	note(0, sound)
	require.NotPanics(t, func() {
		for i := range mostErrors {
			note(i+1, errors.New("down"))
		}
	})
	require.Error(t, f.find("0", 0).err)
	require.NotPanics(t, func() { _ = f.find("0", 0).err.Error() })
}

// asking is an error whose text takes a look at the failures, as one does that asks the cache.
type asking struct {
	of   *Table
	held bool // their lock was
}

func (a *asking) Error() string {
	if a.of.mu.TryLock() {
		a.of.mu.Unlock()
	} else {
		a.held = true
	}
	return "asking"
}

// Hazard 137. Error is a method of the program's: it may block, or ask the cache.
func TestTheTextOfAnErrorIsMadeWithoutTheLockOfTheFailures(t *testing.T) {
	t.Parallel()
	clock := near.NewClock()
	defer clock.Stop()
	f := New(clock, time.Second, time.Minute)
	defer f.Close()
	var all [mostErrors + 1]*asking
	for i := range all {
		all[i] = &asking{of: f}
		f.add(&failure{key: strconv.Itoa(i), err: all[i], until: clock.Now() + int64(time.Hour), expires: clock.Now() + int64(time.Hour)})
	}
	for _, err := range all {
		require.False(t, err.held)
	}
	require.NotSame(t, all[0], f.find("0", 0).err, "it has given way")
	require.EqualError(t, f.find("0", 0).err, "asking")
	require.Same(t, all[1], f.find("1", 0).err)
}

var errDown = errors.New("down")

func down() error { return errDown }

// start makes a table in a bubble of time.
func start(t *testing.T, first, longest time.Duration, test func(t *testing.T, table *Table)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clock := near.NewClock()
		defer clock.Stop()
		table := New(clock, first, longest)
		defer table.Close()
		test(t, table)
	})
}

func TestOneFailureHoldsBackNobodyAndKeepsNoError(t *testing.T) {
	start(t, time.Second, time.Minute, func(t *testing.T, table *Table) {
		table.Note("a", 1, table.Last(), func() error { t.Error("nobody is told"); return errDown })
		left, err := table.HeldBack("a", 1)
		require.NoError(t, err)
		require.Zero(t, left)
		require.Zero(t, table.kept.Len())
		require.EqualValues(t, 1, table.Last())
	})
}

func TestEachFurtherFailureHoldsBackTwiceAsLongUpToTheLongest(t *testing.T) {
	start(t, time.Second, 5*time.Second, func(t *testing.T, table *Table) {
		table.Note("a", 1, table.Last(), down)
		for _, pause := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second} {
			table.Note("a", 1, table.Last(), down)
			left, err := table.HeldBack("a", 1)
			require.Equal(t, errDown, err)
			require.InDelta(t, pause, left, float64(pause)/4)
			require.LessOrEqual(t, left, 5*time.Second)
			_, err = table.HeldBack("a", 2)
			require.NoError(t, err, "another owner has not failed")
			_, err = table.HeldBack("b", 1)
			require.NoError(t, err)
			time.Sleep(left)
			_, err = table.HeldBack("a", 1)
			require.NoError(t, err, "its time is up")
		}
		table.ForgetOwn("a", 1)
		table.Note("a", 1, table.Last(), down)
		_, err := table.HeldBack("a", 1)
		require.NoError(t, err, "it is the first one in a row again")
	})
}

func TestAFailureLongAfterTheLastIsTheFirstInARow(t *testing.T) {
	start(t, time.Second, 5*time.Second, func(t *testing.T, table *Table) {
		table.Note("a", 1, table.Last(), down)
		table.Note("a", 1, table.Last(), down)
		left, err := table.HeldBack("a", 1)
		require.Error(t, err)
		time.Sleep(left + 5*time.Second)
		table.Note("a", 1, table.Last(), down)
		_, err = table.HeldBack("a", 1)
		require.NoError(t, err)
	})
}

func TestALoadThatBeganBeforeTheLastFailureIsNoFurtherOne(t *testing.T) {
	start(t, time.Second, time.Minute, func(t *testing.T, table *Table) {
		before := table.Last()
		for range 3 { // side by side
			table.Note("a", 1, before, down)
		}
		_, err := table.HeldBack("a", 1)
		require.NoError(t, err)
		table.Note("a", 1, table.Last(), down)
		_, err = table.HeldBack("a", 1)
		require.Equal(t, errDown, err)
	})
}

func TestPausesAreVariedByAQuarterAndNeverBeyondTheLongest(t *testing.T) {
	t.Parallel()
	var least, most time.Duration = time.Hour, 0
	for range 10_000 {
		d := varied(time.Second, time.Minute)
		least, most = min(least, d), max(most, d)
	}
	require.InDelta(t, 750*time.Millisecond, least, float64(10*time.Millisecond))
	require.InDelta(t, 1250*time.Millisecond, most, float64(10*time.Millisecond))
	least, most = time.Hour, 0
	for range 10_000 {
		d := varied(time.Second, time.Second)
		least, most = min(least, d), max(most, d)
	}
	require.GreaterOrEqual(t, least, 750*time.Millisecond)
	require.LessOrEqual(t, most, time.Second)
	require.Zero(t, varied(0, 0))
}
