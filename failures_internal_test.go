package aside

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
		require.Nil(t, f.of("99"), "it failed first")
		require.NotNil(t, f.of("100"))
		require.NotNil(t, f.of(strconv.Itoa(mostFailures+99)))

		f.forgetMatching(func(key string) bool { return key != "100" && key != "101" })
		require.Len(t, f.byKey, 2)
		f.forget("101")
		f.forget("102")
		require.Len(t, f.byKey, 1)
		require.NotNil(t, f.of("100"))
		time.Sleep(time.Hour)
		require.Nil(t, f.of("100"))
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
			require.Nil(t, f.of("another"))
		}
		require.Zero(t, f.count.Load())
		require.Zero(t, f.order.Len())
		require.Nil(t, f.byKey)
	})
}
