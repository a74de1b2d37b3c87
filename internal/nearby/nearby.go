// Package nearby bounds the list of valid names in an error about an unknown name.
package nearby

import (
	"fmt"
	"slices"
	"strings"
)

const (
	most   = 20 // names
	mostOf = 64 // bytes of each
)

// Names lists the known names for an error about name. It lists all of them if they are few. Otherwise it lists those next to name in the
// alphabet, and how many more there are.
func Names(name string, known []string) string {
	known = slices.Clone(known)
	slices.SortFunc(known, compare)
	known = slices.Compact(known)
	at, _ := slices.BinarySearchFunc(known, name, compare)
	from := max(0, min(at-most/2, len(known)-most))
	shown := known[from:min(from+most, len(known))]
	for i, text := range shown {
		if len(text) > mostOf {
			shown[i] = strings.ToValidUTF8(text[:mostOf], "") + "…"
		}
	}
	text := strings.Join(shown, ", ")
	if more := len(known) - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// compare sorts names that differ only in case next to each other.
func compare(a, b string) int {
	if c := strings.Compare(strings.ToLower(a), strings.ToLower(b)); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}
