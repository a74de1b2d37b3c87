package histogram

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// An observation is in the bucket whose bound is the first one that is not below it.
func TestABucketHasWhatIsBetweenItsBounds(t *testing.T) {
	t.Parallel()
	for i := shortest; i <= octaves*perOctave; i++ {
		bound := upper(i)
		require.InEpsilon(t, math.Exp2(float64(i)/perOctave), bound, 1e-12)
		require.Equal(t, i, bucketOf(bound), "a bound belongs to its bucket")
		require.Equal(t, i+1, bucketOf(math.Nextafter(bound, math.Inf(1))))
		require.Equal(t, i, bucketOf(math.Nextafter(bound, 0)))
	}
	for range 1000 {
		v := math.Exp2(60*rand.Float64() - 20)
		i := bucketOf(v)
		require.LessOrEqual(t, v, upper(i))
		require.Greater(t, v, upper(i-1))
	}
}

func TestTimesAndSizesOutsideOfAllBoundsAreCountedToo(t *testing.T) {
	t.Parallel()
	var times Times
	for _, d := range []time.Duration{math.MinInt64, -1, 0, 1, time.Second, 1000 * 24 * time.Hour} {
		times.Observe(d)
	}
	counts := map[float64]uint64{}
	note := func(bound float64, n uint64) { counts[bound] = n }
	require.InDelta(t, 1000*24*3600+1, times.Read(note), 1e-6)
	require.Equal(t, map[float64]uint64{upper(shortest): 4, 1: 1, math.Exp2(20): 1}, counts)

	var sizes Sizes
	for _, n := range []int64{-1, 0, 1, 64, 1 << 50} {
		sizes.Observe(n)
	}
	clear(counts)
	require.EqualValues(t, 1<<50+65, sizes.Read(note))
	require.Equal(t, map[float64]uint64{1: 3, 64: 1, math.Exp2(40): 1}, counts)
}

func TestNothingIsLostBetweenGoroutines(t *testing.T) {
	t.Parallel()
	var times Times
	var goroutines sync.WaitGroup
	for range 8 {
		goroutines.Go(func() {
			for range 1000 {
				times.Observe(time.Second)
			}
		})
	}
	goroutines.Wait()
	require.EqualValues(t, 8000, times.Read(func(bound float64, n uint64) {
		require.EqualValues(t, 1, bound)
		require.EqualValues(t, 8000, n)
	}))
}

func BenchmarkObserve(b *testing.B) {
	var times Times
	b.ReportAllocs()
	for i := range b.N {
		times.Observe(time.Duration(i))
	}
}
