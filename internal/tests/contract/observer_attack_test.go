package contract_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// An Observer must not end its goroutine. If it does so in the background, what was to be done there is tried again.
func TestAnObserverThatEndsTheGoroutineEndsNoBackgroundWork(t *testing.T) {
	t.Parallel()
	for _, at := range []struct {
		name  string
		kind  aside.OpKind
		begin bool
	}{{"Begin of a replay", aside.OpReplay, true}, {"End of a replay", aside.OpReplay, false}, {"Begin of a sweep", aside.OpSweep, true}, {"End of a sweep", aside.OpSweep, false}} {
		t.Run(at.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			var mu sync.Mutex
			left := 3
			end := func(op aside.Op, begin bool) {
				mu.Lock()
				defer mu.Unlock()
				if op.Kind == at.kind && begin == at.begin && left > 0 {
					left--
					runtime.Goexit()
				}
			}
			o := asidetest.At(server.Addr())
			o.Observer = aside.Observer{
				Begin: func(ctx context.Context, op aside.Op) context.Context { end(op, true); return ctx },
				End:   func(_ context.Context, op aside.Op, _ aside.End) { end(op, false) },
			}
			c := asidetest.Connected(t, o)
			asidetest.Eventually(t, "everything is done, in spite of three attempts", func() bool {
				asidetest.Stored(t, c, watched.Key("a"), "v", aside.WithTags("x"))
				receipt, err := c.InvalidateTags(t.Context(), "x")
				require.NoError(t, err)
				_, err = receipt.WaitCleanup(t.Context())
				require.NoError(t, err)
				receipt, err = c.InvalidatePattern(t.Context(), watched.Match(aside.Wildcard))
				require.NoError(t, err)
				require.NoError(t, receipt.Wait(t.Context()))
				mu.Lock()
				defer mu.Unlock()
				return left == 0
			})
			require.NoError(t, c.Close())
		})
	}
}

// A key of a batch that waits, and gets an old value of memory in the end, is part of the batch: it is no hit in memory beside it.
func TestAKeyOfABatchThatWaitsIsToldOnce(t *testing.T) {
	t.Parallel()
	p := watched
	p.TTL, p.StaleIfError, p.SoftTimeout = time.Minute, time.Hour, time.Second
	observedBubble(t, aside.Options{Observer: aside.Observer{MemoryHits: 1}}, func(t *testing.T, c *aside.Cache, seen *asidetest.Observers) {
		get(t, c, p.Key("a"), asidetest.Value("v"))
		time.Sleep(time.Minute)
		seen.Reset(t)
		many, err := aside.GetOrLoadMany(t.Context(), c, []string{"a"}, func(id string) aside.Key { return p.Key(id) }, func(ctx context.Context, _ []string) (map[string]string, error) {
			time.Sleep(3 * time.Second)
			return nil, errors.New("boom")
		})
		require.NoError(t, err)
		require.Equal(t, map[string]string{"a": "v"}, many)
		synctest.Wait()
		time.Sleep(time.Minute)
		require.Len(t, seen.All(aside.OpBatch), 1)
		require.Empty(t, seen.All(aside.OpCall))
		require.EqualValues(t, 2, c.Metrics().Labels["watched-label"].CallTimes.Count)
	})
}

// Get is a call too.
func TestAGetOfAValueInMemoryIsTold(t *testing.T) {
	t.Parallel()
	observedBubble(t, aside.Options{Observer: aside.Observer{MemoryHits: 1}}, func(t *testing.T, c *aside.Cache, seen *asidetest.Observers) {
		get(t, c, watched.Key("a"), asidetest.Value("v"))
		seen.Reset(t)
		_, err := aside.Get[string](t.Context(), c, watched.Key("a"))
		require.NoError(t, err)
		require.Equal(t, aside.TierMemory, seen.One(t, aside.OpCall).End.Tier)
	})
}

// Where each hit in memory is told, as many calls are told as are counted.
func TestAsManyCallsAreToldAsAreCounted(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 30 {
		observedBubble(t, aside.Options{Observer: aside.Observer{MemoryHits: 1}, Backoff: -1, MaxLoads: 2, MaxQueuedLoads: 2}, func(t *testing.T, c *aside.Cache, seen *asidetest.Observers) {
			var callers sync.WaitGroup
			for range 100 {
				of := byte(random.Uint32())
				if of%4 == 3 {
					of-- // no context that ends the goroutine
				}
				if of/32 == 7 {
					of -= 32 // no Get, which counts a miss and goes on to nothing without Redis
				}
				callers.Go(func() { step(c, of, time.Sleep) })
				time.Sleep(time.Duration(of) * time.Millisecond / 4)
			}
			callers.Wait()
			time.Sleep(time.Minute)
			synctest.Wait()
			told := 0
			for _, o := range seen.Ended(aside.OpCall, aside.OpBatch) {
				told += o.Op.Keys
			}
			m := c.Metrics().Labels["watched-label"]
			require.EqualValues(t, m.Hits+m.Misses, told, "hits %d misses %d", m.Hits, m.Misses)
		})
	}
}

type replayKey struct{}

// A round trip that an Observer has ended is no success: the replay ends as not confirmed, and is made again.
func TestARoundTripThatAnObserverHasEndedIsNoSuccess(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var mu sync.Mutex
	left := 2
	var causes []aside.Cause
	o := asidetest.At(server.Addr())
	o.Observer = aside.Observer{
		Begin: func(ctx context.Context, op aside.Op) context.Context {
			mu.Lock()
			defer mu.Unlock()
			if ended, ok := ctx.Value(replayKey{}).(*bool); ok && op.Kind == aside.OpRedis && left > 0 {
				left--
				*ended = true
				runtime.Goexit()
			}
			if op.Kind == aside.OpReplay {
				return context.WithValue(ctx, replayKey{}, new(bool))
			}
			return ctx
		},
		End: func(ctx context.Context, op aside.Op, end aside.End) {
			mu.Lock()
			defer mu.Unlock()
			if op.Kind == aside.OpReplay && *ctx.Value(replayKey{}).(*bool) {
				causes = append(causes, end.Cause)
			}
		},
	}
	c := asidetest.Connected(t, o)
	asidetest.Stored(t, c, watched.Key("a"), "v")
	server.Kill()
	asidetest.Eventually(t, "the cache notices", func() bool { return c.Health().State == aside.StateDegraded })
	keys, err := c.Invalidate(t.Context(), watched.Key("a"))
	require.NoError(t, err)
	pattern, err := c.InvalidatePattern(t.Context(), watched.Match(aside.Wildcard))
	require.NoError(t, err)
	server.Restart()
	require.NoError(t, keys.Wait(t.Context()))
	require.NoError(t, pattern.Wait(t.Context()))
	require.NoError(t, c.Close())
	require.Zero(t, left)
	require.NotEmpty(t, causes)
	require.Subset(t, []aside.Cause{aside.CauseUnavailable}, causes, "of the replays in which it has ended a round trip")
}
