package main

import (
	"fmt"
	"strings"
)

// What the variables of the dashboard select, in series of a cache and in series of a policy's label.
const (
	caches = `{job=~"$job", cache=~"$cache"}`
	labels = `{job=~"$job", cache=~"$cache", label=~"$label"}`
)

// rate is how often a counter of labels has counted in a second. by are the labels to keep, separated by commas, and none to add up everything.
func rate(counter, by string) string { return sum("rate", counter, labels, by) }

// rateOf is rate for a counter of a cache.
func rateOf(counter, by string) string { return sum("rate", counter, caches, by) }

// number is how often a counter of a cache has counted since the last point of the graph.
func number(counter, by string) string { return sum("increase", counter, caches, by) }

func sum(function, counter, of, by string) string {
	return fmt.Sprintf("sum %s(%s(%s%s[$__rate_interval]))", grouped(by), function, counter, of)
}

func grouped(by string) string {
	if by == "" {
		return ""
	}
	return "by (" + by + ") "
}

// total is the sum of a gauge over processes.
func total(gauge, by string) string { return fmt.Sprintf("sum %s(%s%s)", grouped(by), gauge, caches) }

// share is a part of a whole. There is none while the whole is 0.
func share(part, whole string) string { return fmt.Sprintf("%s / (%s > 0)", part, whole) }

// calls is how many calls there were in a second.
func calls(by string) string {
	return fmt.Sprintf("(%s + %s)", rate("aside_hits_total", by), rate("aside_misses_total", by))
}

// quantile is a quantile of a histogram. A server that scrapes native histograms has no series of the classic one, and another server none of
// the native one: so the query has both forms.
func quantile(q float64, histogram, of, by string) string {
	return strings.Join([]string{
		fmt.Sprintf("histogram_quantile(%v, sum by (%s) (rate(%s%s[$__rate_interval])))", q, by, histogram, of),
		fmt.Sprintf("histogram_quantile(%v, sum by (%s, le) (rate(%s_bucket%s[$__rate_interval])))", q, by, histogram, of),
	}, " or ")
}

// observations is how many observations a histogram had in a second, in both forms.
func observations(histogram, of, by string) string {
	return strings.Join([]string{
		fmt.Sprintf("histogram_count(sum by (%s) (rate(%s%s[$__rate_interval])))", by, histogram, of),
		fmt.Sprintf("sum by (%s) (rate(%s_count%s[$__rate_interval]))", by, histogram, of),
	}, " or ")
}
