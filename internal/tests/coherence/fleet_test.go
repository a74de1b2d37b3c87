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

// fleet starts the members; the function that it returns lets them go all at once, and returns what each has printed.
func fleet(t *testing.T, addr string, env ...string) (release func() (loads []int, slowest time.Duration)) {
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
	return func() (loads []int, slowest time.Duration) {
		for _, p := range processes {
			line, err := p.Line()
			require.NoError(t, err)
			var n int
			var took time.Duration
			_, err = fmt.Sscan(line, &n, (*int64)(&took))
			require.NoError(t, err)
			require.NoError(t, p.Wait())
			loads, slowest = append(loads, n), max(slowest, took)
		}
		return loads, slowest
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
	loads, slowest := fleet(t, redistest.Start(t).Addr())()
	t.Logf("%d processes with %d callers: %d load, the slowest caller waited %v", asidetest.Members, asidetest.Callers, sum(loads), slowest)
	require.Equal(t, 1, sum(loads))
}

func TestAFailingLoaderIsCalledTwiceByEachProcessWithinTheBackOff(t *testing.T) {
	t.Parallel()
	loads, slowest := fleet(t, redistest.Start(t).Addr(), "FAILS=1")()
	t.Logf("loads of each process %v, the slowest caller waited %v", loads, slowest)
	for _, n := range loads {
		require.LessOrEqual(t, n, 2)
	}
	require.NotZero(t, sum(loads))
}

func TestAFleetGoesOnWithinTheLeaseOfAProcessThatDied(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	holder := redistest.Spawn(t, "holder", "ADDR="+server.Addr())
	line, err := holder.Line()
	require.NoError(t, err)
	require.Equal(t, "loading", line)
	held := server.MustDo(t, "GET", "{items:held}!l")
	require.NotNil(t, held)
	result := fleet(t, server.Addr())
	asidetest.Eventually(t, "somebody has been refused the lease", func() bool { return asidetest.Commands(t, server, "evalsha") >= asidetest.Members })
	require.Equal(t, held, server.MustDo(t, "GET", "{items:held}!l"), "the holder's")
	holder.Kill()
	loads, slowest := result()
	t.Logf("%d loads, with the one that died, the slowest caller waited %v", 1+sum(loads), slowest)
	require.Equal(t, 1, sum(loads))
	require.Less(t, slowest, 5*time.Second+asidetest.MemberLoad+5*time.Second, "the lease, the load, and what a busy machine adds")
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
			measureStaleness(t, env)
		})
	}
}

func measureStaleness(t *testing.T, env []string) {
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
	n := asidetest.Rounds(100, 2000)
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
		time.Sleep(2*time.Millisecond + rand.N(3*time.Millisecond)) // so that memory has the new value before it changes again
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
	slices.Sort(delays)
	at := func(q float64) time.Duration { return delays[min(len(delays)-1, int(q*float64(len(delays))))] }
	t.Logf("%d invalidations of what memory was serving elsewhere: p50 %v, p99 %v, p99.9 %v, max %v", len(delays), at(0.5), at(0.99), at(0.999), delays[len(delays)-1])
	require.Greater(t, len(delays), n/2, "it was in memory")
	require.Less(t, delays[len(delays)-1], asidetest.Bound, "and then it was not")
}
