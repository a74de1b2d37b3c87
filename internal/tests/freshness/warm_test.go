package freshness_test

import (
	"context"
	"errors"
	"iter"
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

// upTo are the ids from 0.
func upTo(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

// A table counts how often it is asked for each id. It has none that is divisible by ten.
type table struct {
	mu    sync.Mutex
	asked map[int]int
	loads atomic.Int64 // ids
}

func (s *table) load(_ context.Context, ids []int) (map[int]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked == nil {
		s.asked = make(map[int]int)
	}
	values := make(map[int]string)
	for _, id := range ids {
		s.asked[id]++
		s.loads.Add(1)
		if id%10 != 0 {
			values[id] = "value " + strconv.Itoa(id)
		}
	}
	return values, nil
}

// warm warms items in the background.
func warm[T any](ctx context.Context, c *aside.Cache, ids int, load func(context.Context, []int) (map[int]T, error), w aside.Warming) <-chan warmResult {
	done := make(chan warmResult, 1)
	go func() {
		warmed, err := aside.Warm(ctx, c, upTo(ids), itemKey, load, w)
		done <- warmResult{warmed, err}
	}()
	return done
}

type warmResult struct {
	aside.Warmed
	err error
}

func itemKey(id int) aside.Key { return asidetest.Items.Key(id) }

func TestWarmLoadsWhatIsNotCached(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		l := aside.NewBatchLoader(c, asidetest.Items, new(table).load)
		for id := 1; id < 6; id++ {
			asidetest.Stored(t, c, l.Key(id), "cached")
		}
		var told []aside.Warmed
		src := new(table)
		warmed, err := aside.Warm(t.Context(), c, upTo(95), itemKey, src.load, aside.Warming{Batch: 10, AtOnce: 3, Progress: func(w aside.Warmed) { told = append(told, w) }})
		require.NoError(t, err)
		require.Positive(t, warmed.Took)
		warmed.Took = 0
		require.Equal(t, aside.Warmed{Seen: 95, Fresh: 5, Loaded: 80, NotFound: 10}, warmed)
		require.EqualValues(t, 90, src.loads.Load())
		require.Len(t, told, 10)
		for i, w := range told {
			require.Equal(t, min(95, 10*(i+1)), w.Seen, "in the order of the batches")
		}
		v, err := l.Get(t.Context(), 3)
		require.NoError(t, err)
		require.Equal(t, "cached", v)
		asidetest.Eventually(t, "all is stored", func() bool {
			again, err := aside.Warm(t.Context(), c, upTo(95), itemKey, src.load, aside.Warming{})
			require.NoError(t, err)
			return again.Fresh == 95
		})
	})
}

func TestAWarmThatWasCutOffIsResumed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	const ids, batch, atOnce = 10_000, 100, 4
	src := new(table)
	ctx, cancel := context.WithCancel(t.Context())
	first := asidetest.Connected(t, asidetest.At(server.Addr()))
	warmed, err := aside.Warm(ctx, first, upTo(ids), itemKey, src.load, aside.Warming{Batch: batch, AtOnce: atOnce, Progress: func(w aside.Warmed) {
		if w.Seen >= ids/2 {
			cancel()
		}
	}})
	require.ErrorIs(t, err, context.Canceled)
	require.GreaterOrEqual(t, warmed.Seen, ids/2)
	require.Less(t, warmed.Seen, ids)
	second := asidetest.Connected(t, asidetest.At(server.Addr()))
	warmed, err = aside.Warm(t.Context(), second, upTo(ids), itemKey, src.load, aside.Warming{Batch: batch, AtOnce: atOnce})
	require.NoError(t, err)
	require.Equal(t, ids, warmed.Seen)
	require.GreaterOrEqual(t, warmed.Fresh, ids/2-batch*atOnce)
	require.LessOrEqual(t, src.loads.Load(), int64(ids+batch*atOnce), "and those that were in flight")
}

func TestOneOfAFleetWarmsUnderAName(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := aside.Warming{Name: "items", Every: time.Hour}
	began, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	load := func(_ context.Context, ids []int) (map[int]string, error) {
		once.Do(func() { close(began) })
		<-release
		return map[int]string{}, nil
	}
	var fleet []*aside.Cache
	for range 3 {
		fleet = append(fleet, asidetest.Connected(t, asidetest.At(server.Addr())))
	}
	done := make(chan aside.Warmed, 1)
	go func() {
		warmed, err := aside.Warm(t.Context(), fleet[0], upTo(10), itemKey, load, w)
		if err != nil {
			t.Error(err)
		}
		done <- warmed
	}()
	<-began
	for _, c := range fleet[1:] {
		warmed, err := aside.Warm(t.Context(), c, upTo(10), itemKey, load, w)
		require.NoError(t, err)
		require.True(t, warmed.Elsewhere)
		require.Zero(t, warmed.Seen)
	}
	close(release)
	warmed := <-done
	require.False(t, warmed.Elsewhere)
	require.Equal(t, 10, warmed.NotFound)
	for _, c := range fleet {
		warmed, err := aside.Warm(t.Context(), c, upTo(10), itemKey, load, w)
		require.NoError(t, err)
		require.True(t, warmed.Elsewhere, "it was done less than Every ago")
	}
	other, err := aside.Warm(t.Context(), fleet[1], upTo(10), itemKey, load, aside.Warming{Name: "others"})
	require.NoError(t, err)
	require.False(t, other.Elsewhere)
	left := server.MustDo(t, "PTTL", "%w:items").(int64)
	require.InDelta(t, time.Hour.Milliseconds(), left, 60_000)
	asidetest.Eventually(t, "without Every the next one may begin at once", func() bool {
		again, err := aside.Warm(t.Context(), fleet[2], upTo(10), itemKey, load, aside.Warming{Name: "others"})
		require.NoError(t, err)
		return !again.Elsewhere
	})
}

func TestAWarmingThatIsCutOffLeavesItsNameToOthers(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		w := aside.Warming{Name: "items", Every: time.Hour, Batch: 1, AtOnce: 1}
		ctx, cancel := context.WithCancel(t.Context())
		_, err := aside.Warm(ctx, c, upTo(10), itemKey, func(_ context.Context, ids []int) (map[int]string, error) {
			cancel()
			return map[int]string{}, nil
		}, w)
		require.ErrorIs(t, err, context.Canceled)
		src := new(table)
		asidetest.Eventually(t, "another one begins", func() bool {
			warmed, err := aside.Warm(t.Context(), c, upTo(10), itemKey, src.load, w)
			require.NoError(t, err)
			return !warmed.Elsewhere && warmed.Seen == 10
		})
		warmed, err := aside.Warm(t.Context(), c, upTo(10), itemKey, src.load, w)
		require.NoError(t, err)
		require.True(t, warmed.Elsewhere)
	})
}

func TestWarmGoesOnAfterFailuresAndWaitsForRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	c := asidetest.Connected(t, asidetest.At(proxy.Addr()))
	proxy.Refuse(true)
	proxy.CloseConnections()
	asidetest.Eventually(t, "degraded", func() bool { return c.Health().State == aside.StateDegraded })
	src := new(table)
	failing := func(ctx context.Context, ids []int) (map[int]string, error) {
		values, _ := src.load(ctx, ids)
		if !slices.Contains(ids, 3) {
			return values, nil
		}
		delete(values, 3)
		return values, &aside.BatchError[int]{Errors: map[int]error{3: errors.New("this one is broken")}}
	}
	done := warm(t.Context(), c, 20, failing, aside.Warming{Name: "items", Batch: 10})
	select {
	case <-done:
		t.Fatal("it does not wait for Redis")
	case <-time.After(300 * time.Millisecond):
	}
	require.Zero(t, src.loads.Load())
	proxy.Refuse(false)
	got := <-done
	require.NoError(t, got.err)
	got.Took = 0
	require.Equal(t, aside.Warmed{Seen: 20, Loaded: 17, NotFound: 2, Failed: 1}, got.Warmed)
}

func TestMistakesInTheArgumentsOfWarm(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	src := new(table)
	for text, w := range map[string]aside.Warming{
		"Warming.Name":  {Name: "a:b"},
		"200 bytes":     {Name: strings.Repeat("x", 201)},
		"Warming.Every": {Every: time.Hour},
		"at least 1ms":  {Name: "a", Every: 1},
		"Warming.Batch": {Batch: -1},
		"AtOnce":        {AtOnce: -1},
	} {
		_, err := aside.Warm(t.Context(), c, upTo(1), itemKey, src.load, w)
		asidetest.RequireCode(t, err, aside.CodeInvalidArgument, text)
	}
	_, err := aside.Warm[int, string](t.Context(), c, nil, itemKey, src.load, aside.Warming{})
	asidetest.RequireCode(t, err, aside.CodeInvalidArgument)
	_, err = aside.Warm(t.Context(), nil, upTo(1), itemKey, src.load, aside.Warming{})
	asidetest.RequireCode(t, err, aside.CodeInvalidArgument)
	_, err = aside.Warm(t.Context(), c, upTo(1), func(int) aside.Key { return aside.Key{} }, src.load, aside.Warming{})
	asidetest.RequireCode(t, err, aside.CodeInvalidKey)
	var none *aside.Loader[int, string]
	_, err = none.Warm(t.Context(), upTo(1), aside.Warming{})
	asidetest.RequireCode(t, err, aside.CodeInvalidArgument)
	require.Zero(t, src.loads.Load())
	require.NoError(t, c.Close())
	_, err = aside.Warm(t.Context(), c, upTo(1), itemKey, src.load, aside.Warming{})
	require.ErrorIs(t, err, aside.ErrClosed)
}
