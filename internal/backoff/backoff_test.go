package backoff

import (
	"errors"
	"strconv"
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
