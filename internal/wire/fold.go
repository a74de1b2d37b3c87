package wire

import (
	"unicode"
	"unicode/utf8"
)

// fold returns the same text for all names that encoding/json takes for the same name. Beside the upper and the lower case of a letter,
// these are the other letters that Unicode folds to it.
func fold(name string) string {
	folded := make([]byte, 0, len(name))
	for _, r := range name {
		if 'a' <= r && r <= 'z' {
			r -= 'a' - 'A'
		} else if r >= utf8.RuneSelf {
			last := r
			for r = unicode.SimpleFold(last); r > last; r = unicode.SimpleFold(last) { // the least rune comes after the greatest
				last = r
			}
		}
		folded = utf8.AppendRune(folded, r)
	}
	return string(folded)
}
