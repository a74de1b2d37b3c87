package wire

import (
	"bytes"
	"encoding/json"
)

// json weighs a JSON text. If the text is malformed, json may stop anywhere: the decoder checks all of it before it allocates values.
func (w *weigher) json(data []byte) {
	named := false // the name of a member has come, and its value is next
	for i := 0; i < len(data) && w.left >= 0; i++ {
		inObject := len(w.stack) > 0 && w.stack[len(w.stack)-1].object
		switch c := data[i]; c {
		case '{', '[':
			if len(w.stack) > deepest {
				return
			}
			w.begin(c == '{')
			named = false
		case '}', ']':
			if len(w.stack) == 0 {
				return
			}
			w.end()
		case ',':
			named = false
		case ' ', '\t', '\r', '\n', ':':
		case '"':
			n := textLen(data[i+1:])
			if n < 0 {
				return
			}
			if inObject && !named {
				w.key(unescaped(data[i:i+n+2], data[i+1:i+1+n]))
				named = true
			} else {
				w.value(data[i+1 : i+1+n])
			}
			i += n + 1
		default:
			start := i
			for i+1 < len(data) && data[i+1] != ',' && data[i+1] != ']' && data[i+1] != '}' {
				i++
			}
			if c != 'n' { // null
				w.number(data[start : i+1])
			} else if len(w.stack) > 0 && !inObject {
				w.null()
			}
		}
	}
}

// unescaped returns the name in a text with quotation marks, without escapes.
func unescaped(quoted, text []byte) []byte {
	var name string
	if bytes.IndexByte(text, '\\') < 0 || json.Unmarshal(quoted, &name) != nil {
		return text
	}
	return []byte(name)
}

// textLen returns the length of a JSON string whose opening quotation mark is before data. It is negative if the string does not end.
func textLen(data []byte) int {
	for from := 0; ; {
		n := bytes.IndexByte(data[from:], '"')
		if n < 0 {
			return -1
		}
		at := from + n
		escapes := 0
		for escapes < at && data[at-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return at
		}
		from = at + 1
	}
}
