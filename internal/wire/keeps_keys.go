package wire

import (
	"reflect"
)

// mapKey makes the part of a map's keys. It refuses keys that would not come back, or would come back as another key.
func (b *builder) mapKey(t reflect.Type) (*part, *loss) {
	key := partKey{t, false, true}
	if p := b.made[key]; p != nil {
		return p, nil
	}
	p := &part{typ: t}
	b.made[key] = p
	where := "is a map whose keys are of type " + t.String()
	out, in := t.Implements(textMarshaler), reflect.PointerTo(t).Implements(textUnmarshaler)
	switch k := t.Kind(); {
	case t == timeType:
		p.kind, p.look = timePart, true
	case k == reflect.Pointer || k == reflect.Interface:
		return nil, lose("%s: a key that is decoded is another one", where)
	case b.format == "cbor":
		if ownMethods(t) {
			_, l := b.own(p, true)
			if l == nil {
				l = timeAsKey(t)
			}
			if l != nil {
				return nil, &loss{why: where + ", which " + l.why}
			}
			return p, nil
		}
		switch k {
		case reflect.Array, reflect.Struct:
			of, l := b.part(t, true)
			if l == nil {
				l = of.asKey(make(map[*part]bool))
			}
			if l != nil {
				l.why = where + ", which " + l.why
				return nil, &loss{why: l.why}
			}
			return of, nil
		case reflect.Float32, reflect.Float64:
			p.kind, p.look = floatPart, true
		case reflect.String:
			p.kind = textPart
		case reflect.Chan, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer, reflect.Uintptr:
			return nil, lose("%s: CBOR has no form for it", where)
		}
	case out != in || k == reflect.String && out:
		return nil, lose("%s: encoding/json does not decode such keys as it encodes them", where)
	case out:
		_, l := soleSource(t, textMarshaler, "MarshalText")
		if l == nil {
			l = timeAsKey(t)
		}
		if l != nil {
			return nil, &loss{why: where + ", which " + l.why}
		}
		p.kind = ownTextPart
	case k == reflect.String:
		p.kind = textPart
	case k < reflect.Int || k > reflect.Uintptr:
		return nil, lose("%s: JSON has no form for it", where)
	}
	return p, nil
}

// timeAsKey refuses a key that has its methods from an embedded time or pointer.
func timeAsKey(t reflect.Type) *loss {
	switch from, _ := promoted(t, textMarshaler, "MarshalText"); {
	case from < 0:
		return nil
	case t.Field(from).Type == timeType || t.Field(from).Type.Kind() == reflect.Pointer:
		return lose("holds a %s: a key that is decoded is another one", t.Field(from).Type)
	default:
		return timeAsKey(t.Field(from).Type)
	}
}

// asKey refuses a key that is not equal to itself after decoding.
func (p *part) asKey(seen map[*part]bool) *loss {
	if seen[p] {
		return nil
	}
	seen[p] = true
	switch p.kind {
	case pointerPart, anyPart, timePart, hiddenPart:
		return lose("holds a %s: a key that is decoded is another one", p.typ)
	}
	if p.elem != nil {
		return p.elem.asKey(seen)
	}
	if p.kind == ownPart || p.kind == ownTextPart {
		return timeAsKey(p.typ)
	}
	for _, f := range p.fields {
		if l := f.part.asKey(seen); l != nil {
			return l
		}
	}
	return nil
}
