package asidetest

import "github.com/gatewayz/aside"

// Numbers are the counters that are one number each.
func Numbers(m aside.LabelMetrics) aside.LabelMetrics {
	m.Causes, m.Outcomes = nil, nil
	m.LoadTimes, m.CallTimes, m.ValueBytes = aside.Histogram{}, aside.Histogram{}, aside.Histogram{}
	return m
}
