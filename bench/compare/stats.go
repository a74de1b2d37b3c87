package main

import "slices"

// A summary is what several rounds say about one figure.
type summary struct {
	median, low, high float64 // of the rounds
	ratio             float64 // median of the ratios to the base, each within a round; 0 without a base
}

// summarize compares the rounds of a figure with those of the base, which may be nil.
func summarize(rounds, base []float64) summary {
	if len(rounds) == 0 {
		return summary{}
	}
	s := summary{median: median(rounds), low: slices.Min(rounds), high: slices.Max(rounds)}
	var ratios []float64
	for i := range min(len(rounds), len(base)) {
		if base[i] > 0 {
			ratios = append(ratios, rounds[i]/base[i])
		}
	}
	if len(ratios) > 0 {
		s.ratio = median(ratios)
	}
	return s
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
