package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// spread says how much chance there is in the ratio of a percentile of two servers. a and b have their measurements by the same parts of the time. It
// draws as many parts with replacement, again and again, and returns the range of 95% of the ratios (a bootstrap). Parts are drawn whole and for both
// servers at once, since what slows down the machine for a while slows down many requests of both. It returns zeros if there is too little to compare.
func spread(a, b [][]time.Duration, p float64) (low, high float64) {
	const draws = 400
	rnd := rand.New(rand.NewPCG(uint64(len(a)), 6))
	var ratios []float64
	var drawnA, drawnB []time.Duration
	for range draws {
		drawnA, drawnB = drawnA[:0], drawnB[:0]
		for range a {
			i := rnd.IntN(len(a))
			drawnA, drawnB = append(drawnA, a[i]...), append(drawnB, b[i]...)
		}
		if len(drawnA) == 0 || len(drawnB) == 0 {
			continue
		}
		slices.Sort(drawnA)
		slices.Sort(drawnB)
		ratios = append(ratios, ratio(float64(percentile(drawnA, p)), float64(percentile(drawnB, p))))
	}
	if len(ratios) < draws/2 {
		return 0, 0
	}
	slices.Sort(ratios)
	return ratios[len(ratios)*25/1000], ratios[len(ratios)*975/1000]
}

// spreadOf formats the spread, for the table.
func spreadOf(a, b [][]time.Duration, p float64) string {
	low, high := spread(a, b, p)
	switch {
	case low == 0 && high == 0:
		return ""
	case low > 1:
		return fmt.Sprintf("(%.1f-%.1f, slower)", low, high)
	case high < 1:
		return fmt.Sprintf("(%.1f-%.1f, faster)", low, high)
	}
	return fmt.Sprintf("(%.1f-%.1f, within noise)", low, high)
}
