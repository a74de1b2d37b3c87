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
