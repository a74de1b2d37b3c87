package wire

import (
	"unicode"
	"unicode/utf8"
)

// fold is the same for names that encoding/json takes for one another: not only a letter's upper and lower case are.
func fold(name string) string {
	folded := make([]byte, 0, len(name))
	for _, r := range name {
		if 'a' <= r && r <= 'z' {
			r -= 'a' - 'A'
		} else if r >= utf8.RuneSelf {
			for next := unicode.SimpleFold(r); ; r = next { // to the least of them
				if next = unicode.SimpleFold(r); next <= r {
					r = next
					break
				}
			}
		}
		folded = utf8.AppendRune(folded, r)
	}
	return string(folded)
}
