package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
)

type jsonCodec struct{}

func (jsonCodec) Name() string { return "json" }

func (jsonCodec) Marshal(v any) ([]byte, error) {
	pointer, typ, rv := target(v)
	if typ == nil {
		return json.Marshal(v)
	}
	k := keeperOf(typ, "json")
	if err := k.check(rv); err != nil {
		return nil, err
	}
	data, err := json.Marshal(pointer)
	if err != nil {
		if found := k.find(rv); found != nil {
			return nil, found // which names the field
		}
		return nil, err
	}
	// What is not UTF-8 is written as this. A text can have it too, and then there is nothing to be found.
	if bytes.Contains(data, []byte(`\ufffd`)) {
		if err := k.find(rv); err != nil {
			return nil, err
		}
	}
	return appendPrint(data, k.print), nil
}

func (jsonCodec) Unmarshal(data []byte, v any) error {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		return json.Unmarshal(data, v)
	}
	k := keeperOf(rv.Type().Elem(), "json")
	if k.refused != nil {
		return k.refused
	}
	if err := json.Unmarshal(data, v); err != nil {
		return err
	}
	if print, ok := printOf(data); !ok || print == k.print {
		return nil
	}
	return k.compare(data, rv.Elem(), func() ([]byte, error) { return json.Marshal(v) }, func(data []byte, v any) error {
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber() // as it is written
		if err := d.Decode(v); err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return nil
	})
}

// Behind the JSON there is a hash of the type's fields, two bits in each of sixteen characters of white space, which every reader of JSON
// passes over. What has none is read all the same: builds before this one wrote so.
const (
	blanks   = " \t\n\r"
	printLen = 16
)

func appendPrint(data []byte, print uint32) []byte {
	for shift := 0; shift < 2*printLen; shift += 2 {
		data = append(data, blanks[print>>shift&3])
	}
	return data
}

func printOf(data []byte) (print uint32, ok bool) {
	if len(data) <= printLen {
		return 0, false
	}
	for i, c := range data[len(data)-printLen:] {
		two := bytes.IndexByte([]byte(blanks), c)
		if two < 0 {
			return 0, false
		}
		print |= uint32(two) << (2 * i)
	}
	return print, true
}
