package faults_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/bits"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
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

// measuring is whether figures count: then the faults last longer, with the processors to themselves.
func measuring() bool { return os.Getenv("ASIDE_FAULTS") == "measure" }

// A histogram counts durations, to six hundredths of their size.
type histogram struct{ buckets [61 * 16]atomic.Uint64 }

func (h *histogram) note(d time.Duration) {
	n := uint64(max(d, 16))
	exp := bits.Len64(n) - 5 // of the lowest of five bits
	h.buckets[exp*16+int(n>>exp)&15].Add(1)
}

// quantile returns a bound of that share of what was noted in hs, and how much that was.
func quantile(q float64, hs ...*histogram) (bound time.Duration, count uint64) {
	var sums [61 * 16]uint64
	for _, h := range hs {
		for i := range h.buckets {
			n := h.buckets[i].Load()
			sums[i] += n
			count += n
		}
	}
	rest := uint64(q * float64(count))
	for i, n := range sums {
		if rest < n {
			return time.Duration(uint64(17+i%16) << (i / 16)), count
		}
		rest -= n
	}
	return 0, count
}

// The phases of a fault. A call belongs to the one that it began in.
const (
	before = iota
	unnoticed
	noticed
	ended
	phases
)

// traffic is what a service does all the time: many callers, a few hundred keys, some invalidations, and a loader that always
// works and takes no time, so that what a call takes is what the cache adds.
type traffic struct {
	cache            *aside.Cache
	stop             chan struct{}
	callers          sync.WaitGroup
	phase            atomic.Int32
	running, highest atomic.Int64
	took             [callersOfAFault][phases]histogram

	mu     sync.Mutex
	failed []string // guarded by mu
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

// call is one call that a caller wants to make now. One in fifty is followed by an invalidation.
func (f *traffic) call(ctx context.Context, caller int, now time.Time) {
	phase, key := f.phase.Load(), asidetest.Items.Key(rand.IntN(500))
	v, err := aside.GetOrLoad(ctx, f.cache, key, f.load)
	f.took[caller][phase].note(time.Since(now))
	if err != nil || v != "v" {
		f.mu.Lock()
		f.failed = append(f.failed, fmt.Sprint(v, err))
		f.mu.Unlock()
	}
	if rand.IntN(50) == 0 {
		_, _ = f.cache.Invalidate(ctx, key)
	}
}

// atFullSpeed lets each caller make the next call when it has the answer to the last one.
func (f *traffic) atFullSpeed(t *testing.T) {
	for caller := range callersOfAFault {
		f.callers.Go(func() {
			for !f.over() {
				f.call(t.Context(), caller, time.Now())
			}
		})
	}
}

// atAPace makes 6,400 calls a second, whether or not those before have been answered: a caller that is held up holds up no
// other, and hides none of those that would have come meanwhile.
func (f *traffic) atAPace(t *testing.T) {
	const pause = 10 * time.Millisecond / callersOfAFault
	f.callers.Go(func() {
		calls := 0
		for due := time.Now(); !f.over(); time.Sleep(time.Millisecond) {
			for now := time.Now(); due.Before(now); due = due.Add(pause) {
				calls++
				caller := calls % callersOfAFault
				f.callers.Go(func() { f.call(t.Context(), caller, now) })
			}
		}
	})
}

func (f *traffic) over() bool {
	select {
	case <-f.stop:
		return true
	default:
		return false
	}
}

func (f *traffic) end() {
	if !f.over() {
		close(f.stop)
	}
	f.callers.Wait()
}

func (f *traffic) in(phase int) (hs []*histogram) {
	for caller := range f.took {
		hs = append(hs, &f.took[caller][phase])
	}
	return hs
}

func (f *traffic) calls() (sum uint64) {
	for phase := range phases {
		_, n := quantile(0, f.in(phase)...)
		sum += n
	}
	return sum
}

// speed is how many calls are answered in a tenth of a second.
func (f *traffic) speed() uint64 {
	was, began := f.calls(), time.Now()
	time.Sleep(100 * time.Millisecond) // what is measured
	return uint64(float64(f.calls()-was) * 0.1 / time.Since(began).Seconds())
}

// latency shows the tail of what calls of a phase took.
func (f *traffic) latency(phase int) string {
	p99, n := quantile(0.99, f.in(phase)...)
	p999, _ := quantile(0.999, f.in(phase)...)
	if n == 0 {
		return "-"
	}
	return fmt.Sprintf("%s/%s", asidetest.Ms(p99), asidetest.Ms(p999))
}

// A fault is one row of the table of faults: caused for real, under load, and ended again.
type fault struct {
	row        int
	name       string
	begin, end func(t *testing.T, s *redistest.Server, p *redistest.Proxy)
	degraded   bool // whether Redis is given up
	reason     string
	args       []string // of the server
}

func faultsUnderLoad() []fault {
	server := func(do func(*redistest.Server)) func(*testing.T, *redistest.Server, *redistest.Proxy) {
		return func(_ *testing.T, s *redistest.Server, _ *redistest.Proxy) { do(s) }
	}
	proxy := func(do func(*redistest.Proxy)) func(*testing.T, *redistest.Server, *redistest.Proxy) {
		return func(_ *testing.T, _ *redistest.Server, p *redistest.Proxy) { do(p) }
	}
	command := func(args ...string) func(*testing.T, *redistest.Server, *redistest.Proxy) {
		return func(t *testing.T, s *redistest.Server, _ *redistest.Proxy) { s.MustDo(t, args...) }
	}
	user := "default"
	if asidetest.AsUser {
		user = redistest.User[0]
	}
	nothing := server(func(*redistest.Server) {})
	list := []fault{
		{2, "killed", server((*redistest.Server).Kill), server((*redistest.Server).Restart), true, "", nil},
		{3, "hung", server((*redistest.Server).Pause), server((*redistest.Server).Resume), true, "", nil},
		{4, "partition", proxy(func(p *redistest.Proxy) { p.Blackhole(true) }), proxy(func(p *redistest.Proxy) { p.Blackhole(false) }), true, "", nil},
		{4, "partition of the replies", proxy(func(p *redistest.Proxy) { p.BlackholeReplies(true) }), proxy(func(p *redistest.Proxy) { p.BlackholeReplies(false) }), true, "", nil},
		{5, "slow, 200 ms a reply", proxy(func(p *redistest.Proxy) { p.SetDelay(100 * time.Millisecond) }), proxy(func(p *redistest.Proxy) { p.SetDelay(0) }), true, "", nil},
		{6, "out of memory", command("CONFIG", "SET", "maxmemory", "1"), command("CONFIG", "SET", "maxmemory", "0"), false, "", nil},
		{7, "READONLY", command("REPLICAOF", "127.0.0.1", "1"), command("REPLICAOF", "NO", "ONE"), true, "READONLY", nil},
		{7, "MASTERDOWN", command("REPLICAOF", "127.0.0.1", "1"), command("REPLICAOF", "NO", "ONE"), true, "", []string{"--replica-serve-stale-data", "no"}},
		{10, "NOPERM", command("ACL", "SETUSER", user, "-evalsha", "-eval"), command("ACL", "SETUSER", user, "+evalsha", "+eval"), true, "NOPERM", nil},
		{13, "flushed", command("FLUSHALL"), command("FLUSHALL"), false, "", nil},
		{16, "tracking table full", command("CONFIG", "SET", "tracking-table-max-keys", "1"), command("CONFIG", "SET", "tracking-table-max-keys", "1000000"), false, "", nil},
		{0, "clients killed", command("CLIENT", "KILL", "TYPE", "normal"), nothing, false, "", nil},
	}
	if asidetest.InCluster { // which refuses REPLICAOF
		list = slices.DeleteFunc(list, func(f fault) bool { return f.row == 7 })
	}
	return list
}

// A noticing writer is told when Redis is given up: the state is logged as soon as it changes.
type noticing struct{ traffic *atomic.Pointer[traffic] }

func (n noticing) Write(line []byte) (int, error) {
	if f := n.traffic.Load(); f != nil && bytes.Contains(line, []byte("redis unavailable")) {
		f.phase.CompareAndSwap(unnoticed, noticed)
	}
	return len(line), nil
}

// through drives traffic through a fault and out of it again.
func (f fault) through(t *testing.T, drive func(*traffic, *testing.T)) (trafficSeen *traffic, back, fast time.Duration) {
	const maxLoads = 8
	length := 200 * time.Millisecond
	if measuring() {
		length = time.Second
	}
	s := redistest.Start(t, f.args...)
	if f.reason == "NOPERM" {
		s.MayDeny()
	}
	p := redistest.StartProxy(t, s.Addr())
	var driven atomic.Pointer[traffic]
	o := atOnce(p.Addr())
	o.MaxLoads, o.MaxQueuedLoads = maxLoads, callersOfAFault
	o.LeaseTTL = time.Minute // nobody is to wait until one runs out
	o.Logger = slog.New(slog.NewTextHandler(noticing{&driven}, nil))
	c := asidetest.Connected(t, o)
	traffic := &traffic{cache: c, stop: make(chan struct{})}
	driven.Store(traffic)
	t.Cleanup(traffic.end)
	drive(traffic, t)
	hits := func() uint64 { m := c.Metrics().Labels["items"]; return m.Hits - m.StaleHits }
	asidetest.Eventually(t, "hits count", func() bool { return hits() > 2000 })
	var speeds []uint64
	for range max(3, int(length/(100*time.Millisecond))) {
		speeds = append(speeds, traffic.speed())
	}
	slices.Sort(speeds)
	p.ResetCounts() // it remembers every command

	traffic.phase.Store(unnoticed)
	f.begin(t, s, p)
	if f.degraded {
		asidetest.Eventually(t, "redis is given up", func() bool {
			h := c.Health()
			return h.State == aside.StateDegraded && strings.Contains(h.Reason, f.reason)
		})
	}
	during := traffic.calls()
	time.Sleep(length) // the fault lasts
	asidetest.Eventually(t, "calls are answered", func() bool { return traffic.calls() > during+1000 })
	f.end(t, s, p)
	traffic.phase.Store(ended)
	over := time.Now()
	asidetest.Eventually(t, "redis is used again", func() bool { return c.Health().State == aside.StateConnected })
	back = time.Since(over)
	for traffic.speed() < speeds[len(speeds)/2]*8/10 && time.Since(over) < asidetest.Bound {
	}
	fast = time.Since(over)
	if measuring() {
		require.Less(t, fast, 5*time.Second, "full speed again")
	}
	was := hits()
	asidetest.Eventually(t, "and hits count again", func() bool { return hits() > was+500 })
	traffic.end()
	require.Empty(t, traffic.failed)
	require.LessOrEqual(t, traffic.highest.Load(), int64(maxLoads), "loads at once")
	receipt, err := c.Invalidate(t.Context(), asidetest.Items.Key(1))
	require.NoError(t, err)
	require.NoError(t, receipt.Wait(t.Context()))
	return traffic, back, fast
}

// It takes all processors, and what it shows would say little with other tests beside it: so it is not run in parallel.
func TestEveryCallIsAnsweredThroughEachFaultAndOutOfItAgain(t *testing.T) {
	for _, f := range faultsUnderLoad() {
		t.Run(fmt.Sprint(f.row, " ", f.name), func(t *testing.T) {
			traffic, back, fast := f.through(t, (*traffic).atFullSpeed)
			asidetest.Seen(t, f.row, f.name+", 64 callers at full speed", "every call answered; MaxLoads 8; full speed within 5 s",
				"%d calls, 0 failed, %d loads at once; connected %s, 80%% of the speed %s after the end; p99/p99.9 before %s, until noticed %s, then %s",
				traffic.calls(), traffic.highest.Load(), asidetest.Ms(back), asidetest.Ms(fast), traffic.latency(before), traffic.latency(unnoticed), traffic.latency(noticed))
		})
	}
}

// What callers wait for, from the moment of a fault until Redis is given up, and from then on. Its figures would mean
// nothing on a busy machine: it is run by make faults.
func TestHowLongCallsTakeInAFault(t *testing.T) {
	if !measuring() {
		t.Skip("this one only measures: it runs in `make faults`")
	}
	t.Run("no fault", func(t *testing.T) { // how long callers queue for the processors
		traffic := &traffic{cache: asidetest.NewCache(t, aside.Options{}), stop: make(chan struct{})}
		t.Cleanup(traffic.end)
		traffic.atFullSpeed(t)
		time.Sleep(2 * time.Second) // what is measured
		traffic.end()
		asidetest.Seen(t, 0, "no fault and no Redis, 64 callers at full speed", "what callers add to each other's latency", "p99/p99.9 %s on %d processors; %d calls", traffic.latency(before), runtime.GOMAXPROCS(0), traffic.calls())
	})
	expected := map[int]string{2: "p99 at most 5 ms throughout", 3: "p99 60 ms, p99.9 100 ms until noticed, then 1 ms", 4: "p99 60 ms, p99.9 100 ms until noticed, then 1 ms"}
	for _, f := range faultsUnderLoad() {
		if expected[f.row] == "" {
			continue
		}
		t.Run(fmt.Sprint(f.row, " ", f.name), func(t *testing.T) {
			traffic, back, _ := f.through(t, (*traffic).atAPace)
			asidetest.Seen(t, f.row, f.name+", 6,400 calls a second", expected[f.row], "p99/p99.9 before %s, until noticed %s, then %s, afterwards %s; %d calls; connected %s after the end",
				traffic.latency(before), traffic.latency(unnoticed), traffic.latency(noticed), traffic.latency(ended), traffic.calls(), asidetest.Ms(back))
		})
	}
}

// Row 6: without memory for new values Redis is still read, and told of what is invalidated, by key, category and tag.
func TestAServerWithoutMemoryStillForgets(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, other := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	ctx, tag := t.Context(), aside.WithTags("x")
	for i, invalidate := range []func() (aside.Receipt, error){
		func() (aside.Receipt, error) { return c.Invalidate(ctx, asidetest.Items.Key("0")) },
		func() (aside.Receipt, error) { return c.InvalidateCategory(ctx, "items") },
		func() (aside.Receipt, error) { return c.InvalidateTags(ctx, "x") },
		func() (aside.Receipt, error) { return c.InvalidateAll(ctx) },
	} {
		key := asidetest.Items.Key(strconv.Itoa(i))
		server.MustDo(t, "CONFIG", "SET", "maxmemory", "0")
		asidetest.InMemory(t, c, key, asidetest.Value("old"), tag)
		asidetest.InMemory(t, other, key, asidetest.Value("not this one"), tag)
		server.MustDo(t, "CONFIG", "SET", "maxmemory", "1")
		receipt, err := invalidate()
		require.NoError(t, err)
		require.True(t, receipt.Confirmed, "%d", i)
		r, err := aside.Lookup(ctx, c, key, asidetest.Value("new"), tag)
		require.NoError(t, err)
		require.Equal(t, "new", r.Value)
		require.Equal(t, aside.StatusFallback, r.Status)
		require.Contains(t, r.Reason, "redis answered OOM")
		asidetest.Eventually(t, "the other one hears of it", func() bool {
			v, err := aside.GetOrLoad(ctx, other, key, asidetest.Value("new"), tag)
			require.NoError(t, err)
			return v == "new"
		})
	}
	require.Equal(t, aside.StateConnected, c.Health().State)
}

// Promise 3: a server that says nothing any more is noticed within three seconds, though nobody asks it anything.
func TestAServerThatHangsVouchesForNothingAfterThreeSeconds(t *testing.T) {
	t.Parallel()
	asidetest.Repeatedly(t, "a caller comes before it is noticed", func() bool { return vouchesForNothing(t) })
}

// vouchesForNothing reports whether the machine was fast enough for a caller to get the old value at first: nobody could tell.
func vouchesForNothing(t *testing.T) bool {
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	o := asidetest.At(proxy.Addr())
	o.OpTimeout, o.Redis.ConnWriteTimeout, o.Redis.Dialer.KeepAlive, o.DegradedTTL = 0, 0, 0, -1
	a, b := asidetest.Connected(t, o), asidetest.Connected(t, asidetest.At(server.Addr()))
	key := asidetest.Items.Key("a")
	asidetest.InMemory(t, a, key, asidetest.Value("old"))
	proxy.BlackholeReplies(true)
	receipt, err := b.Invalidate(t.Context(), key)
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	began, served, atMost := time.Now(), 0, asidetest.Allowing(t)
	asidetest.Eventually(t, "the old value is not served any more", func() bool {
		v, err := aside.GetOrLoad(t.Context(), a, key, asidetest.Value("new"))
		require.NoError(t, err)
		if v == "old" {
			served++
		}
		return v == "new"
	})
	took := time.Since(began)
	require.Less(t, took, atMost(3*time.Second))
	t.Logf("served for %v after another process had invalidated it", took.Round(time.Millisecond))
	return served > 0
}
