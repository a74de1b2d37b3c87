package aside_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// traffic is what a service does all the time: many callers, a few hundred keys, and a loader that always works.
type traffic struct {
	cache            *aside.Cache
	stop             chan struct{}
	callers          sync.WaitGroup
	calls            atomic.Int64
	running, highest atomic.Int64

	mu     sync.Mutex
	failed []string        // guarded by mu
	took   []time.Duration // guarded by mu
}

func (f *traffic) load(_ context.Context) (string, error) {
	now := f.running.Add(1)
	defer f.running.Add(-1)
	for {
		if high := f.highest.Load(); now <= high || f.highest.CompareAndSwap(high, now) {
			break
		}
	}
	return "v", nil
}

const callersOfAFault = 64

func startTraffic(t *testing.T, c *aside.Cache) *traffic {
	f := &traffic{cache: c, stop: make(chan struct{})}
	for caller := range callersOfAFault {
		f.callers.Go(func() {
			for i := caller; ; i++ {
				select {
				case <-f.stop:
					return
				default:
				}
				began := time.Now()
				v, err := aside.GetOrLoad(t.Context(), c, items.Key(i%500), f.load)
				took := time.Since(began)
				if i%7 == 0 {
					_, _ = c.Invalidate(t.Context(), items.Key(i%500))
				}
				f.calls.Add(1)
				f.mu.Lock()
				if err != nil || v != "v" {
					f.failed = append(f.failed, fmt.Sprint(v, err))
				}
				f.took = append(f.took, took)
				f.mu.Unlock()
			}
		})
	}
	t.Cleanup(f.end)
	return f
}

func (f *traffic) end() {
	select {
	case <-f.stop:
	default:
		close(f.stop)
	}
	f.callers.Wait()
}

// pass waits until so many more calls were answered.
func (f *traffic) pass(t *testing.T, n int64) {
	t.Helper()
	until := f.calls.Load() + n
	eventually(t, "calls are answered", func() bool { return f.calls.Load() >= until })
}

// report ends the traffic, requires that every call was answered, and shows how long they took since the last report.
func (f *traffic) slice() (p50, p99, p999 time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.Sort(f.took)
	at := func(q float64) time.Duration { return f.took[int(q*float64(len(f.took)-1))].Round(time.Microsecond) }
	p50, p99, p999 = at(0.5), at(0.99), at(0.999)
	f.took = nil
	return
}

// A fault is one row of the table of faults: caused for real, under load, and ended again.
type fault struct {
	name       string
	begin, end func(t *testing.T, s *redistest.Server, p *redistest.Proxy)
	degraded   bool // whether Redis is given up
	reason     string
}

// It takes all processors, and what it shows would say little with other tests beside it: so it is not run in parallel.
func TestEveryCallIsAnsweredThroughEachFaultAndOutOfItAgain(t *testing.T) {
	server := func(do func(*redistest.Server)) func(*testing.T, *redistest.Server, *redistest.Proxy) {
		return func(_ *testing.T, s *redistest.Server, _ *redistest.Proxy) { do(s) }
	}
	proxy := func(do func(*redistest.Proxy)) func(*testing.T, *redistest.Server, *redistest.Proxy) {
		return func(_ *testing.T, _ *redistest.Server, p *redistest.Proxy) { do(p) }
	}
	command := func(args ...string) func(*testing.T, *redistest.Server, *redistest.Proxy) {
		return func(t *testing.T, s *redistest.Server, _ *redistest.Proxy) { s.MustDo(t, args...) }
	}
	for _, f := range []fault{
		{"2 killed", server((*redistest.Server).Kill), server((*redistest.Server).Restart), true, ""},
		{"3 hung", server((*redistest.Server).Pause), server((*redistest.Server).Resume), true, ""},
		{"4 partition", proxy(func(p *redistest.Proxy) { p.Blackhole(true) }), proxy(func(p *redistest.Proxy) { p.Blackhole(false) }), true, ""},
		{"4 partition, replies only", proxy(func(p *redistest.Proxy) { p.BlackholeReplies(true) }), proxy(func(p *redistest.Proxy) { p.BlackholeReplies(false) }), true, ""},
		{"5 slow", proxy(func(p *redistest.Proxy) { p.SetDelay(200 * time.Millisecond) }), proxy(func(p *redistest.Proxy) { p.SetDelay(0) }), true, ""},
		{"6 out of memory", command("CONFIG", "SET", "maxmemory", "1"), command("CONFIG", "SET", "maxmemory", "0"), false, ""},
		{"7 read-only", command("REPLICAOF", "127.0.0.1", "1"), command("REPLICAOF", "NO", "ONE"), true, ""},
		{"10 no permission", command("ACL", "SETUSER", "default", "-evalsha", "-eval"), command("ACL", "SETUSER", "default", "+@all"), true, "NOPERM"},
		{"13 flushed", command("FLUSHALL"), command("FLUSHALL"), false, ""},
		{"16 tracking table full", command("CONFIG", "SET", "tracking-table-max-keys", "1"), command("CONFIG", "SET", "tracking-table-max-keys", "1000000"), false, ""},
	} {
		t.Run(f.name, func(t *testing.T) {
			s := redistest.Start(t)
			p := redistest.StartProxy(t, s.Addr())
			o := at(p.Addr())
			o.OpTimeout, o.Redis.ConnWriteTimeout, o.MaxLoads = 0, 0, 8
			o.Logger = new(logbook).logger()
			c := connected(t, o)
			traffic := startTraffic(t, c)
			traffic.pass(t, 2000)
			traffic.slice()
			f.begin(t, s, p)
			if f.degraded {
				eventually(t, "redis is given up", func() bool {
					h := c.Health()
					return h.State == aside.StateDegraded && strings.Contains(h.Reason, f.reason)
				})
			}
			traffic.pass(t, 2000)
			p50, p99, p999 := traffic.slice()
			f.end(t, s, p)
			ended := time.Now()
			eventually(t, "redis is used again", func() bool { return c.Health().State == aside.StateConnected })
			back := time.Since(ended)
			hits := func() uint64 { m := c.Metrics().Labels["items"]; return m.Hits - m.StaleHits }
			before := hits()
			eventually(t, "and hits count again", func() bool { return hits() > before+500 })
			traffic.end()
			require.Empty(t, traffic.failed)
			require.LessOrEqual(t, traffic.highest.Load(), int64(8), "loads at once")
			receipt, err := c.Invalidate(t.Context(), items.Key(1))
			require.NoError(t, err)
			require.NoError(t, receipt.Wait(t.Context()))
			t.Logf("| %s | in the fault p50 %v, p99 %v, p99.9 %v | back after %v | %d calls, 0 failed, %d loads at once |",
				f.name, p50, p99, p999, back.Round(time.Millisecond), traffic.calls.Load(), traffic.highest.Load())
		})
	}
}

// Row 6: without memory for new values Redis is still read, and told of what is invalidated, by key, category and tag.
func TestAServerWithoutMemoryStillForgets(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, other := connected(t, at(server.Addr())), connected(t, at(server.Addr()))
	ctx, tag := t.Context(), aside.WithTags("x")
	for i, invalidate := range []func() (aside.Receipt, error){
		func() (aside.Receipt, error) { return c.Invalidate(ctx, items.Key("0")) },
		func() (aside.Receipt, error) { return c.InvalidateCategory(ctx, "items") },
		func() (aside.Receipt, error) { return c.InvalidateTags(ctx, "x") },
		func() (aside.Receipt, error) { return c.InvalidateAll(ctx) },
	} {
		key := items.Key(strconv.Itoa(i))
		server.MustDo(t, "CONFIG", "SET", "maxmemory", "0")
		inMemory(t, c, key, value("old"), tag)
		inMemory(t, other, key, value("not this one"), tag)
		server.MustDo(t, "CONFIG", "SET", "maxmemory", "1")
		receipt, err := invalidate()
		require.NoError(t, err)
		require.True(t, receipt.Confirmed, "%d", i)
		r, err := aside.Lookup(ctx, c, key, value("new"), tag)
		require.NoError(t, err)
		require.Equal(t, "new", r.Value)
		require.Equal(t, aside.StatusFallback, r.Status)
		require.Equal(t, "redis answered OOM", r.Reason)
		eventually(t, "the other one hears of it", func() bool {
			v, err := aside.GetOrLoad(ctx, other, key, value("new"), tag)
			require.NoError(t, err)
			return v == "new"
		})
	}
	require.Equal(t, aside.StateConnected, c.Health().State)
}

// Promise 3: a server that says nothing any more is noticed within three seconds, though nobody asks it anything.
func TestAServerThatHangsVouchesForNothingAfterThreeSeconds(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	o := at(proxy.Addr())
	o.OpTimeout, o.Redis.ConnWriteTimeout, o.DegradedTTL = 0, 0, -1
	a, b := connected(t, o), connected(t, at(server.Addr()))
	key := items.Key("a")
	inMemory(t, a, key, value("old"))
	proxy.BlackholeReplies(true)
	receipt, err := b.Invalidate(t.Context(), key)
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	began, served := time.Now(), 0
	eventually(t, "the old value is not served any more", func() bool {
		v, err := aside.GetOrLoad(t.Context(), a, key, value("new"))
		require.NoError(t, err)
		if v == "old" {
			served++
		}
		return v == "new"
	})
	took := time.Since(began)
	require.Positive(t, served, "it was served for a while: nobody could tell")
	require.Less(t, took, 3*time.Second)
	t.Logf("served for %v after another process had invalidated it", took.Round(time.Millisecond))
}
