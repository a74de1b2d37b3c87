package contract_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
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

// squares loads what is asked for, and notes it.
type squares struct {
	mu    sync.Mutex
	calls [][]int
}

func (s *squares) load(_ context.Context, ids []int) (map[int]int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, slices.Clone(ids))
	out := map[int]int{}
	for _, id := range ids {
		out[id] = id * id
	}
	return out, nil
}

func TestABatchCallsItsLoaderOnceForExactlyWhatIsMissing(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		var ids, missing []int
		for id := range 100 {
			ids = append(ids, id)
			if id%10 < 3 {
				asidetest.Stored(t, c, asidetest.ItemKey(id), id*id)
			} else {
				missing = append(missing, id)
			}
		}
		var src squares
		got, err := aside.GetOrLoadMany(t.Context(), c, append(ids, ids...), asidetest.ItemKey, src.load)
		require.NoError(t, err)
		require.Len(t, got, 100)
		for id, square := range got {
			require.Equal(t, id*id, square)
		}
		require.Equal(t, [][]int{missing}, src.calls, "once, without duplicates, in order")
		m := c.Metrics().Labels["items"]
		require.EqualValues(t, 30, m.Hits)
		require.EqualValues(t, 70, m.Misses)

		asidetest.Eventually(t, "all of them are kept", func() bool {
			_, err := aside.GetOrLoadMany(t.Context(), c, ids, asidetest.ItemKey, src.load)
			require.NoError(t, err)
			return c.Metrics().Labels["items"].Hits >= 130
		})
		require.Len(t, src.calls, 1)
	})
}

func TestIdsThatTheBatchLoaderLeavesOutAreNotFound(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, loads := newCache(aside.Options{}), 0
		load := func(context.Context, []int) (map[int]string, error) { loads++; return map[int]string{1: "one"}, nil }
		got, err := aside.GetOrLoadMany(t.Context(), c, []int{1, 2}, asidetest.ItemKey, load)
		require.NoError(t, err)
		require.Equal(t, map[int]string{1: "one"}, got)
		asidetest.Eventually(t, "it is cached as such", func() bool {
			_, err := aside.Get[string](t.Context(), c, asidetest.ItemKey(2))
			return errors.Is(err, aside.ErrNotFound)
		})
		_, err = aside.GetOrLoadMany(t.Context(), c, []int{2}, asidetest.ItemKey, load)
		require.NoError(t, err)
		require.Equal(t, 1, loads)
	})
}

func TestFailuresOfABatchComeBesideItsValues(t *testing.T) {
	t.Parallel()
	boom, own := errors.New("boom"), errors.New("of one id")
	for name, test := range map[string]struct {
		load   func(context.Context, []int) (map[int]string, error)
		values map[int]string
		errors map[int]error
	}{
		"the whole load": {
			func(context.Context, []int) (map[int]string, error) { return nil, boom },
			map[int]string{0: "cached"}, map[int]error{1: boom, 2: boom, 3: boom},
		},
		"values beside an error": {
			func(context.Context, []int) (map[int]string, error) { return map[int]string{1: "one"}, boom },
			map[int]string{0: "cached", 1: "one"}, map[int]error{2: boom, 3: boom},
		},
		"one id, the others not found or there": {
			func(context.Context, []int) (map[int]string, error) {
				return map[int]string{1: "one"}, &aside.BatchError[int]{Errors: map[int]error{2: own}}
			},
			map[int]string{0: "cached", 1: "one"}, map[int]error{2: own},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
				c := newCache(aside.Options{})
				asidetest.Stored(t, c, asidetest.ItemKey(0), "cached")
				got, err := aside.GetOrLoadMany(t.Context(), c, []int{0, 1, 2, 3}, asidetest.ItemKey, test.load)
				require.Equal(t, test.values, got)
				var batch *aside.BatchError[int]
				require.ErrorAs(t, err, &batch)
				require.Equal(t, test.errors, batch.Errors)
				for _, e := range test.errors {
					require.ErrorIs(t, err, e)
				}
			})
		})
	}
}

func TestAPanickingBatchLoaderFailsItsIdsAndFreesThem(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		_, err := aside.GetOrLoadMany(t.Context(), c, []int{1, 2}, asidetest.ItemKey, func(context.Context, []int) (map[int]int, error) { panic("boom") })
		require.ErrorIs(t, err, &aside.Error{Code: aside.CodeLoaderPanic})
		var src squares
		got, err := aside.GetOrLoadMany(t.Context(), c, []int{1, 2}, asidetest.ItemKey, src.load)
		require.NoError(t, err)
		require.Equal(t, map[int]int{1: 1, 2: 4}, got)
	})
}

func TestBatchesAndSingleCallersShareLoadsInBothDirections(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		single, batch := make(chan struct{}), make(chan struct{})
		goOn := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { // leads 1
			v, err := aside.GetOrLoad(t.Context(), c, asidetest.ItemKey(1), func(context.Context) (int, error) { close(single); <-goOn; return 1, nil })
			if err != nil || v != 1 {
				t.Error(v, err)
			}
		})
		<-single
		wg.Go(func() { // shares 1, leads 2 and 3
			got, err := aside.GetOrLoadMany(t.Context(), c, []int{1, 2, 3}, asidetest.ItemKey, func(_ context.Context, ids []int) (map[int]int, error) {
				if !slices.Equal(ids, []int{2, 3}) {
					t.Error("loaded", ids)
				}
				close(batch)
				<-goOn
				return map[int]int{2: 4, 3: 9}, nil
			})
			if err != nil || !maps.Equal(got, map[int]int{1: 1, 2: 4, 3: 9}) {
				t.Error(got, err)
			}
		})
		<-batch
		joined := make(chan struct{})
		wg.Go(func() { // shares 2 with the batch
			v, err := aside.GetOrLoad(&asidetest.Signalling{Context: t.Context(), Waited: joined}, c, asidetest.ItemKey(2), func(context.Context) (int, error) {
				t.Error("loaded again")
				return 0, nil
			})
			if err != nil || v != 4 {
				t.Error(v, err)
			}
		})
		<-joined
		close(goOn)
		wg.Wait()
		require.EqualValues(t, 2, c.Metrics().Labels["items"].Loads)
	})
}

// Two batches that each lead a key of the other's, in two processes' worth of caches, would wait for each other for ever if
// one of them waited before it had shared what it led.
func TestBatchesThatOverlapCrosswiseDoNotDeadlock(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	var crossed atomic.Int64
	mayTake := time.Now().Add(2 * time.Minute)
	for round := 0; round < 40 || crossed.Load() == 0 && time.Now().Before(mayTake); round++ { // whether both lead at the same time is up to the scheduler
		key := func(id int) aside.Key { return asidetest.Items.Key("round", round, id) }
		var wg sync.WaitGroup
		var loading atomic.Int64
		for _, run := range []struct {
			c     *aside.Cache
			first int
			ids   []int
		}{{a, 1, []int{1, 2}}, {b, 2, []int{2, 1}}} {
			wg.Go(func() {
				// Lead the first id alone, and then ask for both: the other one is led by the other cache.
				lead := make(chan struct{})
				leading := sync.OnceFunc(func() { close(lead) })
				var inner sync.WaitGroup
				inner.Go(func() {
					defer leading() // the other batch may have been faster
					_, _ = aside.GetOrLoad(t.Context(), run.c, key(run.first), func(context.Context) (int, error) {
						loading.Add(1)
						leading()
						for n := 0; loading.Load() < 2 && n < 1000; n++ {
							runtime.Gosched()
						}
						if loading.Load() == 2 {
							crossed.Add(1)
						}
						return run.first * run.first, nil
					})
				})
				<-lead
				var src squares
				got, err := aside.GetOrLoadMany(t.Context(), run.c, run.ids, key, src.load)
				if err != nil || !maps.Equal(got, map[int]int{1: 1, 2: 4}) {
					t.Error(got, err)
				}
				inner.Wait()
			})
		}
		wg.Wait()
	}
	require.Positive(t, crossed.Load(), "both led at the same time")
}

func TestACancelledBatchFailsWhatItStillWaitsFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{})
		asidetest.Stored(t, c, asidetest.ItemKey(0), 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		got, err := aside.GetOrLoadMany(ctx, c, []int{0, 1}, asidetest.ItemKey, func(ctx context.Context, _ []int) (map[int]int, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		require.Equal(t, map[int]int{0: 0}, got)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		synctest.Wait()
	})
}

func TestABatchWithAnInvalidKeyBeginsNothing(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	var src squares
	_, err := aside.GetOrLoadMany(t.Context(), c, []int{1, 2}, func(id int) aside.Key {
		if id == 2 {
			return asidetest.Items.Key(2.5)
		}
		return asidetest.ItemKey(id)
	}, src.load)
	require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidKey})
	require.ErrorContains(t, err, "id 1 of the batch")
	require.Empty(t, src.calls)
	got, err := aside.GetOrLoadMany(t.Context(), c, nil, asidetest.ItemKey, src.load)
	require.NoError(t, err)
	require.Empty(t, got)
}

func TestABatchThatRefreshesLoadsEverything(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		asidetest.Stored(t, c, asidetest.ItemKey(1), -1)
		var src squares
		got, err := aside.GetOrLoadMany(t.Context(), c, []int{1, 2}, asidetest.ItemKey, src.load, aside.Refresh())
		require.NoError(t, err)
		require.Equal(t, map[int]int{1: 1, 2: 4}, got)
		v, err := aside.Get[int](t.Context(), c, asidetest.ItemKey(1))
		require.NoError(t, err)
		require.Equal(t, 1, v)
	})
}

func TestALoaderBindsCachePolicyAndFunction(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{}), t.Context()
		type userID string
		var loads atomic.Int64
		loader := aside.NewLoader(c, aside.TTL.UserProfile, func(_ context.Context, id userID) (string, error) {
			loads.Add(1)
			switch id {
			case "nobody":
				return "", aside.ErrNotFound
			case "panic":
				panic("boom")
			case "goexit":
				runtime.Goexit()
			}
			return "profile of " + string(id), nil
		})
		require.Equal(t, "user:a%3Ab", loader.Key("a:b").String())
		for range 2 {
			v, err := loader.Get(ctx, "a")
			require.NoError(t, err)
			require.Equal(t, "profile of a", v)
		}
		require.EqualValues(t, 1, loads.Load())
		r, err := loader.Lookup(ctx, "b", aside.WithTTL(time.Minute))
		require.NoError(t, err)
		require.Equal(t, aside.StatusMiss, r.Status)
		require.LessOrEqual(t, r.TTL, time.Minute)

		got, err := loader.GetMany(ctx, []userID{"a", "b", "c", "nobody", "panic", "goexit"})
		require.Equal(t, map[userID]string{"a": "profile of a", "b": "profile of b", "c": "profile of c"}, got)
		var batch *aside.BatchError[userID]
		require.ErrorAs(t, err, &batch)
		require.Len(t, batch.Errors, 2)
		require.ErrorIs(t, batch.Errors["panic"], &aside.Error{Code: aside.CodeLoaderPanic})
		require.ErrorIs(t, batch.Errors["goexit"], &aside.Error{Code: aside.CodeLoaderExit})

		receipt, err := loader.Invalidate(ctx, "a", "b")
		require.NoError(t, err)
		require.EqualValues(t, 2, receipt.Removed)
		_, err = loader.Get(ctx, "a")
		require.NoError(t, err)
	})
}

func TestABatchLoaderServesSingleCallersToo(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx, own := newCache(aside.Options{}), t.Context(), errors.New("of one id")
		loader := aside.NewBatchLoader(c, asidetest.Items, func(_ context.Context, ids []int) (map[int]string, error) {
			got := map[int]string{}
			failed := map[int]error{}
			for _, id := range ids {
				switch id {
				case 404:
				case 500:
					failed[id] = own
				default:
					got[id] = fmt.Sprint(id)
				}
			}
			if len(failed) > 0 {
				return got, &aside.BatchError[int]{Errors: failed}
			}
			return got, nil
		})
		v, err := loader.Get(ctx, 1)
		require.NoError(t, err)
		require.Equal(t, "1", v)
		_, err = loader.Get(ctx, 404)
		require.ErrorIs(t, err, aside.ErrNotFound)
		_, err = loader.Get(ctx, 500)
		require.Equal(t, own, err)
		got, err := loader.GetMany(ctx, []int{1, 2, 404, 500})
		require.Equal(t, map[int]string{1: "1", 2: "2"}, got)
		require.ErrorIs(t, err, own)
		require.ErrorContains(t, err, "an id of a batch failed")
	})
}

// The values of a batch in memory take nothing but the map of the result. Each is a hit, and may be drawn for a comparison.
func TestABatchOfHitsAllocatesOnlyItsMap(t *testing.T) {
	c := asidetest.NewCache(t, aside.Options{Policies: []aside.Policy{asidetest.Items}})
	ids := make([]int, 100)
	for i := range ids {
		ids[i] = 1000 + i
	}
	loader := aside.NewBatchLoader(c, asidetest.Items, func(_ context.Context, ids []int) (map[int]string, error) {
		values := make(map[int]string)
		for _, id := range ids {
			values[id] = asidetest.Items.Key(id).String()
		}
		return values, nil
	})
	get := func() {
		values, err := loader.GetMany(t.Context(), ids)
		if err != nil || len(values) != len(ids) || values[1007] != "items:1007" {
			panic(fmt.Sprint(values, err))
		}
	}
	get()
	before := c.Metrics().Labels["items"]
	const calls = 101 // AllocsPerRun calls once more than it is told to
	allocated := testing.AllocsPerRun(calls-1, get)
	theMap := testing.AllocsPerRun(100, func() {
		m := make(map[int]string, len(ids))
		for _, id := range ids {
			m[id] = "a value"
		}
	})
	if !asidetest.RaceDetector { // it allocates too
		require.LessOrEqual(t, allocated, theMap+5, "the call itself takes a few")
	}
	after := c.Metrics().Labels["items"]
	require.EqualValues(t, calls*len(ids), after.Hits-before.Hits)
	require.EqualValues(t, 1, after.Loads)
}

func TestABatchWithAnIdTwiceHasItOnce(t *testing.T) {
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{Policies: []aside.Policy{asidetest.Items}})
		load := func(_ context.Context, ids []int) (map[int]string, error) {
			if sorted := slices.Sorted(slices.Values(ids)); len(slices.Compact(sorted)) != len(ids) {
				t.Errorf("the loader got an id twice: %v", ids)
			}
			return map[int]string{1: "one", 2: "two"}, nil
		}
		for _, ids := range [][]int{{1, 1}, {1, 2, 1, 2, 2}, {2, 1, 2}} {
			values, err := aside.GetOrLoadMany(t.Context(), c, ids, func(id int) aside.Key { return asidetest.Items.Key(id) }, load)
			require.NoError(t, err)
			require.Equal(t, "one", values[1])
		}
		items := c.Metrics().Labels["items"]
		require.EqualValues(t, 1+2+2, items.Requests(), "each id counts once a batch")
	})
}
