package asideotel

import (
	"slices"

	"github.com/gatewayz/aside"
)

// ofLabel are the counters of a policy's label.
var ofLabel = []figure[aside.LabelMetrics]{
	{"aside.hits", "{call}", "Calls that were answered from the cache, by where the value was. Stale values and \"not found\" are included.", counter,
		"aside.tier", texts(aside.TierMemory, aside.TierRedis), func(m *aside.LabelMetrics, tier string) int64 {
			if aside.Tier(tier) == aside.TierMemory {
				return count(m.MemoryHits)
			}
			return count(m.RedisHits)
		}},
	{"aside.stale.hits", "{call}", "Hits on a value past its TTL, or one that Redis could not confirm. They are in aside.hits too.", counter, "", nil,
		func(m *aside.LabelMetrics, _ string) int64 { return count(m.StaleHits) }},
	{"aside.negative.hits", "{call}", "Hits on a cached \"not found\". They are in aside.hits too.", counter, "", nil,
		func(m *aside.LabelMetrics, _ string) int64 { return count(m.NegativeHits) }},
	{"aside.misses", "{call}", "Calls that were not answered from the cache, by the reason.", counter,
		"aside.cause", texts(aside.CauseAbsent, aside.CauseExpired, aside.CauseInvalidated, aside.CauseUnusable, aside.CauseUnavailable, aside.CauseAsked),
		func(m *aside.LabelMetrics, cause string) int64 { return count(m.Causes[aside.Cause(cause)]) }},
	{"aside.loads", "{load}", "Loader calls that have ended, by how.", counter,
		"aside.outcome", texts(aside.OutcomeNotFound, aside.OutcomeNotModified, aside.OutcomeOK, aside.OutcomeCanceled, aside.OutcomeError, aside.OutcomeTimeout, aside.OutcomePanic),
		func(m *aside.LabelMetrics, outcome string) int64 { return count(m.Outcomes[aside.Outcome(outcome)]) }},
	{"aside.fills.rejected", "{value}", "Loaded values that were not stored, because they were invalidated during the load.", counter, "", nil,
		func(m *aside.LabelMetrics, _ string) int64 { return count(m.FillsRejected) }},
	{"aside.overloads", "{load}", "Loads that were refused, because the queue was full or too many loaders had not returned after their LoadTimeout.", counter, "", nil,
		func(m *aside.LabelMetrics, _ string) int64 { return count(m.Overloads) }},
	{"aside.errors", "{error}", "Failed loads, failed operations on Redis, values in Redis that could not be used, and loaded values that could not be stored.", counter,
		"aside.kind", []string{"load", "redis", "decode", "encode"}, failures},
	{"aside.checks", "{call}", "Hits that a consistency check has compared with a fresh load.", counter, "", nil,
		func(m *aside.LabelMetrics, _ string) int64 { return count(m.Checked) }},
	{"aside.checks.inconsistent", "{call}", "Checked hits that were still served and still wrong after SettleTime. They are in aside.checks too.", counter, "", nil,
		func(m *aside.LabelMetrics, _ string) int64 { return count(m.Inconsistent) }},
	{"aside.checks.skipped", "{call}", "Samples that were not compared: over MaxPerSecond, no longer cached, or the load failed or had no place.", counter, "", nil,
		func(m *aside.LabelMetrics, _ string) int64 { return count(m.Unchecked) }},
}

func failures(m *aside.LabelMetrics, kind string) int64 {
	switch kind {
	case "load":
		return count(m.LoadErrors)
	case "redis":
		return count(m.RedisErrors)
	case "decode":
		return count(m.DecodeErrors)
	default:
		return count(m.EncodeErrors)
	}
}

// ofCache are the figures of a cache as a whole. Those that are sums over its labels are not worth a series a label.
var ofCache = []figure[reading]{
	{"aside.state", "1", "1 for the state of the cache, 0 for the others.", gauge,
		"aside.state", texts(aside.StateMemory, aside.StateConnected, aside.StateDegraded), func(r *reading, state string) int64 {
			if string(r.health.State) == state {
				return 1
			}
			return 0
		}},
	{"aside.tracking", "1", "1 if Redis pushes changes to this process, otherwise 0.", gauge, "", nil, func(r *reading, _ string) int64 {
		if r.health.Tracking {
			return 1
		}
		return 0
	}},
	{"aside.memory.entries", "{value}", "Values in memory.", level, "", nil, func(r *reading, _ string) int64 { return int64(r.InMemory.Entries) }},
	{"aside.memory.max_entries", "{value}", "The bound of aside.memory.entries.", level, "", nil, func(r *reading, _ string) int64 { return int64(r.InMemory.MaxEntries) }},
	{"aside.memory.bytes", "By", "The estimated size of the values in memory.", level, "", nil, func(r *reading, _ string) int64 { return r.InMemory.Bytes }},
	{"aside.memory.max_bytes", "By", "The bound of aside.memory.bytes.", level, "", nil, func(r *reading, _ string) int64 { return r.InMemory.MaxBytes }},
	{"aside.memory.evictions", "{value}", "Values in memory that were evicted to make room for others.", counter, "", nil,
		func(r *reading, _ string) int64 { return count(r.InMemory.Evictions) }},
	{"aside.memory.evicted_bytes", "By", "The estimated size of these values.", counter, "", nil, func(r *reading, _ string) int64 { return count(r.InMemory.EvictedBytes) }},
	{"aside.loads.running", "{load}", "Loads that run.", level, "", nil, func(r *reading, _ string) int64 { return int64(r.Loading.Running) }},
	{"aside.loads.limit", "{load}", "The bound of aside.loads.running.", level, "", nil, func(r *reading, _ string) int64 { return int64(r.Loading.Limit) }},
	{"aside.loads.queued", "{load}", "Loads that wait for a place.", level, "", nil, func(r *reading, _ string) int64 { return int64(r.Loading.Queued) }},
	{"aside.loads.queue_limit", "{load}", "The bound of aside.loads.queued.", level, "", nil, func(r *reading, _ string) int64 { return int64(r.Loading.QueueLimit) }},
	{"aside.loaders.unreturned", "{load}", "Loaders that have not returned after their LoadTimeout.", level, "", nil,
		func(r *reading, _ string) int64 {
			return r.sum(func(m aside.LabelMetrics) int64 { return m.Unreturned })
		}},
	{"aside.leases.held", "{lease}", "Leases in Redis that this process holds.", level, "", nil, func(r *reading, _ string) int64 { return int64(r.Loading.LeasesHeld) }},
	{"aside.leases.unreturned", "{lease}", "Leases whose release Redis has not confirmed. Other processes wait for their keys until Redis answers or the leases expire.", level, "", nil,
		func(r *reading, _ string) int64 { return int64(r.Loading.LeasesUnreturned) }},
	{"aside.refreshes", "{load}", "Loads in the background, behind calls that got the cached value.", counter, "", nil,
		func(r *reading, _ string) int64 {
			return r.sum(func(m aside.LabelMetrics) int64 { return count(m.Refreshes) })
		}},
	{"aside.refresh.errors", "{load}", "Refreshes that failed. They are in aside.refreshes too.", counter, "", nil,
		func(r *reading, _ string) int64 {
			return r.sum(func(m aside.LabelMetrics) int64 { return count(m.RefreshErrors) })
		}},
	{"aside.stale.on_error", "{call}", "Stale hits in place of a load that failed or took longer than SoftTimeout. They are in aside.stale.hits too.", counter, "", nil,
		func(r *reading, _ string) int64 {
			return r.sum(func(m aside.LabelMetrics) int64 { return count(m.StaleOnError) })
		}},
	{"aside.invalidations", "{invalidation}", "Calls by which this process has invalidated something, by what.", counter,
		"aside.by", []string{"keys", "tags", "category", "pattern", "all"}, func(r *reading, by string) int64 { return count(r.Invalidations[by]) }},
	{"aside.invalidation.errors", "{invalidation}", "Invalidations by category, tag or pattern, or of everything, that Redis did not confirm at once. They are retried.", counter, "", nil,
		func(r *reading, _ string) int64 { return count(r.RedisErrors) }},
	{"aside.invalidations.unconfirmed", "{name}", "Invalidations of this process that Redis has not confirmed: keys, tags and patterns.", level, "", nil,
		func(r *reading, _ string) int64 { return int64(r.Journal.Unconfirmed) }},
	{"aside.invalidation.messages", "{message}", "Invalidation messages (pushes) from Redis, those about changes of this process included.", counter, "", nil,
		func(r *reading, _ string) int64 { return count(r.InvalidationMessages) }},
	{"aside.tracking.lost", "{loss}", "How often invalidation messages could have been missed. Values in memory from before are no longer fresh.", counter, "", nil,
		func(r *reading, _ string) int64 { return count(r.TrackingLost) }},
	{"aside.tracking.paused", "{loss}", "Of these, how often because the cache was not used for a minute. They are in aside.tracking.lost too.", counter, "", nil,
		func(r *reading, _ string) int64 { return count(r.TrackingPaused) }},
	{"aside.swept.entries", "{value}", "Values that the cleanup after an invalidation of tags, a category or everything has removed.", counter, "", nil,
		func(r *reading, _ string) int64 { return count(r.Swept) }},
}

// ofNode are the figures of a Redis server: of one, or of those whose addresses look the same.
var ofNode = []figure[[]aside.Node]{
	{"aside.redis.up", "{process}", "1 while calls are sent to the server, 0 while they are not.", level, "", nil, func(nodes *[]aside.Node, _ string) int64 {
		if slices.ContainsFunc(*nodes, func(n aside.Node) bool { return !n.Up }) {
			return 0
		}
		return 1
	}},
	{"aside.redis.trips", "{trip}", "How often this process had to stop sending calls to the server, by the cause.", counter,
		"aside.cause", []string{"broken", "timeout", "slow", "silent", "unready", "refused"}, func(nodes *[]aside.Node, cause string) (sum int64) {
			for _, n := range *nodes {
				sum += count(n.Trips[cause])
			}
			return sum
		}},
}

func texts[T ~string](values ...T) []string {
	list := make([]string, len(values))
	for i, v := range values {
		list[i] = string(v)
	}
	return list
}
