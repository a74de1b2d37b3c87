package faults_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// The rows 11 to 17 of the table of faults: what can be wrong with a value, or be gone.

func TestFault11AValueThatIsNoneOfOurs(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MayDeny() // the sweep looks at the key of a neighbour that begins as ours do
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.Stored(t, c, asidetest.Items.Key("whole"), strings.Repeat("payload ", 20))
	whole := server.MustDo(t, "GET", "items:whole").(string)
	neighbours := map[string][]string{
		"items": {"SET", "items", "of another program"}, "itemsx:a": {"HSET", "itemsx:a", "f", "v"}, "other:a": {"RPUSH", "other:a", "x"},
	}
	dumps := map[string]any{}
	for key, plant := range neighbours {
		server.MustDo(t, plant...)
		dumps[key] = server.MustDo(t, "DUMP", key)
	}
	n := 0
	for name, plant := range map[string][]string{
		"foreign": {"SET", "items:foreign", "somebody else's text"}, "truncated": {"SET", "items:truncated", whole[:len(whole)-1]},
		"list": {"RPUSH", "items:list", "x"}, "hash": {"HSET", "items:hash", "f", "v"}, "moved": {"SET", "items:moved", whole},
	} {
		server.MustDo(t, plant...)
		r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key(name), asidetest.Value("right"))
		require.NoError(t, err)
		require.Equal(t, "right", r.Value, name)
		require.Equal(t, aside.StatusMiss, r.Status, name)
		require.Equal(t, "right", asidetest.InMemory(t, c, asidetest.Items.Key(name), asidetest.Value("once more")), "it was replaced")
		n++
	}
	_, err := c.InvalidateAll(t.Context())
	require.NoError(t, err)
	for key, dump := range dumps {
		require.Equal(t, dump, server.MustDo(t, "DUMP", key), key)
	}
	asidetest.Seen(t, 11, "corrupt, foreign, truncated, WRONGTYPE", "a miss; only keys of our own are overwritten", "%d misses, each replaced by 1 load; %d keys of others as they were", n, len(dumps))
}

// Row 12: two builds whose structs differ, in two processes, for one key.
func TestFault12ValuesOfAnotherBuild(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	type before struct{ Name string }
	type after struct {
		Name  string
		Price int
	}
	older, newer := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	var loads atomic.Int64
	for range 20 {
		v, err := aside.GetOrLoad(t.Context(), older, asidetest.Items.Key("a"), func(context.Context) (before, error) { loads.Add(1); return before{"n"}, nil })
		require.NoError(t, err)
		require.Equal(t, before{"n"}, v)
		w, err := aside.GetOrLoad(t.Context(), newer, asidetest.Items.Key("a"), func(context.Context) (after, error) { loads.Add(1); return after{"n", 1}, nil })
		require.NoError(t, err)
		require.Equal(t, "n", w.Name)
	}
	require.EqualValues(t, 1, loads.Load(), "compatible structs share what either has stored")

	// An envelope of a format that came after this one is left alone: neither build replaces what the other has stored.
	asidetest.Stored(t, older, asidetest.Items.Key("b"), "v")
	changed := func(by int) string {
		text := []byte(server.MustDo(t, "GET", "items:b").(string))
		text[2] += byte(by) // the version
		server.MustDo(t, "SET", "items:b", string(text))
		return string(text)
	}
	theirs := changed(+1)
	for range 20 {
		v, err := aside.GetOrLoad(t.Context(), older, asidetest.Items.Key("b"), asidetest.Value("ours"))
		require.NoError(t, err)
		require.Equal(t, "ours", v)
	}
	asidetest.AllTold(t, older)
	require.Equal(t, theirs, server.MustDo(t, "GET", "items:b"))
	changed(-2) // and one of an older format is a miss, and replaced
	require.Equal(t, "replaced", asidetest.InMemory(t, newer, asidetest.Items.Key("b"), asidetest.Value("replaced")))
	asidetest.Seen(t, 12, "older struct, other envelope", "a miss, or decoded if compatible; no thrashing", "40 reads by two builds, %d load; a newer envelope still there after 20 loads, an older one replaced", loads.Load())
}

func TestFault13Flushed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var fleet []*servant
	for range 4 {
		fleet = append(fleet, startServant(t, server.Addr()))
	}
	const keys = 10
	loads := 0
	for _, flush := range []string{"FLUSHALL", "FLUSHDB"} {
		for k := range keys {
			for _, s := range fleet {
				asidetest.Eventually(t, "it is in memory", func() bool { return s.lookup(strconv.Itoa(k), "before-"+flush).tier == "memory" })
			}
		}
		server.MustDo(t, flush)
		for _, s := range fleet {
			asidetest.Eventually(t, "it is told", func() bool { return s.lookup("canary-of-"+flush, "v").value == "v" })
		}
		var counted atomic.Int64
		for k := range keys {
			var all sync.WaitGroup
			for _, s := range fleet {
				all.Go(func() {
					for deadline := time.Now().Add(asidetest.Bound); ; {
						r := s.lookup(strconv.Itoa(k), "after-"+flush)
						counted.Add(int64(r.loads))
						if r.value == "after-"+flush || time.Now().After(deadline) {
							return
						}
					}
				})
			}
			all.Wait()
		}
		require.EqualValues(t, keys, counted.Load(), "one load of each key, by the whole fleet")
		loads += int(counted.Load())
	}
	asidetest.Seen(t, 13, "FLUSHALL, FLUSHDB", "memory is dropped; one load a key for the fleet", "4 processes, %d keys, 2 flushes: %d loads", keys, loads)
}

// shiftedClock makes what is preloaded into a server whose clock is to be off by some seconds.
const shiftedClock = `
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
int gettimeofday(struct timeval *tv, void *tz) {
	int (*real)(struct timeval *, void *) = dlsym(RTLD_NEXT, "gettimeofday");
	int r = real(tv, tz);
	tv->tv_sec += SHIFT;
	return r;
}
int clock_gettime(clockid_t id, struct timespec *ts) {
	int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
	int r = real(id, ts);
	if (id == CLOCK_REALTIME) ts->tv_sec += SHIFT;
	return r;
}
time_t time(time_t *out) {
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	if (out) *out = ts.tv_sec;
	return ts.tv_sec;
}
`

// Row 14: all times of an entry are the server's, so it is the difference between a process's clock and the server's that
// could do harm: here an hour, either way. The server's clock is set, since a Go program asks the kernel for the time
// without a library in between. Not in parallel: it sets the environment.
func TestFault14ClocksThatAreAnHourApart(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the way to set a server's clock is Linux's")
	}
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler")
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "clock.c"), []byte(shiftedClock), 0o600))
	var told []string
	for _, shift := range []int{-3600, 3600} {
		lib := filepath.Join(dir, fmt.Sprintf("clock%d.so", shift))
		out, err := exec.Command(cc, "-shared", "-fPIC", "-o", lib, fmt.Sprintf("-DSHIFT=(%d)", shift), filepath.Join(dir, "clock.c"), "-ldl").CombinedOutput()
		require.NoError(t, err, string(out))
		t.Setenv("LD_PRELOAD", lib)
		server := redistest.Start(t)
		t.Setenv("LD_PRELOAD", "")
		text := server.MustDo(t, "TIME").([]any)[0].(string)
		seconds, err := strconv.ParseInt(text, 10, 64)
		require.NoError(t, err)
		require.InDelta(t, shift, seconds-time.Now().Unix(), 5, "the server's clock is off")

		a, b := startServant(t, server.Addr()), asidetest.Connected(t, asidetest.At(server.Addr()))
		require.Equal(t, 1, a.lookup("a", "v").loads)
		var r aside.Result[string]
		asidetest.Eventually(t, "it is shared", func() bool {
			r, err = aside.Lookup(t.Context(), b, asidetest.Items.Key("a"), asidetest.Value("v"))
			require.NoError(t, err)
			return r.Status == aside.StatusHit
		})
		require.InDelta(t, time.Hour, r.TTL, float64(time.Minute), "an hour, as the policy says")
		require.InDelta(t, time.Hour, a.lookup("a", "x").ttl, float64(time.Minute))
		short := aside.WithTTL(500 * time.Millisecond)
		began := time.Now()
		require.Equal(t, "old", asidetest.InMemory(t, b, asidetest.Items.Key("short"), asidetest.Value("old"), short))
		asidetest.Eventually(t, "it ends", func() bool {
			v, err := aside.GetOrLoad(t.Context(), b, asidetest.Items.Key("short"), asidetest.Value("new"), short)
			require.NoError(t, err)
			return v == "new"
		})
		require.GreaterOrEqual(t, time.Since(began), 490*time.Millisecond)
		told = append(told, fmt.Sprintf("%+d s: an hour's TTL has %s left, half a second's ends after %s", shift, r.TTL.Round(time.Second), asidetest.Ms(time.Since(began))))
	}
	asidetest.Seen(t, 14, "an hour of clock skew", "freshness does not change", "%s", strings.Join(told, "; "))
}

// evictAll makes the server drop everything that it holds to save memory, and gives it room again.
func evictAll(t *testing.T, server *redistest.Server) {
	t.Helper()
	server.MustDo(t, "CONFIG", "SET", "maxmemory-policy", "allkeys-random")
	server.MustDo(t, "CONFIG", "SET", "maxmemory", "1")
	asidetest.Eventually(t, "all is evicted", func() bool {
		_, _ = server.Do("SET", "nudge", "") // who writes makes it look for room
		return server.MustDo(t, "DBSIZE") == int64(0)
	})
	server.MustDo(t, "CONFIG", "SET", "maxmemory", "0")
}

func TestFault15Evicted(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Pair(t, server.Addr())
	tag := aside.WithTags("x")

	// A value, and the generations of its tags.
	asidetest.InMemory(t, a, asidetest.Items.Key("a"), asidetest.Value("v1"), tag)
	asidetest.InMemory(t, b, asidetest.Items.Key("a"), asidetest.Value("not this one"), tag)
	evictAll(t, server)
	for _, c := range []*aside.Cache{a, b} {
		asidetest.Eventually(t, "it is loaded again", func() bool {
			v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("v2"), tag)
			require.NoError(t, err)
			return v == "v2"
		})
	}
	receipt, err := b.InvalidateTags(t.Context(), "x")
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	v, err := aside.GetOrLoad(t.Context(), a, asidetest.Items.Key("a"), asidetest.Value("v3"), tag, aside.Strong())
	require.NoError(t, err)
	require.Equal(t, "v3", v, "an invalidation after the eviction counts")

	// A lease: of the two loads that then run, the first is not stored.
	load := asidetest.NewHeld()
	first := asidetest.Waiting(t, a, asidetest.Items.Key("b"), load.Load("old"))
	<-load.Began
	require.EqualValues(t, 1, server.MustDo(t, "EXISTS", "{items:b}!l"))
	evictAll(t, server)
	second, err := aside.GetOrLoad(t.Context(), b, asidetest.Items.Key("b"), asidetest.Value("new"))
	require.NoError(t, err)
	require.Equal(t, "new", second, "the other process has taken the lease")
	close(load.Release)
	require.Equal(t, "old", <-first)
	asidetest.Eventually(t, "the late fill is refused", func() bool { return asidetest.Refused(a) == 1 })
	for _, c := range []*aside.Cache{a, b} {
		require.Equal(t, "new", asidetest.InMemory(t, c, asidetest.Items.Key("b"), asidetest.Value("another")))
	}
	asidetest.Seen(t, 15, "a value, a lease, a generation is evicted", "taken again; a late fill is refused; never a stale hit", "evicted for real, %v keys; values loaded anew, %d late fill refused, 0 stale", asidetest.Info(t, server, "evicted_keys"), asidetest.Refused(a))
}

func TestFault16TheTrackingTableOverflows(t *testing.T) {
	t.Parallel()
	const keys = 200
	// measure waits until there were more pushes than so many: the server tells of what it forgets some time later.
	measure := func(most string, than uint64) (hits, ofMemory float64, pushes uint64) {
		server := redistest.Start(t, "--tracking-table-max-keys", most)
		a, b := asidetest.Pair(t, server.Addr())
		for i := range keys {
			asidetest.InMemory(t, a, asidetest.Items.Key(i), asidetest.Value("old"))
		}
		before := a.Metrics().Labels["items"]
		for i := range keys {
			v, err := aside.GetOrLoad(t.Context(), a, asidetest.Items.Key(i), asidetest.Value("not this one"))
			require.NoError(t, err)
			require.Equal(t, "old", v)
		}
		asidetest.Eventually(t, "the metrics say why", func() bool { return a.Metrics().InvalidationMessages > than })
		after := a.Metrics()
		for i := range keys {
			_, err := b.Invalidate(t.Context(), asidetest.Items.Key(i))
			require.NoError(t, err)
			asidetest.Eventually(t, "the other follows", func() bool {
				v, err := aside.GetOrLoad(t.Context(), a, asidetest.Items.Key(i), asidetest.Value("new"))
				require.NoError(t, err)
				return v == "new"
			})
		}
		l := after.Labels["items"]
		return float64(l.Hits-before.Hits) / keys, float64(l.MemoryHits-before.MemoryHits) / keys, after.InvalidationMessages
	}
	_, roomy, few := measure("1000000", 0)
	hits, full, pushes := measure("20", few)
	require.Greater(t, roomy, 0.9)
	require.Less(t, full, 0.5, "the hit rate of memory falls")
	require.Greater(t, hits, 0.9, "Redis has them")
	asidetest.Seen(t, 16, "tracking table overflow", "correct; the hit rate falls, visibly", "%d keys in a table of 20: hits in memory %.0f%% instead of %.0f%%, %d pushes instead of %d, all invalidations heard of", keys, 100*full, 100*roomy, pushes, few)
}

func TestFault17AValueOverTheCap(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.MaxValueBytes = 1 << 20
	c := asidetest.Connected(t, o)
	large := make([]byte, 2<<20)
	for n := range uint64(3) {
		v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("large"), func(context.Context) ([]byte, error) { return large, nil })
		require.NoError(t, err)
		require.Len(t, v, len(large))
		asidetest.Eventually(t, "it is counted", func() bool { return c.Metrics().Labels["items"].EncodeErrors == n+1 })
	}
	require.Zero(t, server.MustDo(t, "EXISTS", "items:large"))
	asidetest.Eventually(t, "the lease is given back", func() bool { return server.MustDo(t, "EXISTS", "{items:large}!l") == int64(0) })
	asidetest.Seen(t, 17, "a value over the cap", "returned, not stored", "2 MiB over a cap of 1 MiB: returned 3 times, counted 3 times, nothing in Redis")
}
