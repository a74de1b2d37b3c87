package wire

import (
	"bytes"
	"encoding"
	"encoding/json"
	"math"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
)

// A walker looks at the values that a format might change.
type walker struct {
	format string
	all    bool // looks for what the encoder has found: numbers that are none, and strings that are not UTF-8
	left   int  // of the bytes that the value may take: a node that is reached by many ways is written, and looked at, as many times
}

// jsonNesting is how deep encoding/json decodes.
const jsonNesting = 10_000

func (w *walker) deepest() int {
	if w.format == "json" {
		return jsonNesting
	}
	return maxNesting
}

// value is at a number of levels of the format, and of steps in memory.
func (w *walker) value(p *part, v reflect.Value, levels, steps int) *loss {
	if !p.look && !w.all {
		return nil
	}
	if steps > 4*w.deepest() {
		return lose("goes deeper than %d levels, or has no end", w.deepest())
	}
	switch p.kind {
	case listPart, mapPart, structPart:
		if v.Kind() != reflect.Struct && v.Kind() != reflect.Array && v.IsNil() {
			return nil
		}
		if levels++; levels > w.deepest() {
			return lose("goes deeper than %d levels, or has no end", w.deepest())
		}
	}
	if p.typ == anyMapType || p.typ == anyListType {
		return w.any(v.Interface(), levels-1).in("[]") // without reflection for each element
	}
	if w.left--; w.left < 0 {
		return tooLarge
	}
	steps++
	switch p.kind {
	case textPart:
		return w.text(v.String())
	case floatPart:
		return w.float(v.Float())
	case ownPart, ownTextPart:
		switch {
		case p.wrapped != nil && p.wrapped.look:
			w.left++ // its field is what takes a byte
			if l := w.value(p.wrapped, v.Field(p.wraps), levels, steps); l != nil {
				return l.in(p.typ.Field(p.wraps).Name)
			}
		case p.look && !comesBack(v):
			return lose("is a %s that is another one once it is decoded", p.typ)
		}
		if p.kind == ownTextPart {
			return w.ownText(v)
		}
	case timePart:
		return w.time(timeOf(v))
	case numberPart:
		if v.Len() == 0 {
			return lose("is an empty json.Number, which becomes 0")
		}
	case hiddenPart:
		if !v.IsZero() {
			return lose("is a %s, which has no exported fields: all of it would be lost", p.typ)
		}
	case anyPart:
		if v.IsNil() {
			return nil
		}
		if v.NumMethod() > 0 {
			return lose("is of type %s, an interface with methods: what is in it cannot be decoded", p.typ)
		}
		w.left++
		return w.any(v.Interface(), levels)
	case pointerPart:
		if v.IsNil() {
			return nil
		}
		w.left++ // its element is what takes a byte
		if to := v.Elem(); isNull(w.format, p.elem, to) {
			return lose("is a pointer to what is null, and becomes nil itself")
		}
		return w.value(p.elem, v.Elem(), levels, steps)
	case listPart:
		for i := range v.Len() {
			if l := w.value(p.elem, v.Index(i), levels, steps); l != nil {
				return l.in("[]")
			}
		}
	case mapPart:
		for entries := v.MapRange(); entries.Next(); {
			if l := w.key(p.key, entries.Key(), levels, steps); l != nil {
				return l.in("[]")
			}
			if l := w.value(p.elem, entries.Value(), levels, steps); l != nil {
				return l.in("[]")
			}
		}
	case structPart:
		for i := range p.embeds {
			if l := w.embedded(p, &p.embeds[i], v); l != nil {
				return l
			}
		}
		for i := range p.fields {
			f := &p.fields[i]
			if !f.part.look && !f.asks && !w.all {
				continue
			}
			at, err := v.FieldByIndexErr(f.index)
			if err != nil {
				continue // behind an embedded pointer that is nil
			}
			if f.isOmitted(at) {
				if f.asks && at.Kind() == reflect.Pointer && !at.IsNil() {
					return lose("is a pointer to what omitzero takes for zero, and becomes nil itself").in(f.path)
				}
				continue
			}
			w.left -= f.least - 1
			if l := w.value(f.part, at, levels, steps); l != nil {
				return l.in(f.path)
			}
		}
	}
	return nil
}

// isNull reports whether a value that can be null is.
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
	case *json.RawMessage: // without a copy
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

// embedded refuses an embedded struct of which nothing is written, though it has something to come back.
func (w *walker) embedded(p *part, e *embedded, v reflect.Value) *loss {
	at, err := v.FieldByIndexErr(e.index)
	if err != nil || at.IsZero() {
		return nil
	}
	if !e.pointer {
		return lose("is embedded and has no exported fields: all of it would be lost").in(e.path)
	}
	for i := range p.fields {
		f := &p.fields[i]
		if !e.holds(f) || f.empty && (f.part.kind == ownPart || f.part.kind == ownTextPart) {
			continue // what CBOR takes for empty there hangs on their methods
		}
		if at, err := v.FieldByIndexErr(f.index); err == nil && !f.isOmitted(at) {
			return nil
		}
	}
	return lose("is an embedded pointer to a struct of which no field is written, and becomes nil").in(e.path)
}

// isOmitted reports whether a format leaves out a field for what is in it.
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

// comesBack reports whether a value of the standard library, whose methods do not tell all of it, is the same once it is decoded.
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

func (w *walker) key(p *part, v reflect.Value, levels, steps int) *loss {
	switch p.kind {
	case timePart:
		if t := timeOf(v); t.Round(0).UTC() != t {
			return lose("is a map with a time as its key that is not in UTC, or has a monotonic reading: it becomes another key")
		}
	case floatPart:
		if math.IsNaN(v.Float()) {
			return lose("is a map with a NaN as its key")
		}
	}
	return w.value(p, v, levels, steps)
}

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

// any looks at what is in an interface: what comes back is of the type that the format has for it.
func (w *walker) any(x any, levels int) *loss {
	if w.left--; w.left < 0 {
		return tooLarge
	}
	switch x := x.(type) {
	case nil, bool:
		return nil
	case float64:
		return w.float(x)
	case string:
		return w.text(x)
	case int64:
		if w.format == "cbor" {
			return nil
		}
	case []byte:
		if w.format == "cbor" && x != nil {
			return nil
		}
	case []any:
		if x == nil {
			break
		}
		if levels++; levels > w.deepest() {
			return lose("goes deeper than %d levels, or has no end", w.deepest())
		}
		for _, e := range x {
			if l := w.any(e, levels); l != nil {
				return l
			}
		}
		return nil
	case map[string]any:
		if x == nil {
			break
		}
		if levels++; levels > w.deepest() {
			return lose("goes deeper than %d levels, or has no end", w.deepest())
		}
		for k, e := range x {
			if l := w.text(k); l != nil {
				return l
			}
			if l := w.any(e, levels); l != nil {
				return l
			}
		}
		return nil
	}
	if v := reflect.ValueOf(x); (v.Kind() == reflect.Slice || v.Kind() == reflect.Map) && v.IsNil() {
		return lose("is an interface that holds nil of type %T, which comes back as nil", x)
	}
	return lose("is an interface that holds %T: %s gives back only %s there", x, strings.ToUpper(w.format), w.givesBack())
}

func (w *walker) givesBack() string {
	if w.format == "json" {
		return "bool, float64, string, []any and map[string]any"
	}
	return "bool, int64, float64, string, []byte, []any and map[string]any"
}
