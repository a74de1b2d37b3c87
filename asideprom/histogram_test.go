package asideprom

import (
	"math"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

func TestBoundsArePowersOf4(t *testing.T) {
	t.Parallel()
	require.Equal(t, []float64{1.0 / 16384, 1.0 / 4096, 1.0 / 1024, 1.0 / 256, 1.0 / 64, 1.0 / 16, 0.25, 1, 4, 16, 64, 256}, distributions[0].bounds)
	require.Equal(t, distributions[0].bounds, distributions[1].bounds)
	require.Equal(t, []float64{64, 256, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26}, distributions[2].bounds)
}

// anyHistogram has some of the buckets that an aside.Histogram can have, and the observations from which it is made.
func anyHistogram(lowest, highest int) (h aside.Histogram, observed []float64) {
	for i := lowest; i <= highest; i++ {
		if rand.IntN(3) > 0 {
			continue
		}
		b := aside.Bucket{Upper: math.Exp2(float64(i) / 4), Count: 1 + rand.Uint64N(5)}
		if i%4 == 0 {
			b.Upper = math.Ldexp(1, i/4)
		}
		h.Buckets = append(h.Buckets, b)
		h.Count += b.Count
		for range b.Count {
			v := b.Upper // the bound itself, or something in the bucket
			if rand.IntN(2) == 0 {
				v = b.Upper * (0.85 + 0.14*rand.Float64())
			}
			h.Sum += v
			observed = append(observed, v)
		}
	}
	return h, observed
}

func written(t *testing.T, m prometheus.Metric) *dto.Histogram {
	t.Helper()
	var out dto.Metric
	require.NoError(t, m.Write(&out))
	require.Len(t, out.Label, 1)
	require.Equal(t, "models", out.Label[0].GetValue())
	return out.Histogram
}

// The counts up to each bound are exact: they are those of the observations themselves.
func TestClassicBucketsAreExact(t *testing.T) {
	t.Parallel()
	desc := prometheus.NewDesc("x", "x", []string{labelLabel}, nil)
	for range 100 {
		for _, of := range []struct {
			bounds          []float64
			lowest, highest int
		}{{distributions[0].bounds, -80, 80}, {distributions[2].bounds, 0, 160}, {distributions[0].bounds, -3, 3}} {
			a, observed := anyHistogram(of.lowest, of.highest)
			b, more := anyHistogram(of.lowest, of.highest)
			observed = append(observed, more...)
			var h histogram
			h.add(a)
			h.add(b)
			for _, native := range []bool{false, true} {
				out := written(t, h.metric(desc, of.bounds, native, "models"))
				require.EqualValues(t, len(observed), out.GetSampleCount())
				require.InDelta(t, a.Sum+b.Sum, out.GetSampleSum(), 1e-6*(a.Sum+b.Sum))
				require.Len(t, out.Bucket, len(of.bounds))
				for i, bucket := range out.Bucket {
					require.Equal(t, of.bounds[i], bucket.GetUpperBound())
					want := 0
					for _, v := range observed {
						if v <= bucket.GetUpperBound() {
							want++
						}
					}
					require.EqualValues(t, want, bucket.GetCumulativeCount(), "up to %v", bucket.GetUpperBound())
				}
				require.Equal(t, native, out.Schema != nil)
			}
		}
	}
}

// A native histogram has the buckets of the aside.Histogram, as they are.
func TestNativeBucketsAreThoseOfTheHistogram(t *testing.T) {
	t.Parallel()
	desc := prometheus.NewDesc("x", "x", []string{labelLabel}, nil)
	for range 100 {
		h, _ := anyHistogram(-80, 80)
		var sum histogram
		sum.add(h)
		out := written(t, sum.metric(desc, distributions[0].bounds, true, "models"))
		require.EqualValues(t, schema, out.GetSchema())
		require.Zero(t, out.GetZeroThreshold())
		require.Zero(t, out.GetZeroCount())
		require.Empty(t, out.NegativeSpan)
		require.Nil(t, out.CreatedTimestamp, "it is not known since when they count")
		var buckets []aside.Bucket
		index, count, deltas := 0, int64(0), slices.Clone(out.PositiveDelta)
		for _, span := range out.PositiveSpan {
			index += int(span.GetOffset())
			for range span.GetLength() {
				count += deltas[0]
				deltas = deltas[1:]
				if count > 0 {
					buckets = append(buckets, aside.Bucket{Upper: math.Exp2(float64(index) / 4), Count: uint64(count)})
				}
				index++
			}
		}
		require.Empty(t, deltas)
		require.Len(t, buckets, len(h.Buckets))
		for i, b := range h.Buckets {
			require.Equal(t, b.Count, buckets[i].Count)
			require.InEpsilon(t, b.Upper, buckets[i].Upper, 1e-9)
		}
	}
}

// An empty histogram is there, a native one too: a span without buckets is what says that it is native.
func TestAnEmptyHistogramIsThere(t *testing.T) {
	t.Parallel()
	desc := prometheus.NewDesc("x", "x", []string{labelLabel}, nil)
	out := written(t, new(histogram).metric(desc, distributions[0].bounds, true, "models"))
	require.Zero(t, out.GetSampleCount())
	require.Len(t, out.Bucket, len(distributions[0].bounds))
	require.Len(t, out.PositiveSpan, 1)
}

func TestTheVersionIsThatOfTheLibrary(t *testing.T) {
	t.Parallel()
	library := func(m debug.Module) *debug.Module { m.Path = module; return &m }
	for name, of := range map[string]struct {
		info debug.BuildInfo
		want string
	}{
		"a dependency": {debug.BuildInfo{Main: debug.Module{Path: "example.com/program", Version: "v9.0.0"},
			Deps: []*debug.Module{{Path: module + "/asideprom", Version: "v1.1.0"}, library(debug.Module{Version: "v1.2.3"})}}, "v1.2.3"},
		"the program":        {debug.BuildInfo{Main: *library(debug.Module{Version: "v1.2.4"})}, "v1.2.4"},
		"a working copy":     {debug.BuildInfo{Main: *library(debug.Module{Version: "(devel)"})}, ""},
		"another one":        {debug.BuildInfo{Deps: []*debug.Module{library(debug.Module{Version: "v1.2.3", Replace: &debug.Module{Path: "example.com/fork", Version: "v1.3.0"}})}}, "v1.3.0"},
		"a directory":        {debug.BuildInfo{Deps: []*debug.Module{library(debug.Module{Version: "v1.2.3", Replace: &debug.Module{Path: "../aside"}})}}, ""},
		"without the module": {debug.BuildInfo{}, ""},
	} {
		require.Equal(t, of.want, versionIn(&of.info), name)
	}
}
