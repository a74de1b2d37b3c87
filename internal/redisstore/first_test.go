package redisstore

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestHowLongAFirstConnectionIsWaitedFor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		opTimeout, ended, caller, asks, waits time.Duration
	}{
		"until the attempt has ended":        {opTimeout: 50 * time.Millisecond, ended: 700 * time.Millisecond, waits: 700 * time.Millisecond},
		"longer than for an operation":       {opTimeout: 50 * time.Millisecond, ended: time.Hour, waits: firstWait},
		"as long as for a long operation":    {opTimeout: time.Minute, ended: time.Hour, waits: time.Minute},
		"no longer than the caller":          {opTimeout: 50 * time.Millisecond, ended: time.Hour, caller: 10 * time.Millisecond, waits: 10 * time.Millisecond},
		"from the beginning of the attempt":  {opTimeout: 50 * time.Millisecond, ended: time.Hour, asks: 900 * time.Millisecond, waits: 100 * time.Millisecond},
		"not where it takes longer than all": {opTimeout: 50 * time.Millisecond, ended: time.Hour, asks: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s Store
				s.table.Store(&table{})
				s.firsts.found = newFirst(c.opTimeout)
				over := time.AfterFunc(c.ended, s.firsts.found.end)
				defer over.Stop()
				time.Sleep(c.asks)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.caller > 0 {
					ctx, cancel = context.WithTimeout(ctx, c.caller)
					defer cancel()
				}
				began := time.Now()
				s.AwaitFirst(ctx, nil)
				require.Equal(t, c.waits, time.Since(began))
			})
		})
	}
}
