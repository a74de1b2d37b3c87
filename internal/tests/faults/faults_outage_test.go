package faults_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// Rows 3 and 4, promise 3: for how long a process that has lost sight of Redis serves what another process has invalidated
// meanwhile, and how often it then loads. Memory is read without a pause, and nothing else asks Redis, so that only the
// connection itself can tell.
func TestFault03And04HowLongWhatOthersInvalidateIsServed(t *testing.T) {
	t.Parallel()
	const keys, mostBlind = 10, 3 * time.Second
	for name, fault := range map[string]struct {
		row   int
		begin func(*redistest.Server, *redistest.Proxy)
		end   func(*redistest.Server, *redistest.Proxy)
	}{
		"hung":                   {3, func(s *redistest.Server, _ *redistest.Proxy) { s.Pause() }, func(s *redistest.Server, _ *redistest.Proxy) { s.Resume() }},
		"partition":              {4, func(_ *redistest.Server, p *redistest.Proxy) { p.Blackhole(true) }, func(_ *redistest.Server, p *redistest.Proxy) { p.Blackhole(false) }},
		"partition, one-way too": {4, func(_ *redistest.Server, p *redistest.Proxy) { p.BlackholeReplies(true) }, func(_ *redistest.Server, p *redistest.Proxy) { p.BlackholeReplies(false) }},
	} {
		for _, life := range []time.Duration{-1, time.Second} {
			t.Run(fmt.Sprintf("%s, DegradedTTL %v", name, life), func(t *testing.T) {
				t.Parallel()
				server := redistest.Start(t)
				proxy := redistest.StartProxy(t, server.Addr())
				o := atOnce(proxy.Addr())
				o.DegradedTTL = life
				c, other := asidetest.Connected(t, o), startServant(t, server.Addr())
				for k := range keys {
					asidetest.InMemory(t, c, asidetest.Items.Key(k), asidetest.Value("old"))
				}
				fault.begin(server, proxy)
				begun, atMost := time.Now(), asidetest.Allowing(t)
				var invalidating sync.WaitGroup
				confirmed := 0
				invalidating.Go(func() { // a hung server keeps the other process waiting too, for its long limit
					for k := range keys {
						if fault.row == 4 || k == 0 {
							if other.invalidate(fmt.Sprint(k)) {
								confirmed++
							}
						}
					}
				})
				if fault.row == 4 {
					invalidating.Wait()
					require.Equal(t, keys, confirmed, "the other process has its way to Redis")
				}
				var last time.Duration // when an old value was served last
				var served int
				type load struct{ called, begun time.Time }
				loads := make([][]load, keys)
				least := mostBlind + 4*max(life, 0)
				for time.Since(begun) < least+500*time.Millisecond {
					for k := range keys {
						called := time.Now()
						v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key(k), func(context.Context) (string, error) {
							loads[k] = append(loads[k], load{called, time.Now()})
							return "new", nil
						})
						require.NoError(t, err)
						if v == "old" {
							served++
							last = time.Since(begun)
						}
					}
					time.Sleep(time.Millisecond) // time for the other tests
				}
				asidetest.Eventually(t, "redis is given up", func() bool { return c.Health().State == aside.StateDegraded })
				require.True(t, served > 0 || atMost(0) > 500*time.Millisecond, "nobody could tell at first, unless the machine stalled")
				require.Less(t, last, atMost(mostBlind+max(life, 0)))
				most, shortest := 0, time.Hour
				for _, at := range loads {
					require.NotEmpty(t, at)
					most = max(most, len(at))
					for i := range len(at) - 1 {
						// What is loaded is kept from before its loader is called, which a busy machine may do late.
						shortest = min(shortest, at[i+1].begun.Sub(at[i].called))
					}
				}
				fault.end(server, proxy)
				invalidating.Wait()
				back(t, c)
				if life < 0 {
					asidetest.Seen(t, fault.row, name+", DegradedTTL negative", "what others invalidate is served for at most 3 s", "served for %s", asidetest.Ms(last))
					return
				}
				require.Greater(t, most, 1, "several periods have passed")
				require.GreaterOrEqual(t, shortest, life-20*time.Millisecond, "one load a key and DegradedTTL")
				asidetest.Seen(t, fault.row, name+", DegradedTTL "+life.String(), "served for at most DegradedTTL more; one load a key and DegradedTTL",
					"served for %s; at most %d loads of a key in %v, the shortest pause between two %s", asidetest.Ms(last), most, time.Since(begun).Round(100*time.Millisecond), asidetest.Ms(shortest))
			})
		}
	}
}

// Row 2: a killed server that has kept its values on disk comes back with what was invalidated meanwhile.
func TestFault02AKilledServerIsTrustedAgain(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	c, other := asidetest.Connected(t, atOnce(server.Addr())), startServant(t, server.Addr())
	var took []time.Duration
	checked := 0
	for round := range 5 {
		gone, kept, watched := asidetest.Items.Key("gone", round), asidetest.Items.Key("kept", round), asidetest.Items.Key(fmt.Sprint("watched", round))
		storedInRedis(t, c, server, gone, "old")
		asidetest.InMemory(t, c, gone, asidetest.Value("old"))
		storedInRedis(t, c, server, kept, "kept")
		server.Kill()
		asidetest.Eventually(t, "the loss is noticed", func() bool { return c.Health().State == aside.StateDegraded })
		receipt, err := c.Invalidate(t.Context(), gone)
		require.NoError(t, err)
		require.False(t, receipt.Confirmed)
		down := time.Now()
		asidetest.Eventually(t, "its time is over", func() bool { return time.Since(down) > time.Duration(round)*500*time.Millisecond })
		server.Restart()
		began, atMost := time.Now(), asidetest.Allowing(t)
		asidetest.Eventually(t, "it is trusted again, tracking included", func() bool {
			v, err := aside.GetOrLoad(t.Context(), c, gone, asidetest.Value("new"))
			require.NoError(t, err)
			require.NotEqual(t, "old", v)
			checked++
			return c.Health().Tracking
		})
		took = append(took, time.Since(began))
		require.Less(t, took[round], atMost(2*time.Second+time.Second), "and what a busy machine adds")
		require.NoError(t, receipt.Wait(t.Context()))
		for range 100 {
			v, err := aside.GetOrLoad(t.Context(), c, gone, asidetest.Value("new"))
			require.NoError(t, err)
			require.NotEqual(t, "old", v)
			checked++
		}
		asidetest.Eventually(t, "what Redis had before is there again, as the old value was", func() bool {
			v, err := aside.Get[string](t.Context(), c, kept)
			return err == nil && v == "kept" // a busy machine may take longer to answer than a call waits
		})
		// Tracking: another process changes what memory holds.
		asidetest.InMemory(t, c, watched, asidetest.Value("v1"))
		asidetest.Eventually(t, "the other process is back too", func() bool { return other.invalidate(fmt.Sprint("watched", round)) })
		asidetest.Eventually(t, "the push comes", func() bool {
			v, err := aside.GetOrLoad(t.Context(), c, watched, asidetest.Value("v2"))
			require.NoError(t, err)
			return v == "v2"
		})
	}
	asidetest.Seen(t, 2, "killed, started again with its values", "trusted again within 2 s, tracking included; nothing stale",
		"down for 0 to 2 s, 5 times: after %s at most, a push heard each time; %d reads of keys invalidated meanwhile, 0 old", asidetest.Ms(slices.Max(took)), checked)
}
