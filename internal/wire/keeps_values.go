package wire

import (
	"math"
	"reflect"
	"strings"
)

// A walker inspects values that a format might change.
type walker struct {
	format string
	all    bool // also look for what the encoder refused: NaN, infinities, and strings that are not UTF-8
	left   int  // how many bytes the value may still take; a node is written, and inspected, once for each path to it
}

// jsonNesting is the depth to which encoding/json decodes.
const jsonNesting = 10_000

func (w *walker) deepest() int {
	if w.format == "json" {
		return jsonNesting
	}
	return maxNesting
}

// value inspects a value. levels is its depth in the format, and steps its depth in memory.
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
		return w.any(v.Interface(), levels-1).in("[]") // needs no reflection for each element
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
			w.left++ // its field takes the byte
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
		w.left++ // its element takes the byte
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
				continue // an embedded pointer on the path is nil
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

// embedded refuses an embedded struct that is not zero and of which nothing is written.
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
			continue // its methods decide whether CBOR takes it for empty
		}
		if at, err := v.FieldByIndexErr(f.index); err == nil && !f.isOmitted(at) {
			return nil
		}
	}
	return lose("is an embedded pointer to a struct of which no field is written, and becomes nil").in(e.path)
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

// any inspects the content of an interface. It comes back with the type that the format has for it.
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
