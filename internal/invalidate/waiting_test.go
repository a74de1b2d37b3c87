package invalidate

import (
	"bytes"
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/journal"
)

// A counted is where lines about invalidations that wait are written to. It counts them.
type counted struct{ atomic.Int64 }

func (c *counted) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("level=WARN msg=\"aside: invalidations wait for redis\" oldest=1")) && bytes.Contains(line, []byte("count=1\n")) {
		c.Add(1)
	}
	return len(line), nil
}

// Each time that invalidations wait again they are logged anew, and not before they have waited for long.
func TestInvalidationsThatWaitAgainAreLoggedAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out counted
		v := &Invalidator{o: Options{Journal: journal.New(), Logger: slog.New(slog.NewTextHandler(&out, nil))}}
		ctx, stop := context.WithCancel(t.Context())
		go v.logWaiting(ctx)
		lines := func(after time.Duration) int64 {
			time.Sleep(after)
			synctest.Wait()
			return out.Swap(0)
		}
		require.Zero(t, lines(time.Hour))
		for range 3 {
			v.o.Journal.Enter("", "items:a")
			require.Zero(t, lines(waitLogged-time.Nanosecond))
			require.EqualValues(t, 1, lines(2*waitLogged))
			_, again := v.o.Journal.Confirm(v.o.Journal.Now(""), "items:a")
			require.Nil(t, again)
			require.Zero(t, lines(waitLogged))
		}
		stop()
	})
}
