package asideprom

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/gatewayz/aside"
)

// powersOf4 are the powers of 4 with the exponents from first to last.
func powersOf4(first, last int) (bounds []float64) {
	for i := first; i <= last; i++ {
		bounds = append(bounds, math.Ldexp(1, 2*i))
	}
	return bounds
}

// A histogram is the sum of some aside.Histograms. The zero value is empty.
type histogram struct {
	count   uint64
	sum     float64
	buckets []aside.Bucket // in no order, a bound can be there more than once
}

func (h *histogram) add(more aside.Histogram) {
	h.sum += more.Sum
	for _, b := range more.Buckets {
		h.count += b.Count
		h.buckets = append(h.buckets, b)
	}
}

// classic are the observations up to each bound. They are exact if the bounds are among those of the buckets.
func (h *histogram) classic(bounds []float64) map[float64]uint64 {
	upTo := make(map[float64]uint64, len(bounds))
	for _, bound := range bounds {
		sum := uint64(0)
		for _, b := range h.buckets {
			if b.Upper <= bound {
				sum += b.Count
			}
		}
		upTo[bound] = sum
	}
	return upTo
}

// schema is that of native histograms whose bounds are the powers of 2^(2^-2), which are those of aside.Histogram.
const schema = 2

// native are the observations by the index of their bucket in that schema: its upper bound is 2^(index/4).
func (h *histogram) native() map[int]int64 {
	buckets := make(map[int]int64, len(h.buckets))
	for _, b := range h.buckets {
		buckets[int(math.Round(4*math.Log2(b.Upper)))] += int64(b.Count)
	}
	return buckets
}

func (h *histogram) metric(desc *prometheus.Desc, bounds []float64, native bool, labels ...string) prometheus.Metric {
	classic := prometheus.MustNewConstHistogram(desc, h.count, h.sum, h.classic(bounds), labels...)
	if !native {
		return classic
	}
	return both{prometheus.MustNewConstNativeHistogram(desc, h.count, h.sum, h.native(), nil, 0, schema, 0, time.Time{}, labels...), classic}
}

// both is a native histogram with the buckets of a classic one. The library makes such histograms of observations alone, not of counts.
type both struct {
	prometheus.Metric // the native one
	classic           prometheus.Metric
}

func (b both) Write(out *dto.Metric) error {
	var classic dto.Metric
	if err := b.classic.Write(&classic); err != nil {
		return err
	}
	if err := b.Metric.Write(out); err != nil {
		return err
	}
	out.Histogram.Bucket = classic.Histogram.Bucket
	out.Histogram.CreatedTimestamp = nil // not known
	return nil
}
