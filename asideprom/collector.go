package asideprom

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatewayz/aside"
)

type collector struct {
	cache         *aside.Cache
	mode, version string
	native        bool

	ofLabel, distributions, ofCache, onRedis, ofNode []*prometheus.Desc // in the order of the tables
	info, since                                      *prometheus.Desc
}

// describe makes the descriptions of all metrics.
func (c *collector) describe(desc func(name, help string, labels ...string) *prometheus.Desc) {
	for _, m := range ofLabel {
		c.ofLabel = append(c.ofLabel, desc(m.name, m.help, own(m.by, labelLabel)...))
	}
	for _, d := range distributions {
		c.distributions = append(c.distributions, desc(d.name, d.help, own(d.by, labelLabel)...))
	}
	for _, m := range ofCache {
		c.ofCache = append(c.ofCache, desc(m.name, m.help, own(m.by)...))
	}
	for _, d := range onRedis {
		c.onRedis = append(c.onRedis, desc(d.name, d.help, own(d.by)...))
	}
	for _, m := range ofNode {
		c.ofNode = append(c.ofNode, desc(m.name, m.help, own(m.by, nodeLabel)...))
	}
	c.info = desc("info", "1. Labels: the version of the library, empty if it is not known; memory or redis; whether Redis pushes changes to this process.", infoLabels...)
	c.since = desc("state_since_timestamp_seconds", "Since when the cache has its state. A nil or closed cache has none.")
}

// own adds a metric's own label or its value, if it has one, behind others.
func own(by string, others ...string) []string {
	if by == "" {
		return others
	}
	return append(others, by)
}

// Describe is part of prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, list := range [][]*prometheus.Desc{c.ofLabel, c.distributions, c.ofCache, c.onRedis, c.ofNode, {c.info, c.since}} {
		for _, desc := range list {
			to <- desc
		}
	}
}

// Collect is part of prometheus.Collector. Registries call it concurrently.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	r := reading{c.cache.Metrics(), c.cache.Health()}
	if r.health.Since.IsZero() {
		r.Journal = aside.JournalMetrics{} // a closed cache retries nothing: its oldest invalidation would seem to wait for as long as the process runs
	}
	for label, all := range c.labels(r.Metrics) {
		c.collectLabel(to, label, all)
	}
	for i, m := range ofCache {
		each(m.by, m.values, func(value string) {
			to <- prometheus.MustNewConstMetric(c.ofCache[i], m.kind, m.read(&r, value), own(value)...)
		})
	}
	if c.mode != "memory" {
		c.collectRedis(to, r.Metrics)
	}
	to <- prometheus.MustNewConstMetric(c.info, gauge, 1, c.version, c.mode, strconv.FormatBool(r.health.Tracking))
	if !r.health.Since.IsZero() {
		to <- prometheus.MustNewConstMetric(c.since, gauge, float64(r.health.Since.UnixMilli())/1000)
	}
}

// labels are the counters by what is shown of their labels. Prometheus takes UTF-8 alone, and one label that is none would fail the whole scrape.
// Two labels that are shown as one are counted together, since two series with the same labels would fail it too. They are in one order in every
// scrape: a sum of fractions depends on the order, and a sum that is a little less than before is a restart of the process for rate.
func (c *collector) labels(m aside.Metrics) map[string][]aside.LabelMetrics {
	all := make(map[string][]aside.LabelMetrics, len(m.Labels))
	for _, label := range c.cache.Labels() { // those that have counted nothing yet, too
		all[shown(label)] = nil
	}
	for _, label := range slices.Sorted(maps.Keys(m.Labels)) {
		all[shown(label)] = append(all[shown(label)], m.Labels[label])
	}
	return all
}

func shown(label string) string { return strings.ToValidUTF8(label, "\uFFFD") }

func (c *collector) collectLabel(to chan<- prometheus.Metric, label string, all []aside.LabelMetrics) {
	for i, m := range ofLabel {
		each(m.by, m.values, func(value string) {
			sum := 0.0
			for n := range all {
				sum += m.read(&all[n], value)
			}
			to <- prometheus.MustNewConstMetric(c.ofLabel[i], m.kind, sum, own(value, label)...)
		})
	}
	for i, d := range distributions {
		each(d.by, d.values, func(value string) {
			var h histogram
			for n := range all {
				h.add(d.read(&all[n], value))
			}
			to <- h.metric(c.distributions[i], d.bounds, c.native, own(value, label)...)
		})
	}
}

func (c *collector) collectRedis(to chan<- prometheus.Metric, all aside.Metrics) {
	for i, d := range onRedis {
		each(d.by, d.values, func(value string) {
			var h histogram
			h.add(d.read(&all, value))
			to <- h.metric(c.onRedis[i], d.bounds, c.native, own(value)...)
		})
	}
	for addr, node := range nodes(c.cache.Nodes()) {
		for i, m := range ofNode {
			each(m.by, m.values, func(value string) {
				to <- prometheus.MustNewConstMetric(c.ofNode[i], m.kind, m.read(&node, value), own(value, addr)...)
			})
		}
	}
}

// nodes are the servers by what is shown of their addresses. As with labels, two that are shown as one are counted together: they are up if both are.
func nodes(all []aside.Node) map[string]aside.Node {
	by := make(map[string]aside.Node, len(all))
	for _, n := range all {
		addr := shown(n.Addr)
		if other, found := by[addr]; found {
			n.Up = n.Up && other.Up
			for cause, count := range other.Trips {
				n.Trips[cause] += count
			}
		}
		by[addr] = n
	}
	return by
}
