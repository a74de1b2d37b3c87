package wire

import (
	"bytes"
	"encoding"
	"encoding/json"
	"math"
	"net/url"
	"reflect"
	"regexp"
	"time"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
)

func (w *walker) time(t time.Time) *loss {
	_, offset := t.Zone()
	switch y := t.Year(); {
	case y < 0 || y > 9999:
		return lose("is a time whose year has not four digits")
	case offset%60 != 0:
		return lose("is a time in a zone with seconds in its offset: it would be another instant")
	case offset <= -24*3600 || offset >= 24*3600:
		return lose("is a time in a zone that is a day or more from UTC")
	case w.format == "cbor" && t.IsZero() && offset != 0:
		return lose("is a zero time in a zone of its own")
	}
	return nil
}

func (w *walker) text(s string) *loss {
	if w.format == "json" && !utf8.ValidString(s) {
		return lose("is a string that is not UTF-8, which JSON has no form for: CBOR and []byte keep it")
	}
	return nil
}

func (w *walker) float(f float64) *loss {
	if w.format == "json" && (math.IsNaN(f) || math.IsInf(f, 0)) {
		return lose("is %v, which JSON has no form for: CBOR keeps it", f)
	}
	return nil
}

func (w *walker) ownText(v reflect.Value) *loss {
	if w.format != "json" {
		return nil
	}
	if v.CanAddr() {
		v = v.Addr()
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		if b, err := m.MarshalText(); err == nil && !utf8.Valid(b) {
			return lose("has a text that is not UTF-8, which JSON has no form for")
		}
	}
	return nil
}

// isNull reports whether the format writes null for a value.
func isNull(format string, p *part, v reflect.Value) bool {
	switch {
	case !p.nullable:
		return false
	case p.kind == timePart:
		return timeOf(v).IsZero()
	case p.kind != ownPart:
		return v.IsNil()
	}
	if v.CanAddr() {
		v = v.Addr()
	}
	switch m := v.Interface().(type) {
	case *json.RawMessage: // needs no copy
		return *m == nil || isNullJSON(*m)
	case json.Marshaler:
		if format == "json" {
			data, err := m.MarshalJSON()
			return err == nil && isNullJSON(data)
		}
	}
	if m, ok := v.Interface().(cbor.Marshaler); ok && format == "cbor" {
		data, err := m.MarshalCBOR()
		return err == nil && isNullCBOR(data)
	}
	return false
}

func isNullJSON(data []byte) bool { return string(bytes.TrimSpace(data)) == "null" }

func isNullCBOR(item []byte) bool { return len(item) == 1 && (item[0] == 0xf6 || item[0] == 0xf7) }

// isOmitted reports whether a format leaves out a field because of its value.
func (f *partField) isOmitted(v reflect.Value) bool {
	if f.empty {
		switch v.Kind() {
		case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
			if v.Len() == 0 {
				return true
			}
		case reflect.Struct:
		default:
			if v.IsZero() {
				return true
			}
		}
	}
	switch {
	case !f.zero:
		return false
	case !f.asks || (v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface) && v.IsNil():
		return v.IsZero()
	}
	if m, ok := v.Interface().(interface{ IsZero() bool }); ok {
		return m.IsZero()
	}
	if !v.CanAddr() {
		to := reflect.New(v.Type())
		to.Elem().Set(v)
		v = to.Elem()
	}
	m, ok := v.Addr().Interface().(interface{ IsZero() bool })
	return ok && m.IsZero()
}

// comesBack reports whether a value of the standard library is the same after decoding. The methods of such a type do not encode all of it.
func comesBack(v reflect.Value) bool {
	if !v.CanAddr() {
		to := reflect.New(v.Type())
		to.Elem().Set(v)
		v = to.Elem()
	}
	switch v := v.Addr().Interface().(type) {
	case *url.URL:
		again, err := url.Parse(v.String())
		return err == nil && reflect.DeepEqual(v, again)
	case *regexp.Regexp:
		again, err := regexp.Compile(v.String())
		return err == nil && reflect.DeepEqual(v, again)
	}
	return true
}

func timeOf(v reflect.Value) time.Time {
	if v.CanAddr() {
		return *v.Addr().Interface().(*time.Time)
	}
	return v.Interface().(time.Time)
}
