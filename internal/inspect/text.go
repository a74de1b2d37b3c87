package inspect

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/gatewayz/aside/internal/wire"
)

// Codec is the name of the codec of a payload. Only the program knows the codecs of its own.
func (e *Entry) Codec() string {
	switch codec, ok := wire.Builtin(e.Header.Codec); {
	case e.Header.Negative:
		return ""
	case ok:
		return codec.Name()
	}
	return "a codec of the program"
}

// A value is formatted up to this length, or up to the one that is asked for, and this depth. Indentation makes a deep one thousands of times as long.
const (
	mostFormatted = 1 << 20
	deepest       = 64
)

// Text is the payload for a reader: JSON with indentation, CBOR as JSON, text as it is, and anything else as a hexadecimal dump. A terminal can
// show it: control characters are escaped. If the payload is long, and longer than most, it is the text of the first most bytes.
func (e *Entry) Text(most int) (text string, whole bool) {
	payload := e.Payload
	if whole = len(payload) <= max(most, mostFormatted); !whole {
		payload = payload[:most]
		for range utf8.UTFMax - 1 { // the rest of a character may be cut off
			if r, n := utf8.DecodeLastRune(payload); r == utf8.RuneError && n == 1 {
				payload = payload[:len(payload)-1]
			}
		}
	}
	switch codec := e.Codec(); {
	case whole && codec == wire.JSON.Name():
		if text, ok := indented(payload); ok {
			return text, whole
		}
	case whole && codec == wire.CBOR.Name():
		if text, ok := asJSON(payload); ok {
			return text, whole
		}
	}
	if text := string(payload); utf8.ValidString(text) && !strings.ContainsFunc(text, isHidden) {
		return text, whole
	}
	return strings.TrimSuffix(hex.Dump(payload), "\n"), whole
}

func indented(payload []byte) (string, bool) {
	var b bytes.Buffer
	if tooDeep(payload) || json.Indent(&b, bytes.TrimSpace(payload), "", "  ") != nil { // white space behind it says of which type it is
		return "", false
	}
	return Printable(b.String()), true
}

// tooDeep reports whether JSON is nested deeper than it is indented.
func tooDeep(payload []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(payload); i++ {
		switch c := payload[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
		case quoted:
		case c == '[' || c == '{':
			if depth++; depth > deepest {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}

// asJSON decodes CBOR. It reports false for what JSON has no form for, such as a map whose keys are numbers, or NaN.
func asJSON(payload []byte) (string, bool) {
	v, err := wire.Limits{MaxValue: max(len(payload), 1<<20)}.CBORAsAny(payload)
	if err != nil {
		return "", false
	}
	text, err := json.Marshal(v)
	if err != nil {
		return "", false
	}
	return indented(text)
}

// Printable is text with every character that a terminal may take for a command escaped. Line feeds and tabs stay.
func Printable(text string) string {
	if utf8.ValidString(text) && !strings.ContainsFunc(text, isHidden) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if isHidden(r) {
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// PrintableJSON is JSON whose strings have such characters escaped as JSON does. The encoder of encoding/json escapes the ASCII ones alone: U+009B
// begins a command too.
func PrintableJSON(text []byte) []byte {
	var b []byte
	for _, r := range string(text) {
		switch {
		case !isHidden(r):
			b = utf8.AppendRune(b, r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, high, low)
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
	}
	return b
}

func isHidden(r rune) bool {
	return r != '\n' && r != '\t' && (!unicode.IsPrint(r) || r == utf8.RuneError)
}
