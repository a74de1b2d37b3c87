package coherence_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// fleet starts the members; the function that it returns lets them go all at once, and returns what they have printed.
func fleet(t *testing.T, addr string, env ...string) (release func() (loads []int, slowest time.Duration, troubles int)) {
	t.Helper()
	processes := make([]*redistest.Subprocess, asidetest.Members)
	for i := range processes {
		processes[i] = redistest.Spawn(t, "member", append(env, "ADDR="+addr)...)
	}
	for _, p := range processes {
		line, err := p.Line()
		require.NoError(t, err)
		require.Equal(t, "ready", line)
	}
	for _, p := range processes {
		require.NoError(t, p.Stdin.Close())
	}
	return func() (loads []int, slowest time.Duration, troubles int) {
		for _, p := range processes {
			line, err := p.Line()
			require.NoError(t, err)
			var n, trouble int
			var took time.Duration
			_, err = fmt.Sscan(line, &n, (*int64)(&took), &trouble)
			require.NoError(t, err)
			require.NoError(t, p.Wait())
			loads, slowest, troubles = append(loads, n), max(slowest, took), troubles+trouble
		}
		return loads, slowest, troubles
	}
}

func sum(numbers []int) (total int) {
	for _, n := range numbers {
		total += n
	}
	return total
}

func TestAColdKeyIsLoadedOnceByAFleet(t *testing.T) {
	t.Parallel()
	asidetest.Repeatedly(t, "Redis answers everybody in time", func() bool {
		loads, slowest, troubles := fleet(t, redistest.Start(t).Addr())()
		t.Logf("%d processes with %d callers: %d load, the slowest caller waited %v, %d troubles", asidetest.Members, asidetest.Callers, sum(loads), slowest, troubles)
		if troubles == 0 {
			require.Equal(t, 1, sum(loads))
		}
		return sum(loads) == 1
	})
}

func TestAFailingLoaderIsCalledTwiceByEachProcessWithinTheBackOff(t *testing.T) {
	t.Parallel()
	asidetest.Repeatedly(t, "Redis answers everybody in time", func() bool {
		loads, slowest, troubles := fleet(t, redistest.Start(t).Addr(), "FAILS=1")()
		t.Logf("loads of each process %v, the slowest caller waited %v, %d troubles", loads, slowest, troubles)
		if troubles == 0 {
			require.LessOrEqual(t, slices.Max(loads), 2)
		}
		require.NotZero(t, sum(loads))
		return slices.Max(loads) <= 2
	})
}

func TestAFleetGoesOnWithinTheLeaseOfAProcessThatDied(t *testing.T) {
	t.Parallel()
	asidetest.Repeatedly(t, "Redis answers everybody in time", func() bool { return goesOnAfterADeath(t) })
}

// goesOnAfterADeath reports whether it does. Where Redis does not answer everybody in time, it need not.
func goesOnAfterADeath(t *testing.T) bool {
	server, atMost := redistest.Start(t), asidetest.Allowing(t)
	holder := redistest.Spawn(t, "holder", "ADDR="+server.Addr())
	line, err := holder.Line()
	require.NoError(t, err)
	require.Equal(t, "loading", line)
	held := server.MustDo(t, "GET", "{items:held}!l")
	require.NotNil(t, held)
	result := fleet(t, server.Addr())
	asidetest.Eventually(t, "somebody has been refused the lease", func() bool { return asidetest.Commands(t, server, "evalsha") >= asidetest.Members })
	holders := held == server.MustDo(t, "GET", "{items:held}!l") // otherwise it was not renewed in time
	holder.Kill()
	loads, slowest, troubles := result()
	t.Logf("%d loads, with the one that died, the slowest caller waited %v, %d troubles", 1+sum(loads), slowest, troubles)
	if !holders || troubles > 0 && sum(loads) != 1 {
		return false
	}
	require.Equal(t, 1, sum(loads))
	require.Less(t, slowest, atMost(5*time.Second+asidetest.MemberLoad+5*time.Second), "the lease, the load, and what a busy machine adds")
	return true
}

// One process changes values and invalidates them; others read them all the time. What is measured is for how long after
// Invalidate has returned another process's memory has still served the old value.
func TestHowLongAnotherProcessServesWhatIsInvalidated(t *testing.T) {
	t.Parallel()
	for name, env := range map[string][]string{"under load": nil, "all processors saturated": {"SATURATE=1"}} {
		t.Run(name, func(t *testing.T) {
			if len(env) > 0 && !asidetest.AtLength() {
				t.Skip("this one holds up all the other tests: it runs in `make races`")
			}
			// Memory has a new value before it changes again, on a busy machine only if that takes its time.
			n, pause := asidetest.Rounds(100, 2000), time.Millisecond
			asidetest.Repeatedly(t, "it was in memory", func() bool { pause *= 2; return measureStaleness(t, env, n, pause) })
		})
	}
}

// measureStaleness changes each value n times, and reports whether enough of them were in memory meanwhile.
func measureStaleness(t *testing.T, env []string, n int, pause time.Duration) (enough bool) {
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	for k := range asidetest.Followed {
		server.MustDo(t, "SET", asidetest.SourceKey(k), "0")
	}
	followers := make([]*redistest.Subprocess, 2)
	for i := range followers {
		followers[i] = redistest.Spawn(t, "follower", append(env, "ADDR="+server.Addr())...)
		line, err := followers[i].Line()
		require.NoError(t, err)
		require.Equal(t, "ready", line)
	}
	returned := make([][]int64, asidetest.Followed) // key -> version -> when its invalidation has returned
	for k := range returned {
		returned[k] = []int64{0}
	}
	for v := 1; v <= n; v++ {
		for k := range asidetest.Followed {
			server.MustDo(t, "SET", asidetest.SourceKey(k), strconv.Itoa(v))
			receipt, err := c.Invalidate(t.Context(), asidetest.Items.Key(k))
			require.NoError(t, err)
			require.True(t, receipt.Confirmed)
			returned[k] = append(returned[k], time.Now().UnixNano())
		}
		time.Sleep(pause + rand.N(pause*3/2)) // so that memory has the new value before it changes again
	}
	var delays []time.Duration
	for _, f := range followers {
		require.NoError(t, f.Stdin.Close())
		for {
			line, err := f.Line()
			require.NoError(t, err)
			if line == "end" {
				break
			}
			var k, v int
			var at int64
			_, err = fmt.Sscan(line, &k, &v, &at)
			require.NoError(t, err)
			if v < n {
				delays = append(delays, time.Duration(max(0, at-returned[k][v+1])))
			}
		}
		require.NoError(t, f.Wait())
	}
	if len(delays) <= n/2 {
		return false
	}
	slices.Sort(delays)
	at := func(q float64) time.Duration { return delays[min(len(delays)-1, int(q*float64(len(delays))))] }
	t.Logf("%d invalidations of what memory was serving elsewhere: p50 %v, p99 %v, p99.9 %v, max %v", len(delays), at(0.5), at(0.99), at(0.999), delays[len(delays)-1])
	require.Less(t, delays[len(delays)-1], asidetest.Bound, "and then it was not")
	return true
}
