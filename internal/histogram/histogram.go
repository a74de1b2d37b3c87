// Package histogram counts observations in buckets whose upper bounds are 2^(i/4) for whole i, without a lock. A quantile that is read from the
// buckets is at most 19% above the exact one. All powers of 2 are bounds, so the counts of coarser buckets are sums of these.
package histogram

import (
	"math"
	"sync/atomic"
	"time"
)

// Most is how many buckets a histogram has.
const Most = octaves*perOctave + 1

const (
	perOctave = 4
	octaves   = 40              // times up to 12 days, sizes up to 1 TiB; larger ones are in the last bucket
	shortest  = -20 * perOctave // 2^-20 s, a microsecond; shorter times are in the first bucket
	smallest  = 0               // one byte
)

// steps are the bounds within an octave, 2^(-3/4) to 2^0.
var steps = [perOctave]float64{0.5946035575013605, 0.7071067811865476, 0.8408964152537145, 1}

// upper is the upper bound 2^(i/4) of bucket i.
func upper(i int) float64 { return math.Ldexp(steps[(i-1)&3], (i-1)>>2+1) }

// uppers are the upper bounds of all buckets, those of times and of sizes.
var uppers = func() (all [octaves*perOctave + 1 - shortest]float64) {
	for i := range all {
		all[i] = upper(i + shortest)
	}
	return all
}()

// bucketOf is the number of the bucket for v, whose upper bound is the first one that is not below v.
func bucketOf(v float64) int {
	fraction, octave := math.Frexp(v) // v = fraction * 2^octave, and fraction is at least 1/2
	if fraction == 0.5 {
		return (octave - 1) * perOctave
	}
	step := 0
	for fraction > steps[step] {
		step++
	}
	return (octave-1)*perOctave + 1 + step
}

// counts are the buckets from a lowest one.
type counts struct {
	sum     atomic.Int64
	buckets [Most]atomic.Uint64
}

func (c *counts) add(n int64, v float64, lowest int) {
	i := 0
	if v > 0 {
		i = min(max(bucketOf(v)-lowest, 0), len(c.buckets)-1)
	}
	c.buckets[i].Add(1)
	c.sum.Add(max(n, 0))
}

// each calls bucket with the upper bound and the count of each bucket that is not empty, smaller ones first.
func (c *counts) each(lowest int, bucket func(upper float64, n uint64)) {
	for i := range c.buckets {
		if n := c.buckets[i].Load(); n > 0 {
			bucket(uppers[i+lowest-shortest], n)
		}
	}
}

// Times counts durations. Its bounds are seconds. The zero value is ready.
type Times struct{ counts }

// Observe counts a duration.
func (t *Times) Observe(d time.Duration) { t.add(int64(d), d.Seconds(), shortest) }

// Read returns the sum of all durations in seconds, and calls bucket with the upper bound and the count of each bucket that is not empty, smaller ones
// first. It does not keep bucket, so what that refers to need not be allocated.
func (t *Times) Read(bucket func(upper float64, n uint64)) (seconds float64) {
	seconds = time.Duration(t.sum.Load()).Seconds()
	t.each(shortest, bucket)
	return seconds
}

// Sizes counts sizes in bytes. The zero value is ready.
type Sizes struct{ counts }

// Observe counts a size.
func (s *Sizes) Observe(bytes int64) { s.add(bytes, float64(bytes), smallest) }

// Read is Times.Read for sizes in bytes.
func (s *Sizes) Read(bucket func(upper float64, n uint64)) (bytes float64) {
	bytes = float64(s.sum.Load())
	s.each(smallest, bucket)
	return bytes
}
