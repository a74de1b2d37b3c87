package aside_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// Here another process is another operating-system process.

const (
	members    = 8
	callers    = 1000 // of each member
	memberLoad = 200 * time.Millisecond
)

var errMember = errors.New("the source is down")

// memberProcess asks for one key from many goroutines at once, when its standard input is closed, and prints how often it
// has loaded, and how long the slowest caller has waited.
func memberProcess() {
	c := processCache()
	defer c.Close()
	fails := os.Getenv("FAILS") != ""
	var loads, slowest atomic.Int64
	load := func(context.Context) (string, error) {
		loads.Add(1)
		time.Sleep(memberLoad) // the load
		if fails {
			return "", errMember
		}
		return "v", nil
	}
	ask := func() {
		began := time.Now()
		v, err := aside.GetOrLoad(context.Background(), c, items.Key("held"), load)
		if fails != errors.Is(err, errMember) || !fails && v != "v" {
			panic(fmt.Sprint(v, err))
		}
		took := int64(time.Since(began))
		for old := slowest.Load(); took > old && !slowest.CompareAndSwap(old, took); old = slowest.Load() {
		}
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1))
	var wg sync.WaitGroup
	for range callers {
		wg.Go(ask)
	}
	wg.Wait()
	for end := time.Now().Add(300 * time.Millisecond); fails && time.Now().Before(end); {
		ask()
	}
	fmt.Println(loads.Load(), slowest.Load())
}

func open(o aside.Options) *aside.Cache {
	c, err := aside.New(o)
	if err != nil {
		panic(err)
	}
	for c.Health().State != aside.StateConnected {
		time.Sleep(time.Millisecond)
	}
	return c
}

// fleet starts the members; the function that it returns lets them go all at once, and returns what each has printed.
func fleet(t *testing.T, addr string, env ...string) (release func() (loads []int, slowest time.Duration)) {
	t.Helper()
	processes := make([]*redistest.Subprocess, members)
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
	t.Logf("%d processes with %d callers: %d load, the slowest caller waited %v", members, callers, sum(loads), slowest)
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

// holderProcess takes the lease of a key, and loads for ever.
func holderProcess() {
	c := processCache()
	_, _ = aside.GetOrLoad(context.Background(), c, items.Key("held"), func(context.Context) (string, error) {
		fmt.Println("loading")
		select {}
	})
}

func TestAFleetGoesOnWithinTheLeaseOfAProcessThatDied(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	holder := redistest.Spawn(t, "holder", "ADDR="+server.Addr())
	line, err := holder.Line()
	require.NoError(t, err)
	require.Equal(t, "loading", line)
	result := fleet(t, server.Addr())
	eventually(t, "somebody has been refused the lease", func() bool { return commands(t, server, "evalsha") >= members })
	require.EqualValues(t, 1, server.MustDo(t, "EXISTS", "{items:held}!l"), "the holder's")
	holder.Kill()
	loads, slowest := result()
	t.Logf("%d loads, with the one that died, the slowest caller waited %v", 1+sum(loads), slowest)
	require.Equal(t, 1, sum(loads))
	require.Less(t, slowest, 5*time.Second+memberLoad+5*time.Second, "the lease, the load, and what a busy machine adds")
}

// followerProcess reads keys, from memory most of the time, and notes when it has seen each version last. It keeps a core
// busy, with readers who wait for something else now and then; with SATURATE, with readers who never do.
func followerProcess() {
	c := processCache()
	defer c.Close()
	raw, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{getenv("ADDR")}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		panic(err)
	}
	defer raw.Close()
	seen := make([]map[int64]int64, followed) // key -> version -> when memory has served it last
	var over atomic.Bool
	var wg sync.WaitGroup
	for k := range seen {
		seen[k] = map[int64]int64{}
		wg.Go(func() {
			load := func(ctx context.Context) (int64, error) {
				return raw.Do(ctx, raw.B().Get().Key(sourceKey(k)).Build()).AsInt64()
			}
			for n := 0; !over.Load(); n++ {
				if n%100 == 0 && os.Getenv("SATURATE") == "" {
					time.Sleep(100 * time.Microsecond) // as for a client's next request
				}
				r, err := aside.Lookup(context.Background(), c, items.Key(k), load)
				if err != nil {
					panic(err)
				}
				if r.Tier == aside.TierMemory {
					seen[k][r.Value] = time.Now().UnixNano()
				}
			}
		})
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1))
	over.Store(true)
	wg.Wait()
	out := bufio.NewWriter(os.Stdout)
	for k, versions := range seen {
		for v, at := range versions {
			fmt.Fprintln(out, k, v, at)
		}
	}
	fmt.Fprintln(out, "end")
	out.Flush()
}

const followed = 4

func sourceKey(k int) string { return "source " + strconv.Itoa(k) }

// One process changes values and invalidates them; others read them all the time. What is measured is for how long after
// Invalidate has returned another process's memory has still served the old value.
func TestHowLongAnotherProcessServesWhatIsInvalidated(t *testing.T) {
	t.Parallel()
	for name, env := range map[string][]string{"under load": nil, "all processors saturated": {"SATURATE=1"}} {
		t.Run(name, func(t *testing.T) {
			if len(env) > 0 && !atLength() {
				t.Skip("this one holds up all the other tests: it runs in `make races`")
			}
			measureStaleness(t, env)
		})
	}
}

func measureStaleness(t *testing.T, env []string) {
	server := redistest.Start(t)
	c := connected(t, at(server.Addr()))
	for k := range followed {
		server.MustDo(t, "SET", sourceKey(k), "0")
	}
	followers := make([]*redistest.Subprocess, 2)
	for i := range followers {
		followers[i] = redistest.Spawn(t, "follower", append(env, "ADDR="+server.Addr())...)
		line, err := followers[i].Line()
		require.NoError(t, err)
		require.Equal(t, "ready", line)
	}
	n := rounds(100, 2000)
	returned := make([][]int64, followed) // key -> version -> when its invalidation has returned
	for k := range returned {
		returned[k] = []int64{0}
	}
	for v := 1; v <= n; v++ {
		for k := range followed {
			server.MustDo(t, "SET", sourceKey(k), strconv.Itoa(v))
			receipt, err := c.Invalidate(t.Context(), items.Key(k))
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
	require.Less(t, delays[len(delays)-1], bound, "and then it was not")
}
