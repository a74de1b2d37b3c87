package faults_test

import (
	"context"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// soakLength is how long random faults are caused: three seconds, or what ASIDE_SOAK says.
func soakLength(t *testing.T) time.Duration {
	text := os.Getenv("ASIDE_SOAK")
	if text == "" {
		return 3 * time.Second
	}
	d, err := time.ParseDuration(text)
	require.NoError(t, err)
	return d
}

// pastBound is what no call may take, though its loader takes no time: the limit of the operation, the half second more that
// the first operations of a policy have, and what a busy machine of two processors adds.
const pastBound = 50*time.Millisecond + 500*time.Millisecond + time.Second

// slowest keeps the longest of many durations.
type slowest struct{ d atomic.Int64 }

func (s *slowest) note(d time.Duration) {
	for {
		if old := s.d.Load(); int64(d) <= old || s.d.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

func (s *slowest) get() time.Duration { return time.Duration(s.d.Load()) }

// heap is what is in use after a collection.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A mischief is something that happens to a server or to the way there, and its end.
type mischief struct {
	name  string
	begin func(*testing.T, *redistest.Server, *redistest.Proxy) (end func())
	most  time.Duration // how long it lasts at most
}

var mischiefs = []mischief{
	{"killed", func(_ *testing.T, s *redistest.Server, _ *redistest.Proxy) func() { s.Kill(); return s.Restart }, 200 * time.Millisecond},
	{"hung", func(_ *testing.T, s *redistest.Server, _ *redistest.Proxy) func() { s.Pause(); return s.Resume }, 300 * time.Millisecond},
	{"partition", func(_ *testing.T, _ *redistest.Server, p *redistest.Proxy) func() {
		p.Blackhole(true)
		return func() { p.Blackhole(false) }
	}, 300 * time.Millisecond},
	{"partition of the replies", func(_ *testing.T, _ *redistest.Server, p *redistest.Proxy) func() {
		p.BlackholeReplies(true)
		return func() { p.BlackholeReplies(false) }
	}, 300 * time.Millisecond},
	{"slow", func(_ *testing.T, _ *redistest.Server, p *redistest.Proxy) func() {
		p.SetDelay(100 * time.Millisecond)
		return func() { p.SetDelay(0) }
	}, 300 * time.Millisecond},
	{"cut", func(_ *testing.T, _ *redistest.Server, p *redistest.Proxy) func() {
		p.CloseConnections()
		return func() {}
	}, 1},
	{"clients killed", func(t *testing.T, s *redistest.Server, _ *redistest.Proxy) func() {
		s.MustDo(t, "CLIENT", "KILL", "TYPE", "normal")
		return func() {}
	}, 1},
	{"out of memory", func(t *testing.T, s *redistest.Server, _ *redistest.Proxy) func() {
		s.MustDo(t, "CONFIG", "SET", "maxmemory", "1")
		return func() { s.MustDo(t, "CONFIG", "SET", "maxmemory", "0") }
	}, 200 * time.Millisecond},
	{"flushed", func(t *testing.T, s *redistest.Server, _ *redistest.Proxy) func() {
		s.FlushAll(t)
		return func() {}
	}, 1},
	{"read-only", func(t *testing.T, s *redistest.Server, _ *redistest.Proxy) func() {
		s.MustDo(t, "REPLICAOF", "127.0.0.1", "1")
		return func() { s.MustDo(t, "REPLICAOF", "NO", "ONE") }
	}, 200 * time.Millisecond},
	{"password", func(t *testing.T, s *redistest.Server, _ *redistest.Proxy) func() {
		admin := redistest.Raw(t, s.Addr()) // logged in already: it may take the password away again
		must := func(args ...string) {
			_, err := admin.Do(args...)
			require.NoError(t, err)
		}
		must("CONFIG", "SET", "requirepass", "another")
		must("CLIENT", "KILL", "TYPE", "normal") // those who are logged in stay so
		return func() {
			must("CONFIG", "SET", "requirepass", "")
			admin.Close()
		}
	}, 200 * time.Millisecond},
}

// What this process invalidates it never reads again, whatever happens to Redis meanwhile. Each key has one writer, which
// raises its version, then invalidates it; readers compare. Not in parallel with other tests: it takes all processors, and
// counts goroutines.
func TestRandomFaultsBringNoWrongAnswer(t *testing.T) {
	const keys = 20
	length := soakLength(t)
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("ASIDE_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("ASIDE_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	mischiefs := mischiefs
	if asidetest.InCluster { // which refuses REPLICAOF
		mischiefs = slices.DeleteFunc(slices.Clone(mischiefs), func(m mischief) bool { return m.name == "read-only" })
	}
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	atMost := asidetest.Allowing(t)
	goroutines := runtime.NumGoroutine()
	o := asidetest.Anonymously(proxy.Addr()) // without the password that one of the faults is about
	o.OpTimeout, o.Redis.ConnWriteTimeout, o.Redis.Dialer.KeepAlive = 0, 0, 0
	o.Logger = asidetest.Quiet() // what a logbook keeps would count as memory in use
	c := asidetest.Connected(t, o)
	connections := func() int { return proxy.Connections() }
	const atStart = 1
	asidetest.Eventually(t, "an attempt to connect that has failed is gone", func() bool { return connections() == atStart })

	var versions [keys]struct{ written, invalidated atomic.Int64 }
	var wrong, reads, stale, changes, unconfirmed, late atomic.Int64
	var slowestRead, slowestChange slowest
	timed := func(s *slowest, call func()) {
		began := time.Now()
		call()
		took := time.Since(began)
		if s.note(took); took > pastBound {
			late.Add(1)
		}
	}
	stop := make(chan struct{})
	var busy sync.WaitGroup
	for i := range keys {
		key, v := asidetest.Items.Key(i), &versions[i]
		load := func(context.Context) (int64, error) { return v.written.Load(), nil }
		read := func() {
			least := v.invalidated.Load()
			var r aside.Result[int64]
			var err error
			timed(&slowestRead, func() { r, err = aside.Lookup(t.Context(), c, key, load) })
			if err != nil || r.Value < least {
				wrong.Add(1)
				t.Log(i, r, err, least)
			}
			reads.Add(1)
			if r.Status == aside.StatusStale {
				stale.Add(1)
			}
		}
		for range 2 {
			busy.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(rand.N(2 * time.Millisecond)):
						read()
					}
				}
			})
		}
		busy.Go(func() {
			for n := int64(1); ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(rand.N(2 * time.Millisecond)):
				}
				v.written.Store(n)
				var receipt aside.Receipt
				var err error
				timed(&slowestChange, func() {
					switch n % 8 {
					case 0:
						receipt, err = c.InvalidateCategory(t.Context(), "items")
					default:
						receipt, err = c.Invalidate(t.Context(), key)
					}
				})
				if err != nil {
					wrong.Add(1)
				}
				if v.invalidated.Store(n); !receipt.Confirmed {
					unconfirmed.Add(1)
				}
				changes.Add(1)
				for range 20 {
					read()
				}
			}
		})
	}
	pause := func(most time.Duration) {
		select {
		case <-time.After(rand.N(most)):
		case <-t.Context().Done():
		}
	}
	var heaps []int64
	faults := map[string]int{}
	for began := time.Now(); time.Since(began) < length; {
		m := mischiefs[random.IntN(len(mischiefs))]
		end := m.begin(t, server, proxy)
		pause(m.most)
		end()
		pause(300 * time.Millisecond)
		faults[m.name]++
		proxy.ResetCounts() // it remembers every command
		if int64(len(heaps)) <= int64(10*time.Since(began)/length) {
			heaps = append(heaps, heap())
		}
	}
	asidetest.Eventually(t, "it is back", func() bool { return c.Health().State == aside.StateConnected })
	close(stop)
	busy.Wait()
	t.Logf("%v: %v", length, faults)
	t.Logf("%d reads, %d of them stale ones, %d changes, %d of them not confirmed at once", reads.Load(), stale.Load(), changes.Load(), unconfirmed.Load())
	t.Logf("the slowest read took %v, the slowest change %v; %d took more than %v", slowestRead.get(), slowestChange.get(), late.Load(), pastBound)
	require.Zero(t, wrong.Load())
	require.Positive(t, stale.Load())
	require.Positive(t, unconfirmed.Load())
	require.Less(t, max(slowestRead.get(), slowestChange.get()), atMost(pastBound), "calls past their bound")

	// And one for what carries much, which sweeps bring about.
	asidetest.Eventually(t, "it has as many connections as at the start", func() bool { return connections() <= atStart+1 })
	heaps = append(heaps, heap())
	t.Logf("heap in use, KiB, along the way: %v", inKiB(heaps))
	require.Less(t, heaps[len(heaps)-1], 2*heaps[0]+8<<20, "the heap does not grow")
	require.NoError(t, c.Close())
	asidetest.Eventually(t, "no goroutine is left behind", func() bool { return runtime.NumGoroutine()-1 <= goroutines }) // this one is another
	asidetest.Eventually(t, "nor a connection", func() bool { return connections() == 0 })
	asidetest.Seen(t, 0, "random faults", "no wrong answer, none past its bound, no leak",
		"%d faults in %v, %d reads, %d changes, slowest %v, heap %d to %d KiB, %d connections", sumOf(faults), length, reads.Load(),
		changes.Load(), max(slowestRead.get(), slowestChange.get()).Round(time.Millisecond), heaps[0]>>10, heaps[len(heaps)-1]>>10, atStart)
}

func inKiB(sizes []int64) (kib []int64) {
	for _, n := range sizes {
		kib = append(kib, n>>10)
	}
	return kib
}

func sumOf(counts map[string]int) (sum int) {
	for _, n := range counts {
		sum += n
	}
	return sum
}
