package aside

import (
	"encoding/json"
	"time"

	"github.com/gatewayz/aside/internal/stats"
)

// Metrics is a snapshot of a cache's counters since it was made, one set for each label. It marshals to
//
//	{"metrics":{"models":{"hits":1250,"misses":50,"errors":0,"hitRate":0.96,…},…}}
type Metrics struct {
	Labels map[string]LabelMetrics `json:"metrics"`
	// Pushes counts the changes that Redis has told this process of, its own included, and Gaps how often it stopped telling: a
	// connection broke, everything was flushed, or nothing was asked for in a minute. What memory held from before a gap is not served
	// any more.
	Pushes uint64 `json:"pushes"`
	Gaps   uint64 `json:"gaps"`
	// RedisErrors counts invalidations by category, by tag, by pattern and of all that Redis did not confirm. They have no label.
	RedisErrors uint64 `json:"redisErrors"`
}

// LabelMetrics counts the calls under one label, and what they led to. Each call is one of Hits or of Misses. The counters are exact;
// read while calls go on, they may be a few calls apart from each other.
type LabelMetrics struct {
	Hits   uint64 `json:"hits"`   // calls that were answered from the cache: MemoryHits and RedisHits, cached "not found" and stale values included
	Misses uint64 `json:"misses"` // calls that were not: they loaded, waited for a load, or failed
	Errors uint64 `json:"errors"` // failures of every kind: the sum of the four below

	LoadErrors   uint64 `json:"loadErrors"`   // loads that failed, ErrNotFound not among them
	RedisErrors  uint64 `json:"redisErrors"`  // operations on Redis that failed or timed out, or found it away
	DecodeErrors uint64 `json:"decodeErrors"` // values in Redis that could not be used
	EncodeErrors uint64 `json:"encodeErrors"` // loaded values that could not be stored: the codec's refusal, or too large

	MemoryHits   uint64        `json:"memoryHits"`   // hits in this process's memory
	RedisHits    uint64        `json:"redisHits"`    // hits in Redis
	NegativeHits uint64        `json:"negativeHits"` // of the hits, those on a cached "not found"; they are in MemoryHits or RedisHits too
	StaleHits    uint64        `json:"staleHits"`    // of the hits, those on what Redis, being away, could not vouch for: StatusStale; they are in MemoryHits or RedisHits too
	Fallbacks    uint64        `json:"fallbacks"`    // of the misses, those that loaded because Redis was away or failed
	Loads        uint64        `json:"loads"`        // loader calls
	LoadTime     time.Duration `json:"-"`            // spent in loaders, altogether
	Overloads    uint64        `json:"overloads"`    // loads that were not begun, for want of room
	RefusedFills uint64        `json:"refusedFills"` // loaded values not stored because they were invalidated meanwhile

	// Of the hits that Options.Check has drawn; in the JSON only where there were any.
	Checked      uint64 `json:"-"` // compared with what the loader returns
	Inconsistent uint64 `json:"-"` // of these, still wrong and still served after Check.Within
	Unchecked    uint64 `json:"-"` // not compared: too many, gone by then, or their load failed or had no place
}

// Requests is the number of calls.
func (m LabelMetrics) Requests() uint64 { return m.Hits + m.Misses }

// HitRate is the share of calls that were hits, 0 where there was no call.
func (m LabelMetrics) HitRate() float64 { return ratio(m.Hits, m.Requests()) }

// MissRate is the share of calls that were misses, 0 where there was no call.
func (m LabelMetrics) MissRate() float64 { return ratio(m.Misses, m.Requests()) }

// ErrorRate is the number of errors for each call, 0 where there was no call. One call can meet several errors.
func (m LabelMetrics) ErrorRate() float64 { return ratio(m.Errors, m.Requests()) }

// InconsistentPerMillion is how many in a million of the hits that were checked were wrong for longer than Check.Within, 0 where
// none was checked.
func (m LabelMetrics) InconsistentPerMillion() float64 { return 1e6 * ratio(m.Inconsistent, m.Checked) }

func ratio(part, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// MarshalJSON adds the rates, and the mean load time in milliseconds.
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
		HitRate    float64 `json:"hitRate"`
		MissRate   float64 `json:"missRate"`
		ErrorRate  float64 `json:"errorRate"`
		MeanLoadMS float64 `json:"meanLoadMs"`
	}{counts(m), checks, m.HitRate(), m.MissRate(), m.ErrorRate(), mean})
}

type checkFigures struct {
	Checked                uint64  `json:"checked"`
	Inconsistent           uint64  `json:"inconsistent"`
	Unchecked              uint64  `json:"unchecked"`
	InconsistentPerMillion float64 `json:"inconsistentPerMillion"`
}

// Metrics returns the counters of every label that has any, as they stand. On a nil cache there are none.
func (c *Cache) Metrics() Metrics {
	m := Metrics{Labels: map[string]LabelMetrics{}}
	if c == nil {
		return m
	}
	m.Pushes, m.Gaps, m.RedisErrors = c.metrics.Pushes.Load(), c.metrics.Gaps.Load(), c.metrics.RedisErrors.Load()
	for label, counters := range c.metrics.All() {
		if s := snapshot(counters); s != (LabelMetrics{}) {
			m.Labels[label] = s
		}
	}
	return m
}

func snapshot(c *stats.Counters) LabelMetrics {
	m := LabelMetrics{
		Misses:       c.Misses.Load(),
		LoadErrors:   c.LoadErrors.Load(),
		RedisErrors:  c.RedisErrors.Load(),
		DecodeErrors: c.DecodeErrors.Load(),
		EncodeErrors: c.EncodeErrors.Load(),
		MemoryHits:   c.MemoryHits.Load(),
		RedisHits:    c.RedisHits.Load(),
		NegativeHits: c.NegativeHits.Load(),
		StaleHits:    c.StaleHits.Load(),
		Overloads:    c.Overloads.Load(),
		Fallbacks:    c.Fallbacks.Load(),
		Loads:        c.Loads.Load(),
		LoadTime:     time.Duration(c.LoadTime.Load()),
		RefusedFills: c.RefusedFills.Load(),
		Checked:      c.Checked.Load(),
		Inconsistent: c.Inconsistent.Load(),
		Unchecked:    c.Unchecked.Load(),
	}
	m.Hits = m.MemoryHits + m.RedisHits
	m.Errors = m.LoadErrors + m.RedisErrors + m.DecodeErrors + m.EncodeErrors
	return m
}
