package wire

import (
	"bytes"
	"encoding/json"
)

// json goes through a JSON text. Where that is malformed, it stops anywhere: the decoder looks at all of it before it makes anything.
func (w *weigher) json(data []byte) {
	named := false // a member's name has come, and its value is next
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

// unescaped is the name that a text in quotation marks stands for.
func unescaped(quoted, text []byte) []byte {
	var name string
	if bytes.IndexByte(text, '\\') < 0 || json.Unmarshal(quoted, &name) != nil {
		return text
	}
	return []byte(name)
}

// textLen is how long a JSON string is whose opening quotation mark is before data, negative where it does not end.
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
