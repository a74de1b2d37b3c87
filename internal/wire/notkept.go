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

// NotKept decodes a payload and compares the result with the value. It returns the path of the first part that did not come back, and
// what became of it. The path is "" for the value as a whole. NotKept reports false if everything that it compares has come back.
//
// Other goroutines hold the value already. They may use unexported fields that the value fills in itself, under a lock of its own. So
// NotKept reads only the exported fields of the value, which the codec reads too. It checks an unexported field in the decoded copy, which
// no other goroutine has. It skips a type with a form of its own, by a method such as MarshalJSON. Such a method may take a lock, and the
// author of the type knows better what counts as equal.
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

// A difference is the first difference that was found between two values of a type.
type difference struct {
	at     string
	hidden bool // it is an unexported field that is empty in the second value; the content in the first value is not known
	codec  string
	left   int
}

// ownForms are the interfaces that give a type a form of its own, for each codec of this package.
var ownForms = map[string][]reflect.Type{
	JSON.Name(): {reflect.TypeFor[json.Marshaler](), reflect.TypeFor[encoding.TextMarshaler]()},
	CBOR.Name(): {
		reflect.TypeFor[interface{ MarshalCBOR() ([]byte, error) }](), reflect.TypeFor[encoding.BinaryMarshaler](), reflect.TypeFor[encoding.TextMarshaler](),
	},
}

// otherForms are those interfaces for any other codec.
var otherForms = slices.Concat(ownForms[JSON.Name()], ownForms[CBOR.Name()], []reflect.Type{
	reflect.TypeFor[interface{ GobEncode() ([]byte, error) }](),
	reflect.TypeFor[interface{ MarshalMsgpack() ([]byte, error) }](),
	reflect.TypeFor[interface{ MarshalBSON() ([]byte, error) }](),
	reflect.TypeFor[interface{ ProtoMessage() }](),
})

// hasOwnForm reports whether a type, or a pointer to it, has one of these methods.
func (d *difference) hasOwnForm(t reflect.Type) bool {
	if t.Kind() == reflect.Interface {
		return false // its content is compared
	}
	forms, known := ownForms[d.codec]
	if !known {
		forms = otherForms
	}
	return slices.ContainsFunc(forms, reflect.PointerTo(t).Implements)
}

var typeOfTime = reflect.TypeFor[time.Time]()

// found reports whether it has found a difference. Nil and empty are equal. found skips the fields that a tag leaves out.
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
			if !f.IsExported() && !(f.Anonymous && f.Type.Kind() == reflect.Struct) { // the fields of such a struct may be exported
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
