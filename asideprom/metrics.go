package asideprom

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatewayz/aside"
)

// The labels that every series of a cache has, every series of a policy's label, and every series of a Redis server.
const (
	cacheLabel = "cache"
	labelLabel = "label"
	nodeLabel  = "node"
)

// A metric is one number of T, or one for each value of a label of its own. All values are there in each scrape: rate would not see the first
// event of a series that begins with it.
type metric[T any] struct {
	name, help string
	kind       prometheus.ValueType
	by         string   // its own label, empty for none
	values     []string // of that label
	read       func(of *T, value string) float64
}

// each calls f for each value of a label of a metric's own, with an empty one if it has no such label.
func each(by string, values []string, f func(value string)) {
	if by == "" {
		f("")
	}
	for _, value := range values {
		f(value)
	}
}

// A reading is what one scrape reads.
type reading struct {
	aside.Metrics
	health aside.Health
}

// sum adds up what the labels have. Labels are never dropped, so that a sum of counters does not decrease.
func (r *reading) sum(of func(aside.LabelMetrics) uint64) float64 {
	var sum uint64
	for _, m := range r.Labels {
		sum += of(m)
	}
	return float64(sum)
}

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

// ofLabel are the counters of a policy's label. With the histograms they are at most 70 series a label. No counter is the difference of two
// others: they are read one after the other while calls go on, so that a difference could decrease, which a counter must not.
var ofLabel = []metric[aside.LabelMetrics]{
	{"hits_total", "Calls that were answered from the cache, by where the value was. Stale values and \"not found\" are included.", counter,
		"tier", []string{string(aside.TierMemory), string(aside.TierRedis)}, hits},
	{"stale_hits_total", "Hits on a value past its TTL, or one that Redis could not confirm. They are in hits_total too.", counter, "", nil,
		func(m *aside.LabelMetrics, _ string) float64 { return float64(m.StaleHits) }},
	{"negative_hits_total", "Hits on a cached \"not found\". They are in hits_total too.", counter, "", nil,
		func(m *aside.LabelMetrics, _ string) float64 { return float64(m.NegativeHits) }},
	{"misses_total", "Calls that were not answered from the cache, by the reason.", counter,
		"cause", texts(aside.CauseAbsent, aside.CauseExpired, aside.CauseInvalidated, aside.CauseUnusable, aside.CauseUnavailable, aside.CauseAsked),
		func(m *aside.LabelMetrics, cause string) float64 { return float64(m.Causes[aside.Cause(cause)]) }},
	{"loads_total", "Loader calls that have ended, by how.", counter,
		"outcome", texts(aside.OutcomeNotFound, aside.OutcomeNotModified, aside.OutcomeOK, aside.OutcomeCanceled, aside.OutcomeError, aside.OutcomeTimeout, aside.OutcomePanic),
		func(m *aside.LabelMetrics, outcome string) float64 {
			return float64(m.Outcomes[aside.Outcome(outcome)])
		}},
	{"fills_rejected_total", "Loaded values that were not stored, because they were invalidated during the load.", counter, "", nil,
		func(m *aside.LabelMetrics, _ string) float64 { return float64(m.FillsRejected) }},
	{"overloads_total", "Loads that were refused, because the queue was full or too many loaders had not returned after their LoadTimeout.", counter, "", nil,
		func(m *aside.LabelMetrics, _ string) float64 { return float64(m.Overloads) }},
	{"errors_total", "Failed loads, failed operations on Redis, values in Redis that could not be used, and loaded values that could not be stored.", counter,
		"kind", []string{"load", "redis", "decode", "encode"}, failures},
	{"checks_total", "Hits that a consistency check has compared with a fresh load.", counter, "", nil,
		func(m *aside.LabelMetrics, _ string) float64 { return float64(m.Checked) }},
	{"checks_inconsistent_total", "Checked hits that were still served and still wrong after SettleTime. They are in checks_total too.", counter, "", nil,
		func(m *aside.LabelMetrics, _ string) float64 { return float64(m.Inconsistent) }},
	{"checks_skipped_total", "Samples that were not compared: over MaxPerSecond, no longer cached, or the load failed or had no place.", counter, "", nil,
		func(m *aside.LabelMetrics, _ string) float64 { return float64(m.Unchecked) }},
}

func hits(m *aside.LabelMetrics, tier string) float64 {
	if aside.Tier(tier) == aside.TierMemory {
		return float64(m.MemoryHits)
	}
	return float64(m.RedisHits)
}

func failures(m *aside.LabelMetrics, kind string) float64 {
	switch kind {
	case "load":
		return float64(m.LoadErrors)
	case "redis":
		return float64(m.RedisErrors)
	case "decode":
		return float64(m.DecodeErrors)
	default:
		return float64(m.EncodeErrors)
	}
}

// A distribution is a histogram of T, or one for each value of a label of its own.
type distribution[T any] struct {
	name, help string
	bounds     []float64
	by         string   // its own label, empty for none
	values     []string // of that label
	read       func(of *T, value string) aside.Histogram
}

// distributions are the histograms of a policy's label. Bounds are powers of 4, one second among them. They are among those of aside.Histogram, so
// that the counts are exact.
var distributions = []distribution[aside.LabelMetrics]{
	{"load_duration_seconds", "How long loader calls took. A loader that exceeds its LoadTimeout counts with the LoadTimeout.", powersOf4(-7, 4), "", nil,
		func(m *aside.LabelMetrics, _ string) aside.Histogram { return m.LoadTimes }},
	{"call_duration_seconds", "How long calls took that memory could not answer. Hits in memory are not timed.", powersOf4(-7, 4), "", nil,
		func(m *aside.LabelMetrics, _ string) aside.Histogram { return m.CallTimes }},
	{"value_bytes", "Sizes of stored values: encoded and compressed, in memory mode estimated.", powersOf4(3, 13), "", nil,
		func(m *aside.LabelMetrics, _ string) aside.Histogram { return m.ValueBytes }},
}

// onRedis are the histograms of a cache that is not in memory mode.
var onRedis = []distribution[aside.Metrics]{
	{"redis_duration_seconds", "How long round trips to Redis took, by what they are for. One that Redis has not answered in time counts with the time after which this process gave up.",
		powersOf4(-7, 4), "op", []string{"read", "lease", "fill", "invalidate", "sweep"},
		func(m *aside.Metrics, op string) aside.Histogram { return m.Redis[op] }},
}

// ofNode are the figures of a Redis server.
var ofNode = []metric[aside.Node]{
	{"redis_up", "1 while calls are sent to the server, 0 while they are not.", gauge, "", nil, up},
	{"redis_trips_total", "How often this process had to stop sending calls to the server, by the cause.", counter,
		"cause", []string{"broken", "timeout", "slow", "silent", "unready", "refused"},
		func(n *aside.Node, cause string) float64 { return float64(n.Trips[cause]) }},
}

func up(n *aside.Node, _ string) float64 {
	if n.Up {
		return 1
	}
	return 0
}

// ofCache are the figures of a cache as a whole. Those that are sums over its labels are not worth a series a label.
var ofCache = []metric[reading]{
	{"state", "1 for the state of the cache, 0 for the others.", gauge,
		"state", texts(aside.StateMemory, aside.StateConnected, aside.StateDegraded), state},
	{"memory_entries", "Values in memory.", gauge, "", nil, func(r *reading, _ string) float64 { return float64(r.InMemory.Entries) }},
	{"memory_max_entries", "The bound of memory_entries.", gauge, "", nil, func(r *reading, _ string) float64 { return float64(r.InMemory.MaxEntries) }},
	{"memory_bytes", "The estimated size of the values in memory.", gauge, "", nil, func(r *reading, _ string) float64 { return float64(r.InMemory.Bytes) }},
	{"memory_max_bytes", "The bound of memory_bytes.", gauge, "", nil, func(r *reading, _ string) float64 { return float64(r.InMemory.MaxBytes) }},
	{"memory_evictions_total", "Values in memory that were evicted to make room for others.", counter, "", nil,
		func(r *reading, _ string) float64 { return float64(r.InMemory.Evictions) }},
	{"memory_evicted_bytes_total", "The estimated size of these values.", counter, "", nil, func(r *reading, _ string) float64 { return float64(r.InMemory.EvictedBytes) }},
	{"loads_running", "Loads that run.", gauge, "", nil, func(r *reading, _ string) float64 { return float64(r.Loading.Running) }},
	{"loads_limit", "The bound of loads_running.", gauge, "", nil, func(r *reading, _ string) float64 { return float64(r.Loading.Limit) }},
	{"loads_queued", "Loads that wait for a place.", gauge, "", nil, func(r *reading, _ string) float64 { return float64(r.Loading.Queued) }},
	{"loads_queue_limit", "The bound of loads_queued.", gauge, "", nil, func(r *reading, _ string) float64 { return float64(r.Loading.QueueLimit) }},
	{"loaders_unreturned", "Loaders that have not returned after their LoadTimeout.", gauge, "", nil,
		func(r *reading, _ string) float64 {
			return r.sum(func(m aside.LabelMetrics) uint64 { return uint64(max(0, m.Unreturned)) })
		}},
	{"leases_held", "Leases in Redis that this process holds.", gauge, "", nil, func(r *reading, _ string) float64 { return float64(r.Loading.LeasesHeld) }},
	{"leases_unreturned", "Leases whose release Redis has not confirmed. Other processes wait for their keys until Redis answers or the leases expire.", gauge, "", nil,
		func(r *reading, _ string) float64 { return float64(r.Loading.LeasesUnreturned) }},
	{"refreshes_total", "Loads in the background, behind calls that got the cached value.", counter, "", nil,
		func(r *reading, _ string) float64 {
			return r.sum(func(m aside.LabelMetrics) uint64 { return m.Refreshes })
		}},
	{"refresh_errors_total", "Refreshes that failed. They are in refreshes_total too.", counter, "", nil,
		func(r *reading, _ string) float64 {
			return r.sum(func(m aside.LabelMetrics) uint64 { return m.RefreshErrors })
		}},
	{"stale_on_error_total", "Stale hits in place of a load that failed or took longer than SoftTimeout. They are in stale_hits_total too.", counter, "", nil,
		func(r *reading, _ string) float64 {
			return r.sum(func(m aside.LabelMetrics) uint64 { return m.StaleOnError })
		}},
	{"invalidations_total", "Calls by which this process has invalidated something, by what.", counter,
		"by", []string{"keys", "tags", "category", "pattern", "all"}, func(r *reading, by string) float64 { return float64(r.Invalidations[by]) }},
	{"invalidation_errors_total", "Invalidations by category, tag or pattern, or of everything, that Redis did not confirm at once. They are retried.", counter, "", nil,
		func(r *reading, _ string) float64 { return float64(r.RedisErrors) }},
	{"invalidations_unconfirmed", "Invalidations of this process that Redis has not confirmed: keys, tags and patterns.", gauge, "", nil,
		func(r *reading, _ string) float64 { return float64(r.Journal.Unconfirmed) }},
	{"invalidations_unconfirmed_oldest_seconds", "How long the oldest of these has waited.", gauge, "", nil,
		func(r *reading, _ string) float64 { return r.Journal.Oldest.Seconds() }},
	{"invalidation_messages_total", "Invalidation messages (pushes) from Redis, those about changes of this process included.", counter, "", nil,
		func(r *reading, _ string) float64 { return float64(r.InvalidationMessages) }},
	{"tracking_lost_total", "How often invalidation messages could have been missed. Values in memory from before are no longer fresh.", counter, "", nil,
		func(r *reading, _ string) float64 { return float64(r.TrackingLost) }},
	{"tracking_paused_total", "Of these, how often because the cache was not used for a minute. They are in tracking_lost_total too.", counter, "", nil,
		func(r *reading, _ string) float64 { return float64(r.TrackingPaused) }},
	{"swept_entries_total", "Values that the cleanup after an invalidation of tags, a category or everything has removed.", counter, "", nil,
		func(r *reading, _ string) float64 { return float64(r.Swept) }},
}

func state(r *reading, state string) float64 {
	if string(r.health.State) == state {
		return 1
	}
	return 0
}

// infoLabels are those of the metric info.
var infoLabels = []string{"version", "mode", "tracking"}

// ownLabels are the names that a constant label must not have.
func ownLabels() []string {
	own := append([]string{cacheLabel, labelLabel, nodeLabel, "le"}, infoLabels...)
	for _, m := range ofLabel {
		own = append(own, m.by)
	}
	for _, m := range ofCache {
		own = append(own, m.by)
	}
	for _, m := range ofNode {
		own = append(own, m.by)
	}
	for _, d := range onRedis {
		own = append(own, d.by)
	}
	return slices.DeleteFunc(own, func(name string) bool { return name == "" })
}

func texts[T ~string](values ...T) []string {
	list := make([]string, len(values))
	for i, v := range values {
		list[i] = string(v)
	}
	return list
}
