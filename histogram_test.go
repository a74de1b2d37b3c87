package aside

import (
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/histogram"
	"github.com/gatewayz/aside/internal/stats"
)

// A quantile is never below the exact one, and at most 19% above.
func TestQuantilesAreWithin19PercentOfTheExactOnes(t *testing.T) {
	t.Parallel()
	for range 200 {
		var times histogram.Times
		exact := make([]float64, 1+rand.IntN(500))
		for i := range exact {
			d := time.Duration(math.Exp2(40*rand.Float64())) + time.Microsecond // to 18 minutes
			if i > 0 && rand.IntN(4) == 0 {
				d = time.Duration(exact[i-1] * 1e9)
			}
			times.Observe(d)
			exact[i] = d.Seconds()
		}
		slices.Sort(exact)
		h := timesOf(&times)
		require.EqualValues(t, len(exact), h.Count)
		for _, q := range []float64{0, 0.01, 0.25, 0.5, 0.9, 0.99, 1} {
			want := exact[max(0, int(math.Ceil(q*float64(len(exact))))-1)]
			got := h.Quantile(q)
			require.GreaterOrEqual(t, got, want, q)
			require.LessOrEqual(t, got, want*1.1893, q)
		}
	}
	require.Zero(t, Histogram{}.Quantile(0.5))
}

func TestMinusIsWhatCameSince(t *testing.T) {
	t.Parallel()
	var times histogram.Times
	times.Observe(time.Second)
	times.Observe(time.Minute)
	before := timesOf(&times)
	times.Observe(time.Second)
	times.Observe(4 * time.Second)
	after := timesOf(&times)
	require.Equal(t, Histogram{Count: 2, Sum: 5, Buckets: []Bucket{{1, 1}, {4, 1}}}, after.Minus(before))
	require.Equal(t, after, after.Minus(Histogram{}))
	require.Equal(t, Histogram{Sum: 0}, after.Minus(after))
	require.Empty(t, before.Minus(after).Buckets, "the earlier one is subtracted from the later one, and nothing is below zero")
}

// While calls are counted, no counter that is read goes back, and the parts of each reading add up.
func TestCountersNeverGoBack(t *testing.T) {
	t.Parallel()
	var c stats.Counters
	var over atomic.Bool
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for i := 0; !over.Load(); i++ {
				c.CountMiss(stats.Cause(i % stats.Causes))
				c.CountEnd(stats.Ending(i%stats.Endings), time.Duration(i))
			}
		})
	}
	var last LabelMetrics
	for range 1000 {
		m := snapshot(&c).inDetail(&c)
		var misses, endings uint64
		for cause, n := range m.Causes {
			require.GreaterOrEqual(t, n, last.Causes[cause])
			misses += n
		}
		for outcome, n := range m.Outcomes {
			require.GreaterOrEqual(t, n, last.Outcomes[outcome])
			endings += n
		}
		require.Equal(t, misses, m.Misses)
		require.GreaterOrEqual(t, m.LoadTimes.Count, endings-min(endings, 4), "one a writer may be between the two")
		require.GreaterOrEqual(t, m.LoadTimes.Count, last.LoadTimes.Count)
		last = m
	}
	over.Store(true)
	writers.Wait()
}

// BenchmarkMetrics is a reading of 32 labels that have counted something of everything.
func BenchmarkMetrics(b *testing.B) {
	c, err := New(Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	defer c.Close()
	for i := range 32 {
		counters := c.metrics.Label(fmt.Sprint("label ", i), true)
		for n := range 1000 {
			counters.CountMiss(stats.Cause(n % stats.Causes))
			counters.CountEnd(stats.Ending(n%stats.Endings), time.Duration(rand.ExpFloat64()*float64(time.Second)))
			counters.CallTimes.Observe(time.Duration(rand.ExpFloat64() * float64(time.Second)))
			counters.ValueBytes.Observe(int64(rand.ExpFloat64() * 10_000))
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		c.Metrics()
	}
}
