package wire

import (
	"encoding"
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strconv"
	"time"
)

// NotKept decodes a payload, and looks for the first thing of the value that did not come back: its path, "" where the whole value is
// meant, and what has become of it. It reports false where everything has come back, as far as it compares.
//
// Others hold the value already, and may use what it has worked out of itself, under a lock that it has. So only that of it is read which
// the codec reads too: its exported fields. An unexported one is looked at in what has come back, which nobody else has. What has a form of its
// own, by a method such as MarshalJSON, is left to its author: that method may take a lock, and knows better what counts as equal.
func NotKept(codec Codec, payload []byte, value any) (field, what string, some bool) {
	again := reflect.New(reflect.TypeOf(value).Elem())
	if err := Unmarshal(codec, payload, again.Interface()); err != nil {
		return "", "it cannot be decoded", true
	}
	d := difference{left: mostCompared, codec: codec.Name()}
	if !d.found(reflect.ValueOf(value).Elem(), again.Elem(), "") {
		return "", "", false
	}
	if d.hidden {
		return d.at, "it is not exported, and comes back empty", true
	}
	return d.at, "it comes back changed", true
}

const mostCompared = 10_000 // parts of a value

// A difference is the first one between two values of a type, as far as it is looked for.
type difference struct {
	at     string
	hidden bool // an unexported field, which is empty in the second value; what the first one has there is not known
	codec  string
	left   int
}

// ownForms are the methods by which a type has a form of its own: those that a codec calls, where that is known.
var ownForms = map[string][]reflect.Type{
	JSON.Name(): {reflect.TypeFor[json.Marshaler](), reflect.TypeFor[encoding.TextMarshaler]()},
	CBOR.Name(): {
		reflect.TypeFor[interface{ MarshalCBOR() ([]byte, error) }](), reflect.TypeFor[encoding.BinaryMarshaler](), reflect.TypeFor[encoding.TextMarshaler](),
	},
}

var otherForms = slices.Concat(ownForms[JSON.Name()], ownForms[CBOR.Name()], []reflect.Type{
	reflect.TypeFor[interface{ GobEncode() ([]byte, error) }](),
	reflect.TypeFor[interface{ MarshalMsgpack() ([]byte, error) }](),
	reflect.TypeFor[interface{ MarshalBSON() ([]byte, error) }](),
	reflect.TypeFor[interface{ ProtoMessage() }](),
})

// hasOwnForm reports whether a type, or a pointer to it, has one of these methods.
func (d *difference) hasOwnForm(t reflect.Type) bool {
	if t.Kind() == reflect.Interface {
		return false // what it holds is looked at
	}
	forms, known := ownForms[d.codec]
	if !known {
		forms = otherForms
	}
	return slices.ContainsFunc(forms, reflect.PointerTo(t).Implements)
}

var typeOfTime = reflect.TypeFor[time.Time]()

// found looks for it. Nil and empty are the same; what the author of a type has told codecs to leave out is not looked at.
func (d *difference) found(a, b reflect.Value, path string) bool {
	if d.left--; d.left < 0 {
		return false
	}
	differ := func(yes bool) bool {
		if yes {
			d.at = path
		}
		return yes
	}
	if a.Type() == typeOfTime {
		return a.CanInterface() && differ(!a.Interface().(time.Time).Equal(b.Interface().(time.Time)))
	}
	if d.hasOwnForm(a.Type()) {
		return false
	}
	switch a.Kind() {
	case reflect.Bool:
		return differ(a.Bool() != b.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return differ(a.Int() != b.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return differ(a.Uint() != b.Uint())
	case reflect.Float32, reflect.Float64:
		x, y := a.Float(), b.Float()
		return differ(x != y && !(math.IsNaN(x) && math.IsNaN(y)))
	case reflect.Complex64, reflect.Complex128:
		return differ(a.Complex() != b.Complex())
	case reflect.String:
		return differ(a.String() != b.String())
	case reflect.Struct:
		for i := range a.NumField() {
			f := a.Type().Field(i)
			if f.Tag.Get("json") == "-" || f.Tag.Get("cbor") == "-" || f.Name == "_" {
				continue
			}
			if !f.IsExported() && !(f.Anonymous && f.Type.Kind() == reflect.Struct) { // such a struct's own fields may be exported
				if f.Type.PkgPath() != "sync" && b.Field(i).IsZero() {
					d.at, d.hidden = path+"."+f.Name, true
					return true
				}
				continue
			}
			if d.found(a.Field(i), b.Field(i), path+"."+f.Name) {
				return true
			}
		}
		return false
	case reflect.Pointer, reflect.Interface:
		if a.IsNil() || b.IsNil() {
			return differ(a.IsNil() != b.IsNil())
		}
		if a, b = a.Elem(), b.Elem(); a.Type() != b.Type() {
			return differ(true)
		}
		return d.found(a, b, path)
	case reflect.Slice, reflect.Array:
		if a.Len() != b.Len() {
			return differ(true)
		}
		for i := range a.Len() {
			if d.found(a.Index(i), b.Index(i), path+"["+strconv.Itoa(i)+"]") {
				return true
			}
		}
		return false
	case reflect.Map:
		if a.Len() != b.Len() {
			return differ(true)
		}
		for _, k := range a.MapKeys() {
			v := b.MapIndex(k)
			if !v.IsValid() {
				return differ(true)
			}
			if d.found(a.MapIndex(k), v, path+"[a key]") {
				return true
			}
		}
		return false
	}
	return differ(!a.IsZero() && b.IsZero()) // functions, channels
}
