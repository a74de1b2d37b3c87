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

// Text is the payload for a reader: JSON with indentation, CBOR as JSON, text as it is, and anything else as a hexadecimal dump. A terminal can
// show it: control characters are escaped.
func (e *Entry) Text() string {
	switch e.Codec() {
	case wire.JSON.Name():
		if text, ok := indented(e.Payload); ok {
			return text
		}
	case wire.CBOR.Name():
		if text, ok := asJSON(e.Payload); ok {
			return text
		}
	}
	if text := string(e.Payload); utf8.ValidString(text) && !strings.ContainsFunc(text, isHidden) {
		return text
	}
	return strings.TrimSuffix(hex.Dump(e.Payload), "\n")
}

func indented(payload []byte) (string, bool) {
	var b bytes.Buffer
	if json.Indent(&b, bytes.TrimSpace(payload), "", "  ") != nil { // white space behind it says of which type it is
		return "", false
	}
	return Printable(b.String()), true
}

// asJSON decodes CBOR. It reports false for what JSON has no form for, such as a map whose keys are numbers, or NaN.
func asJSON(payload []byte) (string, bool) {
	v, err := wire.Limits{MaxValue: max(len(payload), 1<<20)}.CBORAsAny(payload)
	if err != nil {
		return "", false
	}
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return "", false
	}
	return Printable(string(text)), true
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
