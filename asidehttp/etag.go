package asidehttp

import (
	"net/http"
	"strings"
)

// known returns the ETag of the copy that the client has, if it still has the right content: the first one in If-None-Match that is of this
// content, in any coding. It is chosen's own, if that is among them or the header is "*".
//
// Copies in other codings count, since all of them are of the same content. The response names the ETag that the client has sent, because a cache
// finds by it which of its copies is still right (RFC 9111, 4.3.4). The coding of that copy need not be one of p: a proxy that encodes bodies
// appends the name of its coding, or makes the ETag weak. Comparison is weak (RFC 9110, 13.1.2).
func (p *packed) known(h http.Header, chosen string) (tag string, ok bool) {
	lines := h["If-None-Match"]
	if len(lines) == 0 {
		return "", false
	}
	var room [64]byte
	ours := p.appendTag(room[:0])
	for _, line := range lines {
		if trim(line) == "*" {
			return chosen, true
		}
		for {
			var next string
			if next, line, ok = nextTag(line); !ok {
				break // the rest is malformed
			}
			rest, same := strings.CutPrefix(strings.TrimPrefix(next, "W/"), string(ours))
			if !same || rest[0] != '"' && rest[0] != '-' {
				continue
			}
			if next == chosen {
				return chosen, true
			}
			if tag == "" {
				tag = next
			}
		}
	}
	return tag, tag != ""
}

// nextTag cuts the first ETag, with its quotes and W/, off a list. It reports false at the end of the list, and before what is no ETag.
func nextTag(list string) (tag, rest string, ok bool) {
	list = strings.TrimLeft(list, " \t,")
	start := 0
	if strings.HasPrefix(list, "W/") {
		start = len("W/")
	}
	if start >= len(list) || list[start] != '"' {
		return "", "", false
	}
	for i := start + 1; i < len(list); i++ {
		switch c := list[i]; {
		case c == '"':
			return list[:i+1], list[i+1:], true
		case c <= ' ' || c >= 0x7f:
			return "", "", false // it is echoed, so that only printable ASCII is taken
		}
	}
	return "", "", false
}
