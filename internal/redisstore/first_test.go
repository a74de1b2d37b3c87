package redisstore

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

func TestHowLongAFirstConnectionIsWaitedFor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		opTimeout, ended, caller, asks, waits time.Duration
		steps                                 int // one each 900 ms
	}{
		"until the attempt has ended":        {opTimeout: 50 * time.Millisecond, ended: 700 * time.Millisecond, waits: 700 * time.Millisecond},
		"longer than for an operation":       {opTimeout: 50 * time.Millisecond, ended: time.Hour, waits: firstWait},
		"as long as for a long operation":    {opTimeout: time.Minute, ended: time.Hour, waits: time.Minute},
		"from its last step on":              {opTimeout: 50 * time.Millisecond, ended: time.Hour, steps: 1, waits: 900*time.Millisecond + firstWait},
		"no longer than all of them":         {opTimeout: 50 * time.Millisecond, ended: time.Hour, steps: 10, waits: 3 * firstWait},
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
				for i := range c.steps {
					step := time.AfterFunc(time.Duration(i+1)*900*time.Millisecond, s.firsts.found.step)
					defer step.Stop()
				}
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

// Each step of the search for servers is one of the first attempt: a connection is made, and there is a reply.
func TestTheSearchForServersMakesSteps(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	greeted := proxy.HoldReplies(func(args []string) bool { return args[0] == "HELLO" })
	asked := proxy.HoldReplies(func(args []string) bool { return args[0] == "CLUSTER" && args[1] == "NODES" })
	found := &first{over: make(chan struct{}), wait: time.Second, latest: time.Now().Add(time.Hour)}
	found.step()
	tp := &topology{options: rueidis.ClientOption{InitAddress: []string{proxy.Addr()}}, firsts: firsts{found: found}}
	done, began := make(chan error, 1), *found.until.Load()
	go func() {
		at, views, err := tp.discover(t.Context(), []string{proxy.Addr()})
		if err == nil && (at != proxy.Addr() || views != nil) {
			err = fmt.Errorf("%s, %v", at, views)
		}
		done <- err
	}()
	greeted.Wait(t)
	dialled := *found.until.Load()
	require.True(t, dialled.After(began))
	greeted.Release()
	asked.Wait(t)
	require.True(t, found.until.Load().After(dialled))
	asked.Release()
	require.NoError(t, <-done)
	tp.closing.Wait()
}
