package keyspace

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// AppendEscaped appends text with every special byte as %XX. The percent sign is special itself, so the escape can be undone, and
// different texts stay different.
func AppendEscaped(b []byte, text string) []byte {
	plain := 0
	for plain < len(text) && plainBytes[text[plain]] {
		plain++
	}
	b = append(b, text[:plain]...)
	for i := plain; i < len(text); {
		if c := text[i]; c < utf8.RuneSelf {
			if plainBytes[c] {
				b = append(b, c)
			} else {
				b = appendHex(b, c)
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		if Special(r) || r == utf8.RuneError && size == 1 {
			for _, c := range []byte(text[i : i+size]) {
				b = appendHex(b, c)
			}
		} else {
			b = append(b, text[i:i+size]...)
		}
		i += size
	}
	return b
}

// Unescape undoes AppendEscaped. It reports false for a percent sign that begins no escape. It also takes escapes that AppendEscaped
// does not make.
func Unescape(text string) (string, bool) {
	if !strings.Contains(text, "%") {
		return text, true
	}
	b := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			b = append(b, text[i])
			continue
		}
		if len(text)-i < 3 {
			return "", false
		}
		high, low := strings.IndexByte(hexDigits, text[i+1]), strings.IndexByte(hexDigits, text[i+2])
		if high < 0 || low < 0 {
			return "", false
		}
		b = append(b, byte(high<<4|low))
		i += 2
	}
	return string(b), true
}

// Special reports whether r may not stand in a key as it is: colons part the key, the others mean something to Redis' patterns
// (* ? [ ] \), to hash tags ({ }), or to the escape itself.
func Special(r rune) bool {
	switch r {
	case ':', '*', '?', '[', ']', '\\', '{', '}', '%':
		return true
	}
	return unicode.IsControl(r)
}

// plainBytes are those that stand in a key as they are, whatever is beside them.
var plainBytes = func() (plain [256]bool) {
	for c := range rune(utf8.RuneSelf) {
		plain[c] = !Special(c)
	}
	return plain
}()

// Plain reports whether text can stand in a key without an escape.
func Plain(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, Special)
}

const hexDigits = "0123456789ABCDEF"

func appendHex(b []byte, c byte) []byte {
	return append(b, '%', hexDigits[c>>4], hexDigits[c&15])
}
