package contract_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

// A loader wraps ErrNotFound with what the source has said. That lies in memory as long as the "not found" does, so it counts there
// like a value.
func TestWhatANotFoundSaysCountsForMaxBytes(t *testing.T) {
	for _, text := range []int{1 << 20, 32 << 10} { // longer than what is kept of it, and not
		c := asidetest.NewCache(t, aside.Options{MaxBytes: 8 << 20})
		before := heapInUse()
		for i := range 100 << 20 / text {
			_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key(i), func(context.Context) (int, error) {
				return 0, fmt.Errorf("the source has %s of %d: %w", strings.Repeat("n", text), i, aside.ErrNotFound)
			})
			require.ErrorIs(t, err, aside.ErrNotFound)
		}
		require.Less(t, heapInUse()-before, int64(40<<20), "bytes, where MaxBytes is 8 MiB and a text has %d", text)
		runtime.KeepAlive(c)
	}
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Nor is it loaded again and again for its size.
func TestANotFoundThatSaysVeryMuchIsCached(t *testing.T) {
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{MaxValueBytes: 1 << 20})
		loads := 0
		for range 3 {
			_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), func(context.Context) (int, error) {
				loads++
				return 0, fmt.Errorf("nothing: %s: %w", strings.Repeat("n", 2<<20), aside.ErrNotFound)
			})
			require.ErrorIs(t, err, aside.ErrNotFound)
			require.ErrorContains(t, err, "not")
			asidetest.Eventually(t, "it is cached", func() bool {
				_, err := aside.Get[int](t.Context(), c, asidetest.Items.Key("a"))
				return !errors.Is(err, aside.ErrMiss)
			})
		}
		require.Equal(t, 1, loads)
	})
}

// missing is a "not found" with what a source goes on writing to, under a lock that lies elsewhere.
type missing struct{ Seen map[string]int }

func (m *missing) Error() string { return "missing" }

func (m *missing) Unwrap() error { return aside.ErrNotFound }

// Hazard 136.
func TestWhatANotFoundHoldsIsNotReadWhileTheProgramWritesToIt(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		shared := &missing{Seen: map[string]int{}}
		var mu sync.Mutex
		stop, over := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(over)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				mu.Lock()
				shared.Seen[strconv.Itoa(i%100)]++
				mu.Unlock()
				runtime.Gosched()
			}
		}()
		for i := range 100 {
			_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key(i), func(context.Context) (int, error) { return 0, shared })
			require.Same(t, shared, err)
		}
		close(stop)
		<-over
	})
}
