package wire

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

// A jsonCodec refuses a value of more than most bytes, unless most is 0. by encodes and decodes: nil stands for encoding/json.
type jsonCodec struct {
	most int
	by   *JSONFunctions
}

func (c jsonCodec) encode(v any) ([]byte, error) {
	if c.by == nil {
		return json.Marshal(v)
	}
	data, err := c.by.Marshal(v)
	if err != nil {
		return nil, err
	}
	return slices.Clip(data), nil // the fields' hashes are appended to it: not into memory that others have
}

func (c jsonCodec) decode(data []byte, v any) error {
	if c.by == nil {
		return json.Unmarshal(data, v)
	}
	return c.by.Unmarshal(data, v)
}

func (jsonCodec) Name() string { return "json" }

func (c jsonCodec) Marshal(v any) ([]byte, error) {
	pointer, typ, rv := target(v)
	if typ == nil {
		return c.encode(v)
	}
	k := keeperOf(typ, "json")
	if err := k.check(rv, atMost(c.most)); err != nil {
		return nil, err
	}
	data, err := c.encode(pointer)
	if err != nil {
		if found := k.find(rv); found != nil {
			return nil, found // it names the field
		}
		return nil, err
	}
	if c.mayHaveReplaced(data) {
		if err := k.find(rv); err != nil {
			return nil, err
		}
	}
	return appendPrint(data, k.fields.stored, k.print), nil
}

func (c jsonCodec) Unmarshal(data []byte, v any) error {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		return c.decode(data, v)
	}
	k := keeperOf(rv.Type().Elem(), "json")
	if k.refused != nil {
		return k.refused
	}
	if print, ok := printOf(data); ok && print != k.print {
		if err := k.reads(print, fieldsOf(data)); err != nil {
			return err
		}
	}
	if !k.root.nullable && isNullJSON(data) {
		return errNothing
	}
	return c.decode(data, v)
}

// mayHaveReplaced reports whether bytes of a string that are not UTF-8 may have been replaced in a JSON text. encoding/json writes \ufffd for
// them, other functions also the character itself, or the bytes as they are. A valid text can contain these too: find then finds no loss.
func (c jsonCodec) mayHaveReplaced(data []byte) bool {
	if bytes.Contains(data, []byte(`\ufffd`)) {
		return true
	}
	return c.by != nil && (bytes.Contains(data, []byte(`\uFFFD`)) || bytes.ContainsRune(data, utf8.RuneError) || !utf8.Valid(data))
}

// atMost returns a bound, where 0 means that there is none.
func atMost(n int) int {
	if n == 0 {
		return math.MaxInt
	}
	return n
}

// White space follows the JSON. Each character holds two bits, and every reader of JSON skips it. It holds the hashes of the type's fields,
// their length in bytes, and a hash of all of them. Payloads without it are read too: earlier builds wrote such payloads.
const (
	blanks   = " \t\n\r"
	printLen = 16
	countLen = 8
)

func appendPrint(data, fields []byte, print uint32) []byte {
	data = slices.Grow(data, 4*len(fields)+countLen+printLen)
	if fields != nil {
		for _, b := range fields {
			data = append(data, blanks[b&3], blanks[b>>2&3], blanks[b>>4&3], blanks[b>>6])
		}
		data = appendBlanks(data, uint32(len(fields)), countLen)
	}
	return appendBlanks(data, print, printLen)
}

func appendBlanks(data []byte, n uint32, count int) []byte {
	for shift := 0; shift < 2*count; shift += 2 {
		data = append(data, blanks[n>>shift&3])
	}
	return data
}

func printOf(data []byte) (print uint32, ok bool) {
	print, _, ok = cutBlanks(data, printLen)
	return print, ok
}

// fieldsOf returns the hashes of the fields. It returns nil if there are none, or if their list is incomplete.
func fieldsOf(data []byte) (fields []byte) {
	_, data, _ = cutBlanks(data, printLen)
	n, data, ok := cutBlanks(data, countLen)
	if !ok || int(n) > fieldHash*mostKept || int(n) > len(data)/4 {
		return nil
	}
	for at := len(data) - 4*int(n); at < len(data); at += 4 {
		b, _, ok := cutBlanks(data[:at+4], 4)
		if !ok {
			return nil
		}
		fields = append(fields, byte(b))
	}
	return fields
}

// cutBlanks reads a number from the end of data. It reports false if there is nothing before the number.
func cutBlanks(data []byte, count int) (n uint32, rest []byte, ok bool) {
	at := len(data) - count
	if at <= 0 {
		return 0, nil, false
	}
	for i, c := range data[at:] {
		two := strings.IndexByte(blanks, c)
		if two < 0 {
			return 0, nil, false
		}
		n |= uint32(two) << (2 * i)
	}
	return n, data[:at], true
}
