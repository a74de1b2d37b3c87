package aside

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
		f := failures{clock: clock}
		note := func(i int, d time.Duration) {
			f.note(&failure{key: strconv.Itoa(i), err: errors.New("down"), over: clock.Now() + int64(d)})
		}
		for i := range mostFailures + 100 {
			note(i, time.Hour)
			note(i, time.Hour) // once more is no other one
		}
		require.Len(t, f.byKey, mostFailures)
		require.Equal(t, mostFailures, f.order.Len())
		require.Nil(t, f.of("99", 0), "it failed first")
		require.NotNil(t, f.of("100", 0))
		require.NotNil(t, f.of(strconv.Itoa(mostFailures+99), 0))

		f.forgetMatching(func(key string) bool { return key != "100" && key != "101" })
		require.Len(t, f.byKey, 2)
		f.forget("101")
		f.forget("102")
		require.Len(t, f.byKey, 1)
		require.NotNil(t, f.of("100", 0))
		time.Sleep(time.Hour)
		require.Nil(t, f.of("100", 0))
		require.Zero(t, f.count.Load(), "nobody looks for one any more")
	})
}

func TestFailuresThatAreOverGiveBackTheirMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clock := near.NewClock()
		defer clock.Stop()
		f := failures{clock: clock}
		for i := range 1000 {
			f.note(&failure{key: strconv.Itoa(i), over: clock.Now() + int64(time.Second)})
		}
		time.Sleep(time.Second)
		for range 250 {
			require.Nil(t, f.of("another", 0))
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
		f := failures{clock: clock}
		defer f.end()
		long := errors.New(strings.Repeat("ü", 1<<16))
		for i := range mostErrors + 1 {
			now := clock.Now()
			f.note(&failure{key: strconv.Itoa(i), err: fmt.Errorf("%w", long), until: now + int64(time.Second), over: now + int64(time.Hour)})
		}
		require.Equal(t, strings.Repeat("ü", longestText)+"…", f.of("0", 0).err.Error())
		require.ErrorIs(t, f.of("1", 0).err, long)
		told := func() int {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.told.Len()
		}
		require.Equal(t, mostErrors, told())
		f.forget("1")
		require.Equal(t, mostErrors-1, told())
		time.Sleep(tidyPause + time.Second)
		synctest.Wait()
		require.Zero(t, told(), "nobody has asked")
		require.Empty(t, f.same)
		require.NotNil(t, f.of("2", 0), "it is remembered")
		require.NoError(t, f.of("2", 0).err)
	})
}

func TestOneErrorOfManyKeysIsKeptOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clock := near.NewClock()
		defer clock.Stop()
		f := failures{clock: clock}
		defer f.end()
		down := errors.New("down")
		for i := range 2 * mostErrors {
			now := clock.Now()
			f.note(&failure{key: strconv.Itoa(i), err: down, until: now + int64(time.Hour), over: now + int64(time.Hour)})
		}
		require.Equal(t, down, f.of("0", 0).err)
		f.forgetMatching(func(key string) bool { return key != "7" })
		require.Equal(t, down, f.of("7", 0).err)
		f.forget("7")
		f.mu.Lock()
		defer f.mu.Unlock()
		require.Empty(t, f.same)
	})
}

func TestFailuresOfPoliciesThatShareAKeyAreApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clock := near.NewClock()
		defer clock.Stop()
		f := failures{clock: clock}
		for owner := range uint64(3) {
			f.note(&failure{key: "a", owner: owner, over: clock.Now() + int64(time.Hour)})
		}
		f.forgetOwn("a", 1)
		require.NotNil(t, f.of("a", 0))
		require.Nil(t, f.of("a", 1))
		require.NotNil(t, f.of("a", 2))
		f.forget("a")
		require.Nil(t, f.of("a", 0))
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
	f := failures{clock: clock}
	defer f.end()
	note := func(i int, err error) {
		f.note(&failure{key: strconv.Itoa(i), err: err, until: clock.Now() + int64(time.Hour), over: clock.Now() + int64(time.Hour)})
	}
	note(0, sound(&fickle{}))
	require.NotPanics(t, func() {
		for i := range mostErrors {
			note(i+1, errors.New("down"))
		}
	})
	require.Error(t, f.of("0", 0).err)
	require.NotPanics(t, func() { _ = f.of("0", 0).err.Error() })
}

// asking is an error whose text takes a look at the failures, as one does that asks the cache.
type asking struct {
	of   *failures
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
	f := failures{clock: clock}
	defer f.end()
	var all [mostErrors + 1]*asking
	for i := range all {
		all[i] = &asking{of: &f}
		f.note(&failure{key: strconv.Itoa(i), err: all[i], until: clock.Now() + int64(time.Hour), over: clock.Now() + int64(time.Hour)})
	}
	for _, err := range all {
		require.False(t, err.held)
	}
	require.NotSame(t, all[0], f.of("0", 0).err, "it has given way")
	require.EqualError(t, f.of("0", 0).err, "asking")
	require.Same(t, all[1], f.of("1", 0).err)
}
