package faults_test

import (
	"context"
	"errors"
	"runtime"
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

// The rows 18 to 28 of the table of faults: what loaders and callers do, and what is to be made up for.

// endedBadly lets a loader end without a value while 16 callers wait for it, and returns what they got, and after how long
// another process could load.
func endedBadly(t *testing.T, end func()) (next time.Duration, failed error) {
	server := redistest.Start(t)
	a, b := asidetest.Pair(t, server.Addr())
	asidetest.InMemory(t, a, asidetest.Items.Key("warm"), asidetest.Value("v"))
	asidetest.InMemory(t, b, asidetest.Items.Key("warm"), asidetest.Value("v"))
	release, began := make(chan struct{}), make(chan struct{})
	var loads atomic.Int64
	load := func(context.Context) (string, error) {
		if loads.Add(1) == 1 {
			close(began)
		}
		<-release
		end()
		return "", nil
	}
	failures := make(chan error, 16)
	ctx := &asidetest.Signalling{Context: t.Context(), Waited: make(chan struct{})}
	for i := range cap(failures) {
		ctx := context.Context(ctx)
		if i > 0 {
			<-began
			ctx = t.Context()
		}
		go func() {
			_, err := aside.GetOrLoad(ctx, a, asidetest.Items.Key("a"), load)
			failures <- err
		}()
	}
	require.EqualValues(t, 1, server.MustDo(t, "EXISTS", "{items:a}!l"))
	other := asidetest.Waiting(t, b, asidetest.Items.Key("a"), asidetest.Value("of the other process"))
	close(release)
	failed = <-failures
	ended := time.Now()
	require.Equal(t, "of the other process", <-other)
	next = time.Since(ended)
	for range cap(failures) - 1 {
		err := <-failures // one that came after the end has loaded, and failed, for itself, or got the other's value
		require.True(t, err == nil || errors.Is(err, failed) || err.Error() == failed.Error(), "%v", err)
	}
	require.Equal(t, "of the other process", asidetest.InMemory(t, a, asidetest.Items.Key("a"), asidetest.Value("again")), "the key works again")
	return next, failed
}

func TestFault18ALoaderThatPanics(t *testing.T) {
	t.Parallel()
	atMost := asidetest.Allowing(t)
	next, err := endedBadly(t, asidetest.Explode)
	require.Contains(t, string(asidetest.RequireCode(t, err, aside.CodeLoaderPanic).Stack), "Explode", "it says where")
	require.Less(t, next, atMost(4*time.Second), "long before the lease would have run out")
	asidetest.Seen(t, 18, "the loader panics", "a typed error with the stack; the lease is free within 100 ms", "16 callers: %q; another process had loaded %s later", aside.CodeLoaderPanic, asidetest.Ms(next))
}

func TestFault19ALoaderThatExits(t *testing.T) {
	t.Parallel()
	atMost := asidetest.Allowing(t)
	next, err := endedBadly(t, runtime.Goexit)
	asidetest.RequireCode(t, err, aside.CodeLoaderExit)
	require.Less(t, next, atMost(4*time.Second), "long before the lease would have run out")
	asidetest.Seen(t, 19, "the loader calls runtime.Goexit", "the same", "16 callers: %q; another process had loaded %s later", aside.CodeLoaderExit, asidetest.Ms(next))
}

func TestFault20TheFirstCallerLeaves(t *testing.T) {
	t.Parallel()
	o := asidetest.At(redistest.Start(t).Addr())
	o.LoadGrace = 100 * time.Millisecond
	c := asidetest.Connected(t, o)
	var ended atomic.Int64
	began, release := make(chan struct{}, 2), make(chan struct{})
	load := func(ctx context.Context) (string, error) {
		began <- struct{}{}
		select {
		case <-ctx.Done():
			ended.Add(1)
			return "", ctx.Err()
		case <-release:
			return "v", nil
		}
	}
	leaving, leave := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { _, err := aside.GetOrLoad(leaving, c, asidetest.Items.Key("a"), load); first <- err }()
	<-began
	second := asidetest.Waiting(t, c, asidetest.Items.Key("a"), load)
	leave()
	require.ErrorIs(t, <-first, context.Canceled)
	require.Zero(t, ended.Load(), "the load goes on")
	release <- struct{}{}
	require.Equal(t, "v", <-second)

	leaving, leave = context.WithCancel(t.Context())
	go func() { _, err := aside.GetOrLoad(leaving, c, asidetest.Items.Key("b"), load); first <- err }()
	<-began
	leave()
	left := time.Now()
	require.ErrorIs(t, <-first, context.Canceled)
	asidetest.Eventually(t, "a load that nobody waits for is cancelled", func() bool { return ended.Load() == 1 })
	took := time.Since(left)
	v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("b"), asidetest.Value("w"))
	require.NoError(t, err)
	require.Equal(t, "w", v)
	asidetest.Seen(t, 20, "the first caller cancels", "the load goes on for others; cancelled with the last, or LoadGrace later", "the second caller got its value; the load of none was cancelled after %s", asidetest.Ms(took))
}

func TestFault21ALoaderSlowerThanItsLease(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.LeaseTTL = 750 * time.Millisecond
	a, b := asidetest.Connected(t, o), asidetest.Connected(t, o)
	renewals, tries := 0, 0
	asidetest.Repeatedly(t, "the lease is renewed in time", func() bool {
		tries++
		key, load := asidetest.Items.Key("a", tries), asidetest.NewHeld()
		lease := func() any { return server.MustDo(t, "GET", "{"+key.String()+"}!l") }
		refused := asidetest.Refused(a)
		first := asidetest.Waiting(t, a, key, load.Load("v"))
		<-load.Began
		began, nonce := time.Now(), lease()
		renewals = asidetest.Commands(t, server, "pexpire")
		asidetest.Eventually(t, "several lives of the lease", func() bool { return time.Since(began) > 3*o.LeaseTTL })
		renewals = asidetest.Commands(t, server, "pexpire") - renewals
		second := asidetest.Waiting(t, b, key, load.Load("v"))
		stands := nonce != nil && nonce == lease()
		close(load.Release)
		require.Equal(t, "v", <-first)
		require.Equal(t, "v", <-second)
		if stands {
			require.EqualValues(t, 1, load.Loads.Load())
			require.Equal(t, refused, asidetest.Refused(a))
		}
		return stands
	})

	// A process that is stopped for longer than its lease cannot renew it.
	held, refused := asidetest.NewHeld(), asidetest.Refused(a)
	first := asidetest.Waiting(t, a, asidetest.Items.Key("b"), held.Load("late"))
	<-held.Began
	server.MustDo(t, "DEL", "{items:b}!l")
	asidetest.Stored(t, b, asidetest.Items.Key("b"), "next")
	close(held.Release)
	require.Equal(t, "late", <-first)
	asidetest.Eventually(t, "its late fill is refused", func() bool { return asidetest.Refused(a) == refused+1 })
	require.Equal(t, "next", asidetest.InMemory(t, a, asidetest.Items.Key("b"), asidetest.Value("another")))
	asidetest.Seen(t, 21, "a load slower than its lease", "renewed, or its late fill refused", "a lease of %v renewed %d times, 1 load for two processes; once lost, %d fill refused", o.LeaseTTL, renewals, asidetest.Refused(a)-refused)
}

func TestFault22InvalidatedDuringALoad(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, other := asidetest.Connected(t, asidetest.At(server.Addr())), startServant(t, server.Addr())
	load := asidetest.NewHeld()
	first := asidetest.Waiting(t, a, asidetest.Items.Key("a"), load.Load("old"))
	<-load.Began
	require.True(t, other.invalidate("a"))
	close(load.Release)
	require.Equal(t, "old", <-first)
	asidetest.Eventually(t, "the fill is refused", func() bool { return asidetest.Refused(a) == 1 })
	require.EqualValues(t, 0, server.MustDo(t, "EXISTS", "items:a"))
	require.Equal(t, "new", other.lookup("a", "new").value)
	require.Equal(t, "new", asidetest.InMemory(t, a, asidetest.Items.Key("a"), asidetest.Value("new")))
	asidetest.Seen(t, 22, "invalidated during a load", "the fill is refused everywhere; later reads load again", "by another process: %d fill refused, both processes then read the new value", asidetest.Refused(a))
}

func TestFault23AProcessDiesWithItsLease(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	holder := redistest.Spawn(t, "holder", "ADDR="+server.Addr())
	line, err := holder.Line()
	require.NoError(t, err)
	require.Equal(t, "loading", line)
	w := asidetest.Watch(t, server)
	other := asidetest.Waiting(t, w.Cache, asidetest.Items.Key("held"), asidetest.Value("of the survivor"))
	w.Proxy.Await(t, "it has asked for the lease", func() bool { return len(w.Asked("EVALSHA")) > 0 })
	require.EqualValues(t, 1, server.MustDo(t, "EXISTS", "{items:held}!l"))
	holder.Kill()
	killed, atMost := time.Now(), asidetest.Allowing(t)
	require.Equal(t, "of the survivor", <-other)
	took := time.Since(killed)
	require.Less(t, took, atMost(5*time.Second+2*time.Second), "the lease, and what a busy machine adds")
	asidetest.Seen(t, 23, "a process dies with its lease", "others go on within the lease's life, 5 s", "killed; the other process loaded %s later", asidetest.Ms(took))
}

func TestFault24InvalidatedWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	proxy := redistest.StartProxy(t, server.Addr())
	c, other := asidetest.Connected(t, asidetest.At(proxy.Addr())), startServant(t, server.Addr())
	const keys = 300
	for i := range keys {
		asidetest.Stored(t, c, asidetest.Items.Key(i), "old")
	}
	_, err := c.Invalidate(t.Context(), asidetest.Items.Key("shown"))
	require.NoError(t, err)
	var removal string // the script's name
	for _, args := range proxy.Log() {
		if asidetest.Evalsha(args, "items:shown") {
			removal = args[1]
		}
	}
	server.Kill()
	asidetest.Eventually(t, "the loss is noticed", func() bool { return c.Health().State == aside.StateDegraded })
	var receipts []aside.Receipt
	for range 3 { // the last one of each key counts
		for i := range keys {
			receipt, err := c.Invalidate(t.Context(), asidetest.Items.Key(i))
			require.NoError(t, err)
			require.False(t, receipt.Confirmed)
			receipts = append(receipts, receipt)
		}
	}
	proxy.Refuse(true)
	server.Restart()
	require.EqualValues(t, 1, server.MustDo(t, "EXISTS", asidetest.Items.Key(keys-1).String()), "the server has the old value still")
	proxy.ResetCounts()
	proxy.Refuse(false)
	hits := 0
	asidetest.Eventually(t, "all is cached anew", func() bool {
		hits = 0
		for i := range keys {
			r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key(i), asidetest.Value("new"))
			require.NoError(t, err)
			require.Equal(t, "new", r.Value)
			if r.Status == aside.StatusHit {
				hits++
			}
		}
		return hits == keys
	})
	for _, receipt := range receipts {
		require.NoError(t, receipt.Wait(t.Context()))
	}
	sent := map[string]int{}
	for _, args := range proxy.Log() {
		if args[0] == "EVALSHA" && args[1] == removal {
			sent[args[3]]++
		}
	}
	for i := range keys {
		require.LessOrEqual(t, sent[asidetest.Items.Key(i).String()], 2, "once, and once more in doubt")
		require.Positive(t, sent[asidetest.Items.Key(i).String()])
	}
	require.Equal(t, "new", other.lookup("7", "new").value, "the other process follows")
	asidetest.Seen(t, 24, "invalidated while Redis is away", "queued, the last of each key; replayed before Redis is trusted; unconfirmed until then",
		"%d invalidations of %d keys, all unconfirmed; %d keys sent once it was back, 0 old values read, all receipts confirmed", len(receipts), keys, len(sent))
}

func TestFault25Recovery(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.MaxLoads, o.MaxQueuedLoads = 4, 100
	c, other := asidetest.Connected(t, o), asidetest.Connected(t, asidetest.At(server.Addr()))
	server.Kill()
	asidetest.Eventually(t, "the loss is noticed", func() bool { return c.Health().State == aside.StateDegraded })
	const keys = 300
	for i := range keys {
		v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key(i), asidetest.Value("of the outage"))
		require.NoError(t, err)
		require.Equal(t, "of the outage", v)
	}
	server.Restart()
	asidetest.Eventually(t, "both are back", func() bool {
		return c.Health().State == aside.StateConnected && other.Health().State == aside.StateConnected
	})
	for i := range keys { // meanwhile the source has changed, and another process says so
		if i%2 == 0 {
			asidetest.Stored(t, other, asidetest.Items.Key(i), "newer")
		}
	}
	var loads, running, most atomic.Int64
	load := func(context.Context) (string, error) {
		loads.Add(1)
		defer running.Add(-1)
		for now, high := running.Add(1), most.Load(); now > high && !most.CompareAndSwap(high, now); high = most.Load() {
		}
		time.Sleep(time.Millisecond) // the load
		return "newer", nil
	}
	var callers sync.WaitGroup
	var wrong atomic.Int64
	for caller := range 64 {
		callers.Go(func() {
			for i := range keys {
				r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key((i+caller)%keys), load)
				if err != nil || r.Value != "newer" && r.Status != aside.StatusStale { // stale, if the machine is so busy that the connection is lost again
					wrong.Add(1)
				}
			}
		})
	}
	callers.Wait()
	require.Zero(t, wrong.Load(), "no entry of the outage is served as if Redis had vouched for it")
	require.LessOrEqual(t, most.Load(), int64(4))
	require.LessOrEqual(t, loads.Load(), int64(keys))
	asidetest.Seen(t, 25, "recovery", "entries of the outage are revalidated or dropped; no stampede", "64 callers, %d keys of the outage: %d loads, %d at once with MaxLoads 4; 0 entries of the outage served", keys, loads.Load(), most.Load())
}

func TestFault26TheSourceIsDownToo(t *testing.T) {
	t.Parallel()
	asidetest.Repeatedly(t, "a caller comes within the budget", func() bool { return isStaleAndThenAnError(t) })
}

// isStaleAndThenAnError reports whether the machine was fast enough for a stale answer.
func isStaleAndThenAnError(t *testing.T) bool {
	const life = 500 * time.Millisecond
	p := aside.Policy{Name: "short", Category: "short", TTL: time.Hour, DegradedTTL: life}
	c := asidetest.Away(t, aside.Options{}, func(c *aside.Cache) { asidetest.InMemory(t, c, p.Key("a"), asidetest.Value("before")) })
	loader := func(context.Context) (string, error) { return "", asidetest.ErrLoader }
	stale := 0
	lost := time.Now()
	asidetest.Eventually(t, "its budget is spent", func() bool {
		r, err := aside.Lookup(t.Context(), c, p.Key("a"), loader)
		if err != nil {
			require.ErrorIs(t, err, asidetest.ErrLoader)
			return true
		}
		require.Equal(t, aside.StatusStale, r.Status)
		require.Equal(t, "before", r.Value)
		stale++
		return false
	})
	took := time.Since(lost)
	_, err := aside.GetOrLoad(t.Context(), c, p.Key("never cached"), loader)
	require.ErrorIs(t, err, asidetest.ErrLoader)
	if stale == 0 {
		return false
	}
	asidetest.Seen(t, 26, "Redis and the source are down", "stale within its budget, marked so; else the loader's error", "%d times stale, for %s with DegradedTTL %v; then the loader's own error", stale, asidetest.Ms(took), life)
	return true
}

func TestFault27AFloodOfKeysThatDoNotExist(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.MaxEntries, o.NegativeTTL = 500, 10*time.Minute
	c := asidetest.Connected(t, o)
	absent := func(context.Context) (string, error) { return "", aside.ErrNotFound }
	const keys = 5000
	flood := func(from int) {
		var callers sync.WaitGroup
		for caller := range 16 {
			callers.Go(func() {
				for i := from + caller; i < from+keys; i += 16 {
					if _, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("absent", i), absent); !errors.Is(err, aside.ErrNotFound) {
						t.Error(err)
					}
				}
			})
		}
		callers.Wait()
	}
	flood(0)
	key := asidetest.Items.Key("absent", keys-1)
	asidetest.Eventually(t, "it is cached", func() bool { return server.MustDo(t, "EXISTS", key.String()) == int64(1) })
	left := server.MustDo(t, "TTL", key.String()).(int64)
	require.LessOrEqual(t, left, int64(600))
	require.Greater(t, left, int64(300), "its own TTL, not the hour of the policy")
	size, err := strconv.Atoi(asidetest.Info(t, server, "used_memory"))
	require.NoError(t, err)
	var inMemory uint64
	var after aside.LabelMetrics
	asidetest.Repeatedly(t, "nothing is loaded again", func() bool { // once all is stored, which is in the background
		before := c.Metrics().Labels["items"]
		for i := range keys { // what memory has kept of them is no more than its bound
			_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("absent", i), absent)
			require.ErrorIs(t, err, aside.ErrNotFound)
		}
		after = c.Metrics().Labels["items"]
		inMemory = after.MemoryHits - before.MemoryHits
		require.LessOrEqual(t, inMemory, uint64(2*o.MaxEntries), "they come and go while they are read")
		return before.Loads == after.Loads
	})
	asidetest.Seen(t, 27, "a flood of keys that do not exist", "negative entries, their own TTL, bounded memory", "%d keys: %d loads, TTL %d s left of 600, %d of them in memory with MaxEntries %d, %d KiB in Redis in all", keys, after.Loads, left, inMemory, o.MaxEntries, size>>10)
}

func TestFault28ReentrantCallsAndClose(t *testing.T) {
	t.Parallel()
	c := asidetest.Connected(t, asidetest.At(redistest.Start(t).Addr()))
	_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), func(ctx context.Context) (string, error) {
		return aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), asidetest.Value("v"))
	})
	asidetest.RequireCode(t, err, aside.CodeReentrant)
	v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), func(ctx context.Context) (string, error) {
		inner, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("b"), asidetest.Value("inner"))
		if err == nil {
			_, err = c.Invalidate(ctx, asidetest.Items.Key("a"), asidetest.Items.Key("b"))
		}
		return "of " + inner, err
	})
	require.NoError(t, err)
	require.Equal(t, "of inner", v)

	began := make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("c"), func(ctx context.Context) (string, error) {
			close(began)
			<-ctx.Done()
			return "", ctx.Err()
		})
		failed <- err
	}()
	<-began
	atMost, closing := asidetest.Allowing(t), time.Now()
	var twice sync.WaitGroup
	for range 2 {
		twice.Go(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	twice.Wait()
	took := time.Since(closing)
	require.ErrorIs(t, <-failed, aside.ErrClosed)
	require.NoError(t, c.Close())
	require.Less(t, took, atMost(5*time.Second))
	asidetest.Seen(t, 28, "re-entrant calls, Close during a load, twice", "no deadlock, no leak", "its own key: %q; another key and Invalidate from a loader work; closed in %s, the waiting caller got ErrClosed (goleak looks at the end)", aside.CodeReentrant, asidetest.Ms(took))
}
