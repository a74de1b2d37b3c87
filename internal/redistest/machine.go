package redistest

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Allowing measures from now on how much later than it should a goroutine wakes. What it returns is a limit for what has taken
// its time since: what a machine that does not stall may take, and three times what this one was late, as a server, a
// proxy and a caller may each have to wait for a processor in turn.
func Allowing(t testing.TB) func(limit time.Duration) time.Duration {
	const wait, usual = 10 * time.Millisecond, 2 * time.Millisecond
	var late atomic.Int64
	var asleep atomic.Int64 // since when, in nanoseconds after began
	began := time.Now()
	stop := make(chan struct{})
	var measuring sync.WaitGroup
	measuring.Go(func() {
		for {
			since := time.Now()
			asleep.Store(int64(since.Sub(began)))
			select {
			case <-stop:
				return
			case <-time.After(wait):
			}
			if by := time.Since(since) - wait; by > usual {
				late.Add(int64(by))
			}
		}
	})
	t.Cleanup(func() { close(stop); measuring.Wait() })
	return func(limit time.Duration) time.Duration {
		by := time.Since(began) - time.Duration(asleep.Load()) - wait // a stall that is not over for that goroutine counts too
		return limit + 3*(time.Duration(late.Load())+max(0, by))
	}
}
