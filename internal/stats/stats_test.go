package stats

import (
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// Stale values and "not found" are inside the hits, wherever they came from.
func TestStaleAndNegativeHitsAreHits(t *testing.T) {
	t.Parallel()
	var c Counters
	c.CountHit(Hit{InMemory: true})
	c.CountHit(Hit{InMemory: true, Stale: true})
	c.CountHit(Hit{Stale: true})
	c.CountHit(Hit{Stale: true, NotFound: true})
	c.CountMiss(Absent)
	c.CountFallback(Unavailable)
	require.EqualValues(t, 2, c.MemoryHits.Load())
	require.EqualValues(t, 2, c.RedisHits.Load())
	require.EqualValues(t, 3, c.StaleHits.Load())
	require.EqualValues(t, 1, c.NegativeHits.Load())
	require.EqualValues(t, 2, c.AllMisses())
	require.EqualValues(t, 1, c.Fallbacks.Load())
	require.EqualValues(t, 6, c.Calls())
}

func TestEveryCallIsCountedAsOne(t *testing.T) {
	t.Parallel()
	var r Registry
	for name, count := range map[string]func(c *Counters){
		"memory":   func(c *Counters) { c.CountHit(Hit{InMemory: true}) },
		"redis":    func(c *Counters) { c.CountHit(Hit{Stale: true, NotFound: true}) },
		"miss":     func(c *Counters) { c.CountMiss(Expired) },
		"fallback": func(c *Counters) { c.CountFallback(Unavailable) },
	} {
		before := r.Calls()
		count(r.Label("a", true))
		count(r.Label("b", true))
		require.Equal(t, before+2, r.Calls(), name)
	}
}

func TestLabelsMetInCallsAreBounded(t *testing.T) {
	t.Parallel()
	var r Registry
	listed := r.Label("listed", true)
	for i := range MostLabels {
		require.NotSame(t, listed, r.Label(strconv.Itoa(i), false))
	}
	others := r.Label("one more", false)
	require.Same(t, others, r.Label("another one", false))
	require.NotSame(t, others, r.Label("listed later", true))
	require.Same(t, listed, r.Label("listed", false))
	all := maps.Collect(r.All())
	require.Len(t, all, MostLabels+3)
	require.Same(t, others, all[OtherLabels])
	require.ElementsMatch(t, slices.Collect(maps.Keys(all)), slices.Collect(r.Labels()))
}

func TestAStripedCounterLosesNothing(t *testing.T) {
	t.Parallel()
	var s Striped
	require.EqualValues(t, 64, unsafe.Sizeof(s[0]), "a stripe is a cache line")
	var goroutines sync.WaitGroup
	for range 8 {
		goroutines.Go(func() {
			for range 1000 {
				s.Add()
			}
		})
	}
	goroutines.Wait()
	require.EqualValues(t, 8000, s.Load())
}
