package freshness_test

import (
	"maps"
	"slices"
)

// sortedNames are the names of counts, in their order.
func sortedNames(counts map[string]int) []string { return slices.Sorted(maps.Keys(counts)) }
