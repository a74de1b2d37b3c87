package contract_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// everyHit checks all hits, as fast as they come.
var everyHit = aside.ConsistencyCheck{SampleRate: 1, SettleTime: 10 * time.Second, MaxPerSecond: -1}

// A mutable is a source whose value changes without the cache being told.
type mutable[T any] struct {
	mu    sync.Mutex
	value T
	err   error
	loads int
}

func (m *mutable[T]) set(value T, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.value, m.err = value, err
}

func (m *mutable[T]) load(context.Context) (T, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loads++
	return m.value, m.err
}

func (m *mutable[T]) calls() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.loads
}

// checked is what the checks of c have come to.
func checked(c *aside.Cache) [3]uint64 {
	m := c.Metrics().Labels["items"]
	return [3]uint64{m.Checked, m.Inconsistent, m.Unchecked}
}

func get[T any](t *testing.T, c *aside.Cache, key aside.Key, load func(context.Context) (T, error)) T {
	t.Helper()
	v, err := aside.GetOrLoad(t.Context(), c, key, load)
	require.NoError(t, err)
	return v
}

func TestAValueThatChangedBehindTheCachesBackIsFound(t *testing.T) {
	t.Parallel()
	var log asidetest.Logbook
	asidetest.InBubble(t, aside.Options{ConsistencyCheck: everyHit, Logger: log.Logger()}, func(t *testing.T, c *aside.Cache) {
		src := &mutable[string]{value: "secret-1"}
		key := asidetest.Items.Key("a")
		for range 3 {
			get(t, c, key, src.load)
		}
		synctest.Wait()
		require.Equal(t, [3]uint64{2, 0, 0}, checked(c), "two hits that are right")

		src.set("secret-2", nil)
		require.Equal(t, "secret-1", get(t, c, key, src.load))
		time.Sleep(everyHit.SettleTime - time.Nanosecond)
		synctest.Wait()
		require.Equal(t, [3]uint64{2, 0, 0}, checked(c), "an invalidation may still be under way")
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.Equal(t, [3]uint64{3, 1, 0}, checked(c))
		require.Equal(t, 5, src.calls(), "one, one for each of three hits, and one to be sure")

		for range 3 {
			require.Equal(t, "secret-1", get(t, c, key, src.load), "it only tells")
		}
		time.Sleep(everyHit.SettleTime)
		synctest.Wait()
		require.Equal(t, [3]uint64{6, 4, 0}, checked(c))
		require.InDelta(t, 4e6/6, c.Metrics().Labels["items"].InconsistentPerMillion(), 1e-6)
		require.Equal(t, aside.StateMemory, c.Health().State)
		m := c.Metrics().Labels["items"]
		require.Zero(t, m.LoadErrors)
		require.EqualValues(t, 1, m.Loads, "a check is no load of a caller's")
	})
	var warned int
	for _, line := range log.Lines(t) {
		if line.Level == "WARN" {
			warned++
		}
	}
	require.Contains(t, log.String(), `"key":"items:a"`)
	require.NotContains(t, log.String(), "secret")
	require.Equal(t, 2, warned, "once in ten seconds")
}

func TestAnInvalidationThatArrivesInTimeIsNoInconsistency(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]func(t *testing.T, c *aside.Cache, key aside.Key, src *mutable[string]){
		"invalidated": func(t *testing.T, c *aside.Cache, key aside.Key, _ *mutable[string]) {
			_, err := c.Invalidate(t.Context(), key)
			require.NoError(t, err)
		},
		"invalidated and loaded": func(t *testing.T, c *aside.Cache, key aside.Key, src *mutable[string]) {
			_, err := c.InvalidateCategory(t.Context(), "items")
			require.NoError(t, err)
			require.Equal(t, "new", get(t, c, key, src.load))
		},
		"replaced, by what is out of date too": func(t *testing.T, c *aside.Cache, key aside.Key, src *mutable[string]) {
			require.NoError(t, aside.Set(t.Context(), c, key, "replaced"))
		},
		"the source is as before": func(_ *testing.T, _ *aside.Cache, _ aside.Key, src *mutable[string]) {
			src.set("old", nil) // or an old replica has answered
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asidetest.InBubble(t, aside.Options{ConsistencyCheck: everyHit}, func(t *testing.T, c *aside.Cache) {
				src, key := &mutable[string]{value: "old"}, asidetest.Items.Key("a")
				get(t, c, key, src.load)
				src.set("new", nil)
				require.Equal(t, "old", get(t, c, key, src.load))
				time.Sleep(everyHit.SettleTime / 2)
				late(t, c, key, src)
				time.Sleep(everyHit.SettleTime / 2)
				synctest.Wait()
				require.Equal(t, [3]uint64{1, 0, 0}, checked(c))
			})
		})
	}
	asidetest.InBubble(t, aside.Options{ConsistencyCheck: everyHit}, func(t *testing.T, c *aside.Cache) {
		src := &mutable[string]{value: "old"}
		short := aside.Policy{Category: "items", TTL: everyHit.SettleTime}
		key := short.Key("a")
		get(t, c, key, src.load)
		src.set("new", nil)
		require.Equal(t, "old", get(t, c, key, src.load))
		time.Sleep(everyHit.SettleTime)
		synctest.Wait()
		require.Equal(t, [3]uint64{1, 0, 0}, checked(c), "its time is over")
	})
}

// On a real Redis, in both tiers: b has never loaded the value itself.
func TestAValueThatChangedBehindTheBackOfAFleetIsFound(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.ConsistencyCheck = aside.ConsistencyCheck{SampleRate: 1, SettleTime: 50 * time.Millisecond, MaxPerSecond: -1}
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, o)
	src, key := &mutable[string]{value: "old"}, asidetest.Items.Key("a")
	asidetest.InMemory(t, a, key, src.load)
	src.set("new", nil)

	r, err := aside.Lookup(t.Context(), b, key, src.load)
	require.NoError(t, err)
	require.Equal(t, aside.TierRedis, r.Tier)
	asidetest.Eventually(t, "the hit in Redis is checked", func() bool { return checked(b) == [3]uint64{1, 1, 0} })
	require.Equal(t, "old", get(t, b, key, src.load), "from memory")
	asidetest.Eventually(t, "the hit in memory is checked", func() bool { return checked(b) == [3]uint64{2, 2, 0} })
	require.EqualValues(t, 1, b.Metrics().Labels["items"].MemoryHits, "a check's own look is no hit")
}

func TestAnInvalidationByAnotherProcessThatArrivesInTimeIsNoInconsistency(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.ConsistencyCheck = aside.ConsistencyCheck{SampleRate: 1, SettleTime: 3 * time.Second, MaxPerSecond: -1}
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, o)
	src, key := &mutable[string]{value: "old"}, asidetest.Items.Key("a")
	asidetest.InMemory(t, a, key, src.load)
	looked := make(chan struct{}, 1)
	load := func(ctx context.Context) (string, error) {
		defer func() { looked <- struct{}{} }()
		return src.load(ctx)
	}
	src.set("new", nil)
	require.Equal(t, "old", get(t, b, key, load))
	<-looked // the value was found to differ
	_, err := a.Invalidate(t.Context(), key)
	require.NoError(t, err)
	asidetest.Eventually(t, "the hit is checked", func() bool { return checked(b)[0] == 1 })
	require.Equal(t, [3]uint64{1, 0, 0}, checked(b))
}

func TestAHitIsNotJudgedWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.ConsistencyCheck, o.DegradedTTL = aside.ConsistencyCheck{SampleRate: 1, SettleTime: 4 * time.Second, MaxPerSecond: -1}, time.Hour
	c := asidetest.Connected(t, o)
	src, key := &mutable[string]{value: "old"}, asidetest.Items.Key("a")
	_, err := aside.GetOrLoad(t.Context(), c, key, src.load)
	require.NoError(t, err)
	asidetest.Eventually(t, "memory has it", func() bool {
		r, err := aside.Lookup(t.Context(), c, key, src.load)
		return err == nil && r.Tier == aside.TierMemory
	})
	hits := c.Metrics().Labels["items"].Hits
	asidetest.Eventually(t, "these hits are checked", func() bool { return checked(c) == [3]uint64{hits, 0, 0} })
	loads := src.calls()
	src.set("new", nil)
	require.Equal(t, "old", get(t, c, key, src.load))
	asidetest.Eventually(t, "it is found to differ", func() bool { return src.calls() == loads+1 })
	server.Kill()
	asidetest.Eventually(t, "the check ends", func() bool { return checked(c) == [3]uint64{hits, 0, 1} })
	r, err := aside.Lookup(t.Context(), c, key, src.load)
	require.NoError(t, err)
	require.Equal(t, aside.StatusStale, r.Status)
	require.Equal(t, "old", r.Value)
}

func TestWhatALoaderMayReturnToACheck(t *testing.T) {
	t.Parallel()
	absent := fmt.Errorf("no row: %w", aside.ErrNotFound)
	for name, test := range map[string]struct {
		cached error // nil for a value
		fresh  func(ctx context.Context) (string, error)
		want   [3]uint64
	}{
		"the same":             {nil, func(context.Context) (string, error) { return "v", nil }, [3]uint64{1, 0, 0}},
		"not found any more":   {nil, func(context.Context) (string, error) { return "", absent }, [3]uint64{1, 1, 0}},
		"found by now":         {absent, func(context.Context) (string, error) { return "v", nil }, [3]uint64{1, 1, 0}},
		"still not found":      {absent, func(context.Context) (string, error) { return "", absent }, [3]uint64{1, 0, 0}},
		"an error":             {nil, func(context.Context) (string, error) { return "", asidetest.ErrLoader }, [3]uint64{0, 0, 1}},
		"a value and an error": {nil, func(context.Context) (string, error) { return "w", asidetest.ErrLoader }, [3]uint64{0, 0, 1}},
		"a panic":              {nil, func(context.Context) (string, error) { panic("oops") }, [3]uint64{0, 0, 1}},
		"Goexit":               {nil, func(context.Context) (string, error) { runtime.Goexit(); return "", nil }, [3]uint64{0, 0, 1}},
		"nothing in time": {nil, func(ctx context.Context) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}, [3]uint64{0, 0, 1}},
		"what is not to be cached": {nil, func(ctx context.Context) (string, error) {
			aside.CurrentLoad(ctx).NoStore()
			return "partial", nil
		}, [3]uint64{0, 0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := aside.Options{ConsistencyCheck: everyHit, LoadTimeout: time.Second, NegativeTTL: time.Hour, Logger: asidetest.Quiet()}
			asidetest.InBubble(t, o, func(t *testing.T, c *aside.Cache) {
				key := asidetest.Items.Key("a")
				_, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) (string, error) { return "v", test.cached })
				require.ErrorIs(t, err, test.cached)
				hit := test.cached
				if hit != nil {
					hit = aside.ErrNotFound
				}
				_, err = aside.GetOrLoad(t.Context(), c, key, test.fresh)
				require.ErrorIs(t, err, hit)
				time.Sleep(time.Minute)
				synctest.Wait()
				require.Equal(t, test.want, checked(c))
				m := c.Metrics().Labels["items"]
				require.Zero(t, m.Errors, "a check's trouble is nobody's")
				_, err = aside.GetOrLoad(t.Context(), c, key, test.fresh)
				require.ErrorIs(t, err, hit, "it is served on, and not held back")
			})
		})
	}
}

// A stamped is the same as another one whatever its stamp is.
type stamped struct {
	Value string
	At    int
}

func (s stamped) Equal(o stamped) bool { return s.Value == o.Value }

// A pointed has the method on its pointer.
type pointed struct {
	Value string
	At    int
}

func (s *pointed) Equal(o *pointed) bool { return s.Value == o.Value }

func TestValuesAreComparedByWhatTheirCodecMakesOfThem(t *testing.T) {
	t.Parallel()
	packed := aside.Policy{Name: "packed", Category: "items", TTL: time.Hour, Codec: aside.CBOR}
	private := aside.Policy{Name: "private", Category: "items", TTL: time.Hour, CloneOnRead: true}
	many := map[string]int{}
	for i := range 50 {
		many[fmt.Sprint(i)] = i
	}
	less := map[string]int{"1": 1}
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{ConsistencyCheck: aside.ConsistencyCheck{SampleRate: 1, SettleTime: time.Millisecond, MaxPerSecond: -1}})
		var sum [3]uint64
		n := 0
		check := func(what string, hit func(key func(aside.Policy) aside.Key), inconsistent uint64) {
			t.Helper()
			n++
			hit(func(p aside.Policy) aside.Key { return p.Key(n) })
			sum[0]++
			sum[1] += inconsistent
			asidetest.Eventually(t, what, func() bool { return checked(c)[0] >= sum[0] })
			require.Equal(t, sum, checked(c), what)
		}
		check("maps in any order", twice(t, c, asidetest.Items, many, many), 0)
		check("in CBOR too", twice(t, c, packed, many, many), 0)
		check("other maps", twice(t, c, packed, many, less), 1)
		check("numbers in an interface", twice(t, c, asidetest.Items, map[string]any{"n": float64(1 << 60)}, map[string]any{"n": float64(1 << 60)}), 0)
		check("bytes", twice(t, c, asidetest.Items, []byte("a"), []byte("b")), 1)
		check("copies", twice(t, c, private, many, many), 0)
		check("other copies", twice(t, c, private, many, less), 1)
		check("a pointer", twice(t, c, asidetest.Items, &less, &less), 0)
		check("a pointer to nothing", twice(t, c, asidetest.Items, &less, nil), 1)
		check("by their own method", twice(t, c, asidetest.Items, stamped{"v", 1}, stamped{"v", 2}), 0)
		check("by their own method, differing", twice(t, c, asidetest.Items, stamped{"v", 1}, stamped{"w", 1}), 1)
		check("by their pointers' method", twice(t, c, asidetest.Items, &pointed{"v", 1}, &pointed{"v", 2}), 0)
		check("by their pointers' method, differing", twice(t, c, asidetest.Items, &pointed{"v", 1}, &pointed{"w", 1}), 1)
		check("without a method", twice(t, c, asidetest.Items, struct{ A, B int }{1, 2}, struct{ A, B int }{1, 3}), 1)
	})
	asidetest.InBubble(t, aside.Options{ConsistencyCheck: everyHit, Logger: asidetest.Quiet()}, func(t *testing.T, c *aside.Cache) {
		twice(t, c, asidetest.Items, func() {}, func() {})(func(p aside.Policy) aside.Key { return p.Key("a") })
		twice(t, c, asidetest.Items, &pointed{"v", 1}, nil)(func(p aside.Policy) aside.Key { return p.Key("b") }) // its Equal panics
		synctest.Wait()
		require.Equal(t, [3]uint64{0, 0, 2}, checked(c), "what cannot be compared")
	})
}

// twice caches one value, and then has the source return another one.
func twice[T any](t *testing.T, c *aside.Cache, p aside.Policy, cached, fresh T) func(key func(aside.Policy) aside.Key) {
	return func(key func(aside.Policy) aside.Key) {
		t.Helper()
		k := key(p)
		asidetest.Stored(t, c, k, cached)
		get(t, c, k, func(context.Context) (T, error) { return fresh, nil })
	}
}

func TestEveryCallWithALoaderHasItsHitsChecked(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{ConsistencyCheck: everyHit}, func(t *testing.T, c *aside.Cache) {
		ctx := t.Context()
		var loads atomic.Int64
		one := func(_ context.Context, id int) (int, error) { loads.Add(1); return id, nil }
		load := func(ctx context.Context) (int, error) { return one(ctx, 1) }
		each, batch := aside.NewLoader(c, asidetest.Items, one), aside.NewBatchLoader(c, asidetest.Items, func(ctx context.Context, ids []int) (map[int]int, error) {
			out := map[int]int{}
			for _, id := range ids {
				out[id], _ = one(ctx, id)
			}
			return out, nil
		})
		require.NoError(t, aside.Set(ctx, c, asidetest.Items.Key(1), 1))
		require.NoError(t, aside.Set(ctx, c, asidetest.Items.Key(2), 2))
		hits := 0
		step := func(n int, call func() error) {
			t.Helper()
			hits += n
			require.NoError(t, call())
			synctest.Wait()
			require.Equal(t, [3]uint64{uint64(hits), 0, 0}, checked(c))
			require.EqualValues(t, hits, loads.Load())
		}
		step(1, func() error { _, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key(1), load); return err })
		step(1, func() error {
			_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key(1), load, aside.Strong())
			return err
		})
		step(1, func() error { _, err := aside.Lookup(ctx, c, asidetest.Items.Key(1), load); return err })
		step(1, func() error { _, err := each.Get(ctx, 1); return err })
		step(1, func() error { _, err := each.Lookup(ctx, 1); return err })
		step(2, func() error { _, err := each.GetMany(ctx, []int{1, 2}); return err })
		step(1, func() error { _, err := batch.Get(ctx, 1); return err })
		step(2, func() error { _, err := batch.GetMany(ctx, []int{1, 2}); return err })
		step(0, func() error { _, err := aside.Get[int](ctx, c, asidetest.Items.Key(1)); return err })
		//lint:ignore SA1012 a hit in memory takes it, and a check has no use for it
		step(0, func() error { _, err := aside.GetOrLoad(nil, c, asidetest.Items.Key(1), load); return err })
	})
}

func TestHitsInsideACheckAreNotChecked(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{ConsistencyCheck: everyHit}, func(t *testing.T, c *aside.Cache) {
		var a, b func(context.Context) (int, error)
		a = func(ctx context.Context) (int, error) { return aside.GetOrLoad(ctx, c, asidetest.Items.Key("b"), b) }
		b = func(ctx context.Context) (int, error) { return aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), a) }
		require.NoError(t, aside.Set(t.Context(), c, asidetest.Items.Key("a"), 1))
		require.NoError(t, aside.Set(t.Context(), c, asidetest.Items.Key("b"), 1))
		get(t, c, asidetest.Items.Key("a"), a)
		synctest.Wait()
		require.Equal(t, [3]uint64{1, 0, 0}, checked(c), "or they would keep each other going")
	})
}

func TestChecksAreBoundedAndHoldUpNobody(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{ConsistencyCheck: everyHit, LoadTimeout: time.Hour}, func(t *testing.T, c *aside.Cache) {
		var running, most atomic.Int64
		release := make(chan struct{})
		load := func(context.Context) (int, error) {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			<-release
			return 1, nil
		}
		require.NoError(t, aside.Set(t.Context(), c, asidetest.Items.Key("a"), 1))
		const hits = 1000
		began := time.Now()
		for range hits {
			get(t, c, asidetest.Items.Key("a"), load)
			synctest.Wait()
		}
		require.Zero(t, time.Since(began), "no hit waits")
		require.EqualValues(t, 2, most.Load(), "loads at once")
		close(release)
		synctest.Wait()
		m := c.Metrics().Labels["items"]
		require.EqualValues(t, hits, m.Checked+m.Unchecked, "what is dropped is counted")
		require.EqualValues(t, 2+1+16, m.Checked, "two that ran, one for which there was no place, and the queue")
	})
}

func TestChecksThatWaitAreBounded(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{ConsistencyCheck: everyHit, Logger: asidetest.Quiet()}, func(t *testing.T, c *aside.Cache) {
		require.NoError(t, aside.Set(t.Context(), c, asidetest.Items.Key("a"), 1))
		for range 1000 {
			get(t, c, asidetest.Items.Key("a"), func(context.Context) (int, error) { return 2, nil })
			synctest.Wait()
		}
		time.Sleep(everyHit.SettleTime)
		synctest.Wait()
		require.Equal(t, [3]uint64{128, 128, 1000 - 128 - 1 - 16}, checked(c))
	})
}

func TestChecksAskTheSourceNoMoreOftenThanTheirRate(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{ConsistencyCheck: aside.ConsistencyCheck{SampleRate: 1, MaxPerSecond: 4}}, func(t *testing.T, c *aside.Cache) {
		src := &mutable[int]{}
		for range 1000 {
			get(t, c, asidetest.Items.Key("a"), src.load)
			time.Sleep(10 * time.Millisecond)
		}
		require.InDelta(t, 1+4*10, src.calls(), 1)
	})
}

func TestAChecksLoadNeverKeepsACallersOut(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{ConsistencyCheck: everyHit, MaxLoads: 1, MaxQueuedLoads: -1}, func(t *testing.T, c *aside.Cache) {
		ended := 0
		slow := func(ctx context.Context) (int, error) {
			<-ctx.Done()
			ended++
			return 0, ctx.Err()
		}
		require.NoError(t, aside.Set(t.Context(), c, asidetest.Items.Key("a"), 1))
		get(t, c, asidetest.Items.Key("a"), slow)
		synctest.Wait()
		require.Zero(t, ended, "the check has the only place")

		began := time.Now()
		require.Equal(t, 2, get(t, c, asidetest.Items.Key("b"), func(context.Context) (int, error) {
			// And the other way round: while this one has it, no check takes it.
			get(t, c, asidetest.Items.Key("a"), slow)
			synctest.Wait()
			return 2, nil
		}))
		synctest.Wait()
		require.Zero(t, time.Since(began))
		require.Equal(t, 1, ended)
		require.Equal(t, [3]uint64{0, 0, 2}, checked(c))

		for range 3 { // every place was given back once, not twice
			get(t, c, asidetest.Items.Key("a"), func(context.Context) (int, error) { return 1, nil })
			synctest.Wait()
		}
		require.Equal(t, [3]uint64{3, 0, 2}, checked(c))
		var loads sync.WaitGroup
		var refused atomic.Int64
		for i := range 2 {
			loads.Go(func() {
				_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("c", i), func(context.Context) (int, error) { time.Sleep(time.Second); return 1, nil })
				if errors.Is(err, &aside.Error{Code: aside.CodeOverloaded}) {
					refused.Add(1)
				}
			})
		}
		loads.Wait()
		require.EqualValues(t, 1, refused.Load(), "there is still one place")
	})
}

func TestCloseEndsChecks(t *testing.T) {
	t.Parallel()
	for name, load := range map[string]func(context.Context) (int, error){
		"while they wait": func(context.Context) (int, error) { return 2, nil },
		"while they load": func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asidetest.InBubble(t, aside.Options{ConsistencyCheck: everyHit}, func(t *testing.T, c *aside.Cache) {
				require.NoError(t, aside.Set(t.Context(), c, asidetest.Items.Key("a"), 1))
				for range 100 {
					get(t, c, asidetest.Items.Key("a"), load)
				}
				synctest.Wait()
				began := time.Now()
				require.NoError(t, c.Close())
				require.Zero(t, time.Since(began))
				require.Zero(t, checked(c)[0])
			})
		})
	}
}

// Not parallel: it looks at the goroutines of the whole process.
func TestNothingIsCheckedUnlessAskedFor(t *testing.T) {
	c := asidetest.NewCache(t, aside.Options{ConsistencyCheck: aside.ConsistencyCheck{SettleTime: time.Second, MaxPerSecond: -1}})
	src := &mutable[int]{}
	for range 1000 {
		get(t, c, asidetest.Items.Key("a"), src.load)
		_, err := aside.Lookup(t.Context(), c, asidetest.Items.Key("a"), src.load)
		require.NoError(t, err)
	}
	stacks := make([]byte, 1<<20)
	sampling := func() bool {
		return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "sampler.(*Sampler).run")
	}
	require.False(t, sampling())
	require.Equal(t, 1, src.calls())
	require.Equal(t, [3]uint64{}, checked(c))

	asidetest.NewCache(t, aside.Options{ConsistencyCheck: aside.ConsistencyCheck{SampleRate: 1}})
	asidetest.Eventually(t, "one goroutine, where it was asked for", sampling)
}

func TestAHitAllocatesNothingWhileOthersAreChecked(t *testing.T) {
	hold := make(chan struct{})
	load := func(context.Context) (int, error) { <-hold; return 1, nil }
	for name, check := range map[string]aside.ConsistencyCheck{
		"not drawn":             {SampleRate: 1e-12},
		"drawn, but no room":    {SampleRate: 1, MaxPerSecond: -1},
		"one in a hundred, too": {SampleRate: 0.01, MaxPerSecond: -1},
	} {
		c := asidetest.NewCache(t, aside.Options{ConsistencyCheck: check})
		key, ctx := asidetest.Items.Key("a"), t.Context()
		require.NoError(t, aside.Set(ctx, c, key, 1))
		for range 20_000 { // until the queue is full
			get(t, c, key, load)
		}
		require.Zero(t, testing.AllocsPerRun(1000, func() { _, _ = aside.GetOrLoad(ctx, c, key, load) }), name)
	}
	close(hold)
}

func TestAWrongCheckIsRefused(t *testing.T) {
	t.Parallel()
	for want, check := range map[string]aside.ConsistencyCheck{
		"Options.ConsistencyCheck.SampleRate is -0.1: set a share of the hits from 0, for none, to 1":     {SampleRate: -0.1},
		"Options.ConsistencyCheck.SampleRate is 1.5: set a share of the hits from 0, for none, to 1":      {SampleRate: 1.5},
		"Options.ConsistencyCheck.SampleRate is NaN: set a share of the hits from 0, for none, to 1":      {SampleRate: math.NaN()},
		"Options.ConsistencyCheck.SettleTime is -1s: set a positive duration, or 0 for the default":       {SettleTime: -time.Second},
		"Options.ConsistencyCheck.MaxPerSecond is NaN: set checks a second, 0 for the default, or a nega": {MaxPerSecond: math.NaN()},
	} {
		_, err := aside.New(aside.Options{ConsistencyCheck: check})
		require.ErrorContains(t, err, want)
		require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidOption})
	}
}

func TestMetricsShowChecksWhereThereWereAny(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(aside.LabelMetrics{Checked: 4, Inconsistent: 1, Unchecked: 2})
	require.NoError(t, err)
	for _, want := range []string{`"checked":4,`, `"inconsistent":1,`, `"unchecked":2,`, `"inconsistentPerMillion":250000`} {
		require.Contains(t, string(text), want)
	}
	text, err = json.Marshal(aside.LabelMetrics{Hits: 1})
	require.NoError(t, err)
	require.NotContains(t, strings.ToLower(string(text)), "check")
	require.Zero(t, aside.LabelMetrics{}.InconsistentPerMillion())
}
