// Package history keeps what a cache has counted in the last hour, so that an operator's page can show rates and quantiles of a recent time. It
// subtracts only counters of one process from each other: those of the process that it runs in.
package history

import (
	"cmp"
	"maps"
	"slices"

	"github.com/gatewayz/aside"
)

// Figures are what a label has counted: since the start of the process, or in a period of it.
type Figures struct {
	Calls, Hits, Stale, Negative, Loads, Errors, Overloads uint64

	Causes    map[aside.Cause]uint64 // of the misses
	LoadTimes aside.Histogram        // in seconds
	CallTimes aside.Histogram
}

// figuresOf takes from a label's counters what is shown. It shares their maps and buckets, which nobody changes.
func figuresOf(m aside.LabelMetrics) Figures {
	return Figures{
		Calls: m.Requests(), Hits: m.Hits, Stale: m.StaleHits, Negative: m.NegativeHits, Loads: m.Loads, Errors: m.Errors, Overloads: m.Overloads,
		Causes: m.Causes, LoadTimes: m.LoadTimes, CallTimes: m.CallTimes,
	}
}

// plus adds the figures of another label, or of another period.
func (f Figures) plus(g Figures) Figures {
	return Figures{
		Calls: f.Calls + g.Calls, Hits: f.Hits + g.Hits, Stale: f.Stale + g.Stale, Negative: f.Negative + g.Negative,
		Loads: f.Loads + g.Loads, Errors: f.Errors + g.Errors, Overloads: f.Overloads + g.Overloads,
		Causes: sum(f.Causes, g.Causes), LoadTimes: merged(f.LoadTimes, g.LoadTimes), CallTimes: merged(f.CallTimes, g.CallTimes),
	}
}

// minus takes away the figures of an earlier time of the same label in the same process.
func (f Figures) minus(earlier Figures) Figures {
	causes := maps.Clone(f.Causes)
	for why, n := range earlier.Causes {
		causes[why] -= n
	}
	return Figures{
		Calls: f.Calls - earlier.Calls, Hits: f.Hits - earlier.Hits, Stale: f.Stale - earlier.Stale, Negative: f.Negative - earlier.Negative,
		Loads: f.Loads - earlier.Loads, Errors: f.Errors - earlier.Errors, Overloads: f.Overloads - earlier.Overloads,
		Causes: causes, LoadTimes: f.LoadTimes.Minus(earlier.LoadTimes), CallTimes: f.CallTimes.Minus(earlier.CallTimes),
	}
}

func sum[K comparable](a, b map[K]uint64) map[K]uint64 {
	all := make(map[K]uint64, max(len(a), len(b)))
	for _, part := range []map[K]uint64{a, b} {
		for k, n := range part {
			all[k] += n
		}
	}
	return all
}

// merged has the observations of both histograms. Their buckets have the same bounds.
func merged(a, b aside.Histogram) aside.Histogram {
	counts := make(map[float64]uint64, len(a.Buckets)+len(b.Buckets))
	for _, part := range [][]aside.Bucket{a.Buckets, b.Buckets} {
		for _, bucket := range part {
			counts[bucket.Upper] += bucket.Count
		}
	}
	all := aside.Histogram{Count: a.Count + b.Count, Sum: a.Sum + b.Sum, Buckets: make([]aside.Bucket, 0, len(counts))}
	for upper, n := range counts {
		all.Buckets = append(all.Buckets, aside.Bucket{Upper: upper, Count: n})
	}
	slices.SortFunc(all.Buckets, func(a, b aside.Bucket) int { return cmp.Compare(a.Upper, b.Upper) })
	return all
}
