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
			last := r
			for r = unicode.SimpleFold(last); r > last; r = unicode.SimpleFold(last) { // after the greatest comes the least
				last = r
			}
		}
		folded = utf8.AppendRune(folded, r)
	}
	return string(folded)
}
