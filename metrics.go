package aside

import (
	"cmp"
	"context"
	"encoding/json"
	"reflect"
	"time"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/histogram"
	"github.com/gatewayz/aside/internal/sampler"
	"github.com/gatewayz/aside/internal/stats"
)

// Metrics is a snapshot of a cache's counters since New, one set for each label, and of what the cache holds at present. A policy's Label is its
// category by default. Metrics marshals to
//
//	{"metrics":{"models":{"hits":1250,"misses":50,"errors":0,"hitRate":0.96,…},…},…}
type Metrics struct {
	Labels map[string]LabelMetrics `json:"metrics"`
	// InvalidationMessages counts the invalidation messages from Redis, those about this process's own changes included.
	InvalidationMessages uint64 `json:"invalidationMessages"`
	// TrackingLost counts how often this process could have missed invalidation messages: a connection broke, everything was flushed, or the
	// cache was not used for a minute. L1 entries from before the loss are not fresh any more.
	TrackingLost uint64 `json:"trackingLost"`
	// TrackingPaused counts how many of TrackingLost were because the cache was not used for a minute, which is no fault.
	TrackingPaused uint64 `json:"trackingPaused"`
	// RedisErrors counts invalidations by category, tag or pattern, and of everything, that Redis did not confirm at once. They have no label.
	RedisErrors uint64 `json:"redisErrors"`

	// At is the time of this snapshot. Process identifies the process by its host, its pid and its start: a monitor that reaches several processes
	// by one address must not subtract the counters of one process from those of another.
	At      time.Time `json:"at"`
	Process string    `json:"process"`

	InMemory      MemoryMetrics     `json:"inMemory"`
	Loading       LoadingMetrics    `json:"loading"`
	Journal       JournalMetrics    `json:"journal"`
	Invalidations map[string]uint64 `json:"invalidations"` // calls of this process, by "keys", "tags", "category", "pattern" and "all"

	// Redis has the durations of round trips to Redis, in seconds, by "read", "lease", "fill", "invalidate" and "sweep": it has all of them, in memory
	// mode without observations. It has each round trip that Redis has answered, if only with an error, and those that Redis has not answered in
	// time, with the time after which this process gave up. A broken connection, a caller that has gone, and a call that was not sent, since Redis
	// was unavailable, are no observations. In a cluster each node is a round trip of its own.
	Redis map[string]Histogram `json:"redis"`
	// Swept counts the values that the cleanup behind InvalidateCategory, InvalidateTags and InvalidateAll has removed: from Redis, in memory mode from
	// memory. See Receipt.WaitCleanup for one invalidation.
	Swept uint64 `json:"swept"`
}

// LabelMetrics has the counters of one label. Each call counts once, in Hits or in Misses. The counters are exact, but read while calls run
// they may be a few calls apart from each other.
type LabelMetrics struct {
	Hits   uint64 `json:"hits"`   // calls that were answered from the cache: MemoryHits and RedisHits, cached "not found" and stale values included
	Misses uint64 `json:"misses"` // calls that loaded, waited for a load, or failed
	Errors uint64 `json:"errors"` // failures of every kind: the sum of the four below

	LoadErrors   uint64 `json:"loadErrors"`   // loads that failed; ErrNotFound is not a failure
	RedisErrors  uint64 `json:"redisErrors"`  // operations on Redis that failed or timed out, or found it unavailable
	DecodeErrors uint64 `json:"decodeErrors"` // values in Redis that could not be used
	EncodeErrors uint64 `json:"encodeErrors"` // loaded values that could not be stored: refused by the codec, or too large

	MemoryHits    uint64        `json:"memoryHits"`    // hits in this process's memory
	RedisHits     uint64        `json:"redisHits"`     // hits in Redis
	NegativeHits  uint64        `json:"negativeHits"`  // of the hits, those on a cached "not found"; they are in MemoryHits or RedisHits too
	StaleHits     uint64        `json:"staleHits"`     // of the hits, those with StatusStale: past the TTL, or Redis could not confirm the value; they are in MemoryHits or RedisHits too
	Fallbacks     uint64        `json:"fallbacks"`     // of the misses, those that loaded because Redis was unavailable or failed
	Loads         uint64        `json:"loads"`         // loader calls
	LoadTime      time.Duration `json:"-"`             // total time in loaders
	Overloads     uint64        `json:"overloads"`     // loads that were refused, because the queue was full or too many loaders had not returned after their LoadTimeout
	FillsRejected uint64        `json:"fillsRejected"` // loaded values that were not stored, because they were invalidated during the load

	Refreshes        uint64 `json:"refreshes"`        // loads in the background, behind calls that got the cached value; they are in Loads too
	RefreshErrors    uint64 `json:"refreshErrors"`    // refreshes that failed
	RefreshesSkipped uint64 `json:"refreshesSkipped"` // refreshes that were due and not made: another process loaded the value, too many loads ran, or Redis did not answer
	Unreturned       int64  `json:"unreturned"`       // loaders that have not returned after their LoadTimeout, at present
	StaleOnError     uint64 `json:"staleOnError"`     // of the stale hits, those in place of a load that failed or took longer than SoftTimeout
	SoftTimeouts     uint64 `json:"softTimeouts"`     // of StaleOnError, those in place of a load that took longer than SoftTimeout
	NotModified      uint64 `json:"notModified"`      // loads whose source said that the cached value has not changed

	Causes   map[Cause]uint64   `json:"causes"`   // misses by cause: it has all causes, and their sum is Misses
	Outcomes map[Outcome]uint64 `json:"outcomes"` // ended loader calls by outcome: it has all outcomes, and their sum is Loads without the loader calls that still run

	LoadTimes  Histogram `json:"loadTimes"`  // durations of the loader calls in Outcomes, in seconds; a loader that exceeds its LoadTimeout counts with the LoadTimeout
	CallTimes  Histogram `json:"callTimes"`  // durations of the calls that memory could not answer, in seconds; hits in memory are not timed
	ValueBytes Histogram `json:"valueBytes"` // sizes of stored values, in bytes: encoded and compressed; in memory mode estimated

	// Samples of Options.ConsistencyCheck. The JSON has them only if there were any.
	Checked      uint64 `json:"-"` // samples that were compared with a fresh load
	Inconsistent uint64 `json:"-"` // of these, values that were still served and still different after ConsistencyCheck.SettleTime
	Unchecked    uint64 `json:"-"` // samples that were skipped: over ConsistencyCheck.MaxPerSecond, no longer cached, or the load failed or had no place
}

// A Histogram has the observations of a quantity in buckets, whose upper bounds are the powers of 2^(1/4) = 1.19. It marshals to
// {"count":…,"sum":…,"p50":…,"p99":…}.
type Histogram struct {
	Count   uint64   // observations
	Sum     float64  // of all observations
	Buckets []Bucket // those that are not empty, smaller ones first
}

// A Bucket counts the observations up to and including Upper, and above the next smaller bound.
type Bucket struct {
	Upper float64
	Count uint64
}

// Quantile returns the upper bound of the bucket that has the q-quantile, for q from 0 to 1: at most 19% more than the exact quantile, and 0 without
// observations. Times below a microsecond count as a microsecond, times above 12 days as 12 days, and sizes above 1 TiB as 1 TiB.
func (h Histogram) Quantile(q float64) float64 {
	rank, sum := q*float64(h.Count), uint64(0)
	for _, b := range h.Buckets {
		if sum += b.Count; float64(sum) >= rank {
			return b.Upper
		}
	}
	return 0
}

// Minus returns the observations since an earlier state of the same histogram. Do not subtract the histograms of two processes, or of a process
// before and after its restart.
func (h Histogram) Minus(earlier Histogram) Histogram {
	before := make(map[float64]uint64, len(earlier.Buckets))
	for _, b := range earlier.Buckets {
		before[b.Upper] = b.Count
	}
	since := Histogram{Sum: h.Sum - earlier.Sum}
	for _, b := range h.Buckets {
		if old := before[b.Upper]; b.Count > old {
			since.Buckets = append(since.Buckets, Bucket{b.Upper, b.Count - old})
			since.Count += b.Count - old
		}
	}
	return since
}

// MarshalJSON writes count, sum, p50 and p99, and no buckets.
func (h Histogram) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Count uint64  `json:"count"`
		Sum   float64 `json:"sum"`
		P50   float64 `json:"p50"`
		P99   float64 `json:"p99"`
	}{h.Count, h.Sum, h.Quantile(0.5), h.Quantile(0.99)})
}

// A collection is the buckets of a histogram while it is read. It lies on the stack.
type collection struct {
	buckets [histogram.Most]Bucket
	filled  int
	count   uint64
}

func (c *collection) add(upper float64, n uint64) {
	c.buckets[c.filled] = Bucket{upper, n}
	c.filled++
	c.count += n
}

// histogram makes a Histogram of the buckets.
func (c *collection) histogram(sum float64) Histogram {
	h := Histogram{Count: c.count, Sum: sum, Buckets: make([]Bucket, c.filled)}
	copy(h.Buckets, c.buckets[:c.filled])
	return h
}

func timesOf(t *histogram.Times) Histogram {
	var c collection
	return c.histogram(t.Read(c.add))
}

func sizesOf(s *histogram.Sizes) Histogram {
	var c collection
	return c.histogram(s.Read(c.add))
}

// Requests is the number of calls.
func (m LabelMetrics) Requests() uint64 { return m.Hits + m.Misses }

// HitRate is the share of calls that were hits, 0 without calls.
func (m LabelMetrics) HitRate() float64 { return ratio(m.Hits, m.Requests()) }

// MissRate is the share of calls that were misses, 0 without calls.
func (m LabelMetrics) MissRate() float64 { return ratio(m.Misses, m.Requests()) }

// ErrorRate is the number of errors per call, 0 without calls. One call can cause several errors.
func (m LabelMetrics) ErrorRate() float64 { return ratio(m.Errors, m.Requests()) }

// InconsistentPerMillion is how many of a million checked hits were inconsistent, 0 without checks.
func (m LabelMetrics) InconsistentPerMillion() float64 { return 1e6 * ratio(m.Inconsistent, m.Checked) }

func ratio(part, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// MarshalJSON adds the rates, LoadTime in seconds, and the mean load time in milliseconds.
func (m LabelMetrics) MarshalJSON() ([]byte, error) {
	type counts LabelMetrics
	mean := 0.0
	if m.Loads > 0 {
		mean = float64(m.LoadTime.Microseconds()) / 1000 / float64(m.Loads)
	}
	var checks *checkFigures
	if m.Checked+m.Unchecked > 0 {
		checks = &checkFigures{m.Checked, m.Inconsistent, m.Unchecked, m.InconsistentPerMillion()}
	}
	return json.Marshal(struct {
		counts
		*checkFigures
		LoadSeconds float64 `json:"loadSeconds"`
		HitRate     float64 `json:"hitRate"`
		MissRate    float64 `json:"missRate"`
		ErrorRate   float64 `json:"errorRate"`
		MeanLoadMS  float64 `json:"meanLoadMs"`
	}{counts(m), checks, m.LoadTime.Seconds(), m.HitRate(), m.MissRate(), m.ErrorRate(), mean})
}

type checkFigures struct {
	Checked                uint64  `json:"checked"`
	Inconsistent           uint64  `json:"inconsistent"`
	Unchecked              uint64  `json:"unchecked"`
	InconsistentPerMillion float64 `json:"inconsistentPerMillion"`
}

// Metrics returns the counters of every label that has counted something. On a nil cache there are none.
func (c *Cache) Metrics() Metrics {
	m := Metrics{
		Labels: map[string]LabelMetrics{}, At: time.Now(), Process: process(),
		Invalidations: make(map[string]uint64, stats.Invalidations), Redis: make(map[string]Histogram, stats.Trips),
	}
	if c == nil || c.engine == nil {
		return m
	}
	for of := range stats.Invalidation(stats.Invalidations) {
		m.Invalidations[of.String()] = c.metrics.Invalidations[of].Load()
	}
	for of := stats.Other + 1; of < stats.Trips; of++ {
		m.Redis[of.String()] = timesOf(&c.metrics.RoundTrips[of])
	}
	m.InMemory, m.Loading, m.Journal, m.Swept = c.usage()
	m.TrackingPaused = c.metrics.TrackingPaused.Load() // before the whole, of which it must not be more
	m.InvalidationMessages, m.TrackingLost, m.RedisErrors = c.metrics.InvalidationMessages.Load(), c.metrics.TrackingLost.Load(), c.metrics.RedisErrors.Load()
	labels := 0
	for range c.metrics.All() {
		labels++
	}
	m.Labels = make(map[string]LabelMetrics, labels)
	for label, counters := range c.metrics.All() {
		s := snapshot(counters)
		used := !reflect.ValueOf(s).IsZero()
		s.ValueBytes = sizesOf(&counters.ValueBytes)
		if used || s.ValueBytes.Count > 0 { // a Set counts nothing else
			m.Labels[label] = s.inDetail(counters)
		}
	}
	return m
}

func snapshot(c *stats.Counters) LabelMetrics {
	m := LabelMetrics{
		LoadErrors:    c.LoadErrors.Load(),
		RedisErrors:   c.RedisErrors.Load(),
		DecodeErrors:  c.DecodeErrors.Load(),
		EncodeErrors:  c.EncodeErrors.Load(),
		Misses:        c.AllMisses(),
		MemoryHits:    c.MemoryHits.Load(),
		RedisHits:     c.RedisHits.Load(),
		NegativeHits:  c.NegativeHits.Load(),
		StaleHits:     c.StaleHits.Load(),
		Overloads:     c.Overloads.Load(),
		Fallbacks:     c.Fallbacks.Load(),
		Loads:         c.Loads.Load(),
		LoadTime:      time.Duration(c.LoadTime.Load()),
		FillsRejected: c.FillsRejected.Load(),

		Refreshes:        c.Refreshes.Load(),
		RefreshErrors:    c.RefreshErrors.Load(),
		RefreshesSkipped: c.RefreshesSkipped.Load(),
		Unreturned:       c.Unreturned.Load(),
		StaleOnError:     c.StaleOnError.Load(),
		SoftTimeouts:     c.SoftTimeouts.Load(),
		NotModified:      c.NotModified.Load(),

		Checked:      c.Checked.Load(),
		Inconsistent: c.Inconsistent.Load(),
		Unchecked:    c.Unchecked.Load(),
	}
	m.Hits = m.MemoryHits + m.RedisHits
	m.Errors = m.LoadErrors + m.RedisErrors + m.DecodeErrors + m.EncodeErrors
	return m
}

// inDetail adds what there are several numbers of. Misses is then the sum of the causes, also while calls go on.
func (m LabelMetrics) inDetail(c *stats.Counters) LabelMetrics {
	m.Causes, m.Outcomes = make(map[Cause]uint64, stats.Causes), make(map[Outcome]uint64, stats.Endings)
	m.Misses = 0
	for why := range stats.Cause(stats.Causes) {
		n := c.Misses[why].Load()
		m.Causes[Cause(why.String())] = n
		m.Misses += n
	}
	for how := range stats.Ending(stats.Endings) {
		m.Outcomes[Outcome(how.String())] = c.Endings[how].Load()
	}
	m.LoadTimes, m.CallTimes = timesOf(&c.LoadTimes), timesOf(&c.CallTimes)
	return m
}

// A ConsistencyCheck compares a sample of hits with a fresh load, in the background. Metrics has its counters: Checked,
// Inconsistent, Unchecked and InconsistentPerMillion. It finds changes that were not invalidated, and invalidations that did not arrive. The
// zero value checks nothing. The idea is that of Meta's Polaris.
//
// A value that differs is not inconsistent at once, since its invalidation may be on its way. It is inconsistent if after SettleTime it is still
// served, was not replaced, and still differs from a fresh load. Then it is counted, and logged with its key at most once in ten seconds.
// Nothing is invalidated, since the loader's source may lag behind. For a policy that relies on its TTL alone, the count shows how often it
// serves old values.
//
// Two values are equal if the policy's Codec encodes them to the same bytes, or if the decoded values are equal by reflect.DeepEqual or by a
// method Equal(T) bool of their type T. So fields that the codec leaves out are not compared. A value that contains the time of its load needs
// an Equal method that ignores it. The codec runs in memory mode too.
//
// Callers are not delayed. Each check costs one loader call, on a context with the values of the sampled call, for the policy's LoadTimeout at
// most; two checks run at once. A check runs only if MaxLoads leaves it a place, and is cancelled when a caller's load needs that place. Errors
// and panics of the loader are not reported: the sample counts as unchecked. Loads and LoadErrors do not count checks.
type ConsistencyCheck struct {
	// SampleRate is the share of hits to sample, from 0 to 1: 0.01 is one in a hundred. Hits in memory and in Redis are sampled, if the call has
	// a loader. Stale hits, and hits inside a check, are not. Default: 0, none.
	SampleRate float64

	// SettleTime is how long an invalidation may take to arrive. A difference that is gone by then is not counted. Default: 10 s.
	SettleTime time.Duration

	// MaxPerSecond bounds how many checks begin in a second in this process, and so how many loads they cost. Samples beyond it count as
	// unchecked. Default: 10. Negative: no limit.
	MaxPerSecond float64
}

func (k ConsistencyCheck) withDefaults() (ConsistencyCheck, []error) {
	var errs []error
	k.SettleTime = min(cmp.Or(k.SettleTime, 10*time.Second), engine.Longest)
	k.MaxPerSecond = cmp.Or(k.MaxPerSecond, 10)
	if !(k.SampleRate >= 0 && k.SampleRate <= 1) { // NaN too
		errs = append(errs, invalidOption("Options.ConsistencyCheck.SampleRate is %v: set a share of the hits from 0, for none, to 1", k.SampleRate))
	}
	if k.SettleTime < 0 {
		errs = append(errs, invalidOption("Options.ConsistencyCheck.SettleTime is %v: set a positive duration, or 0 for the default", k.SettleTime))
	}
	if k.MaxPerSecond != k.MaxPerSecond {
		errs = append(errs, invalidOption("Options.ConsistencyCheck.MaxPerSecond is %v: set checks a second, 0 for the default, or a negative number for no limit", k.MaxPerSecond))
	}
	return k, errs
}

// drawn reports whether the hit with the number n is one for sampleHit. A program's package, where GetOrLoad is compiled for a type, gets the code
// of functions that it may inline from this one: of those of other packages only of such as are inlined here. So it is here that Drawn is called.
func (c *Cache) drawn(n uint64) bool { return c.sampler.Drawn(n) }

// sampleHit counts the key of a hit in memory that was drawn, tells the Observer of it, or offers it for a check: for which of these it was drawn, is
// looked at here. It is not inlined, so that other hits do not allocate what it needs.
//
//go:noinline
func sampleHit[T any](ctx context.Context, c *Cache, key Key, counts *stats.Counters, load func(context.Context) (T, error)) {
	if c.sampler.Takes(sampler.Counting) {
		c.countKey(key.String())
	}
	if c.sampler.Takes(sampler.Telling) {
		c.tellHit(ctx, key)
	}
	if !c.sampler.Takes(sampler.Checking) || !c.sampler.HasRoom(ctx, counts) {
		return
	}
	if p, err := c.policies.resolve(key.policy); err == nil {
		c.sampler.Offer(newSample(ctx, key.String(), &p.Policy, p.Place, reflect.TypeFor[T](), loadsOne(&p.Policy, load), equalByMethod[T]))
	}
}

func newSample(ctx context.Context, key string, p *engine.Policy, place engine.Place, typ reflect.Type, load engine.LoadFunc, equal func(a, b any) bool) *sampler.Sample {
	return &sampler.Sample{
		Context: ctx, Request: engine.Request{Key: key, Policy: p, Type: typ, TTL: p.TTL, Tags: p.Tags, Place: place}, Load: load, Equal: equal,
	}
}

// equalByMethod compares two pointers to T by T's method Equal(T) bool. Without that method it reports false.
func equalByMethod[T any](a, b any) bool {
	type equaler interface{ Equal(T) bool }
	v, w := a.(*T), b.(*T)
	if e, ok := any(*v).(equaler); ok {
		return e.Equal(*w)
	}
	e, ok := any(v).(equaler)
	return ok && e.Equal(*w)
}
