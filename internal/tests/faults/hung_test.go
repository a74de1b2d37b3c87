package faults_test

import (
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// FAULTS 3. With more callers at once than the client library has places for, each waits for a server that hangs for as long as
// one operation may take, and not until some reply has come.
func TestAHungServerHoldsUpNoneOfThousandsOfCallers(t *testing.T) {
	for _, callers := range []int{1500, 10_000} {
		t.Run(strconv.Itoa(callers), func(t *testing.T) {
			server := redistest.Start(t)
			o := asidetest.At(server.Addr())
			o.OpTimeout, o.Redis.ConnWriteTimeout, o.Redis.Dialer.KeepAlive = 0, 0, 0 // 50 ms, and 500
			c := asidetest.Connected(t, o)
			// The first ones of all cost what they cost, until one was quick.
			n := 0
			asidetest.Repeatedly(t, "operations are quick", func() bool {
				n++
				began := time.Now()
				_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("warm", n), asidetest.Value("v"))
				require.NoError(t, err)
				return n >= 20 && time.Since(began) < 50*time.Millisecond
			})
			noise := overshoot(callers)
			took := make([]time.Duration, callers)
			begin := make(chan struct{})
			var all sync.WaitGroup
			for i := range callers {
				key := asidetest.Items.Key(i)
				all.Go(func() {
					<-begin
					began := time.Now()
					_, err := aside.Get[string](t.Context(), c, key)
					took[i] = time.Since(began)
					if !errors.Is(err, aside.ErrMiss) {
						t.Error(err)
					}
				})
			}
			server.Pause()
			defer server.Resume()
			atMost, began := asidetest.Allowing(t), time.Now()
			close(begin)
			for c.Health().State == aside.StateConnected && time.Since(began) < asidetest.Bound {
				time.Sleep(time.Millisecond)
			}
			opened := time.Since(began)
			all.Wait()
			slices.Sort(took)
			p := func(share float64) time.Duration { return took[int(share*float64(callers-1))] }
			t.Logf("%d callers: p50 %s, p99 %s, p99.9 %s, longest %s; given up after %s", callers,
				asidetest.Ms(p(0.5)), asidetest.Ms(p(0.99)), asidetest.Ms(p(0.999)), asidetest.Ms(took[callers-1]), asidetest.Ms(opened))
			if asidetest.RaceDetector || noise > 10*time.Millisecond {
				t.Logf("not judged: timers of as many goroutines are %s late", asidetest.Ms(noise))
				return
			}
			require.Less(t, p(0.999), atMost(time.Duration(callers)*50*time.Microsecond+200*time.Millisecond))
		})
	}
}

// overshoot is how much later than they should most of n goroutines wake that wait for 50 ms: what the machine adds.
func overshoot(n int) time.Duration {
	const wait = 50 * time.Millisecond
	late := make([]time.Duration, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			began := time.Now()
			time.Sleep(wait)
			late[i] = time.Since(began) - wait
		})
	}
	all.Wait()
	slices.Sort(late)
	return late[n*999/1000]
}
