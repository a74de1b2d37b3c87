package wire

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"net/url"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// A format gives back what it was given, or it refuses it. What it would change is known from the type for the most part, and is found
// once for each type. The rest hangs on the value: what lies in an interface, how deep a list of itself goes. For that the parts of each
// value where it can happen are looked at before it is encoded, and no others.

// A LossError says what a format would change: of which type, in which field.
type LossError struct {
	Type  reflect.Type
	Field string // such as Models[].Price; "" for the value itself
	Why   string
}

// Error names no part of the value: only its type has names for what it says.
func (e *LossError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("%s %s", e.Type, e.Why)
	}
	return fmt.Sprintf("%s, field %s %s", e.Type, e.Field, e.Why)
}

// A keeper knows what a format keeps of a type.
type keeper struct {
	format  string
	refused error // what is known from the type alone
	root    *part
	print   uint32 // a hash of the names and kinds of the type's fields
	fields  fieldSet
}

type keeperKey struct {
	typ    reflect.Type
	format string
}

var keepers sync.Map // keeperKey -> *keeper

func keeperOf(typ reflect.Type, format string) *keeper {
	key := keeperKey{typ, format}
	if k, ok := keepers.Load(key); ok {
		return k.(*keeper)
	}
	b := &builder{format: format, made: make(map[partKey]*part), open: make(map[*part]bool)}
	k := &keeper{format: format}
	var loss *loss
	if k.root, loss = b.part(typ, true); loss != nil {
		k.refused = loss.error(typ)
	} else {
		b.spread()
		k.fields, k.print = k.root.fieldSet(format)
	}
	keepers.Store(key, k)
	return k
}

// target is what v, a pointer, points to, and the type of that; rv is not valid where v is nil. Another v is copied, so that methods with
// a pointer receiver are found in either case.
func target(v any) (pointer any, typ reflect.Type, rv reflect.Value) {
	rv = reflect.ValueOf(v)
	switch {
	case !rv.IsValid():
		return v, nil, rv
	case rv.Kind() == reflect.Pointer && rv.IsNil():
		return v, rv.Type().Elem(), reflect.Value{}
	case rv.Kind() == reflect.Pointer:
		return v, rv.Type().Elem(), rv.Elem()
	}
	p := reflect.New(rv.Type())
	p.Elem().Set(rv)
	return p.Interface(), rv.Type(), p.Elem()
}

// check refuses a value of which the format would change something. Where it looks at values one by one, it also refuses what takes more
// than a number of bytes at least.
func (k *keeper) check(v reflect.Value, most int) error {
	if k.refused != nil {
		return k.refused
	}
	if !k.root.look || !v.IsValid() {
		return nil
	}
	return k.walk(v, most, false)
}

// find says where in a value the format has met what it has no form for, nil where that is not found.
func (k *keeper) find(v reflect.Value) error { return k.walk(v, math.MaxInt, true) }

func (k *keeper) walk(v reflect.Value, most int, all bool) error {
	w := walker{format: k.format, all: all, left: most}
	loss := w.value(k.root, v, 0, 0)
	switch {
	case loss == tooLarge || w.left < 0:
		return fmt.Errorf("%w: at most %d bytes", ErrTooLarge, most)
	case loss != nil:
		return loss.error(v.Type())
	}
	return nil
}

// A loss is what would be changed; its path is from the inside out.
type loss struct {
	why  string
	path []string
}

func (l *loss) in(step string) *loss {
	if l != nil && l != tooLarge {
		l.path = append(l.path, step)
	}
	return l
}

// tooLarge stands for a value that takes too many bytes.
var tooLarge = new(loss)

func (l *loss) error(typ reflect.Type) error {
	if n := len(l.path); n > 12 {
		l.path = append(append(slices.Clone(l.path[:2]), "…"), l.path[n-8:]...)
	}
	var b strings.Builder
	for _, step := range slices.Backward(l.path) {
		if step != "[]" && b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(step)
	}
	return &LossError{Type: typ, Field: b.String(), Why: l.why}
}

func lose(format string, args ...any) *loss { return &loss{why: fmt.Sprintf(format, args...)} }

type partKind int

const (
	plainPart   partKind = iota // numbers and truth values
	textPart                    // strings
	floatPart                   // numbers that may be none
	bytesPart                   // lists of bytes
	ownPart                     // what has methods that encode it
	ownTextPart                 // such as become a text
	timePart
	numberPart // a json.Number
	anyPart    // any interface
	listPart   // slices and arrays
	mapPart
	structPart
	hiddenPart // a struct without a field that is encoded
	pointerPart
)

// A part is what a format keeps of the values of a type, at one place or several in another type.
type part struct {
	typ       reflect.Type
	kind      partKind
	elem, key *part
	fields    []partField
	embeds    []embedded // of which it hangs on the value whether they come back
	look      bool       // there is something in it that hangs on the value
	nullable  bool       // it may be encoded as null
	array     bool       // a struct that CBOR writes as a list
	wrapped   *part      // of the embedded field alone that a struct has its methods from, nil for others
	wraps     int        // the number of that field
}

type partField struct {
	name  string
	path  string // as Go spells it
	index []int
	part  *part
	empty bool   // left out where it is empty
	zero  bool   // left out where it is zero
	asks  bool   // the method IsZero, of what may be a pointer
	other string // an option by which it is written in another way
	least int    // bytes that its name takes
}

type partKey struct {
	typ         reflect.Type
	addressable bool
	key         bool
}

type builder struct {
	format string
	made   map[partKey]*part
	open   map[*part]bool
}

var (
	timeType     = reflect.TypeFor[time.Time]()
	numberType   = reflect.TypeFor[json.Number]()
	anyMapType   = reflect.TypeFor[map[string]any]()
	anyListType  = reflect.TypeFor[[]any]()
	bigIntType   = reflect.TypeFor[big.Int]()
	bigFloatType = reflect.TypeFor[big.Float]()
	bigRatType   = reflect.TypeFor[big.Rat]()
	urlType      = reflect.TypeFor[url.URL]()
	regexpType   = reflect.TypeFor[regexp.Regexp]()

	protoMessage      = reflect.TypeFor[interface{ ProtoMessage() }]()
	jsonMarshaler     = reflect.TypeFor[json.Marshaler]()
	jsonUnmarshaler   = reflect.TypeFor[json.Unmarshaler]()
	textMarshaler     = reflect.TypeFor[encoding.TextMarshaler]()
	textUnmarshaler   = reflect.TypeFor[encoding.TextUnmarshaler]()
	binaryMarshaler   = reflect.TypeFor[encoding.BinaryMarshaler]()
	binaryUnmarshaler = reflect.TypeFor[encoding.BinaryUnmarshaler]()
	cborMarshaler     = reflect.TypeFor[cbor.Marshaler]()
	cborUnmarshaler   = reflect.TypeFor[cbor.Unmarshaler]()
)

// part makes the part for a type. Values in maps have no address, and encoding/json then passes over methods with a pointer receiver.
func (b *builder) part(t reflect.Type, addressable bool) (*part, *loss) {
	key := partKey{t, addressable || b.format != "json", false}
	if p := b.made[key]; p != nil {
		if b.open[p] {
			p.look = true // a type that holds itself: a value may go too deep, or have no end
		}
		return p, nil
	}
	p := &part{typ: t}
	b.made[key], b.open[p] = p, true
	l := b.fill(p, key.addressable)
	delete(b.open, p)
	return p, l
}

// fill finds out what p is.
func (b *builder) fill(p *part, addressable bool) (l *loss) {
	t := p.typ
	if t.Kind() != reflect.Interface && (t.Implements(protoMessage) || reflect.PointerTo(t).Implements(protoMessage)) {
		return lose("is a protobuf message: a Codec of your own that calls proto.Marshal keeps it")
	}
	switch t {
	case timeType:
		p.kind, p.look, p.nullable = timePart, true, b.format == "cbor"
		return nil
	case bigFloatType:
		return lose("is a big.Float, whose text form does not keep its precision")
	case bigIntType:
		if b.format == "cbor" {
			p.kind = ownPart
			return nil
		}
	}
	if t.Kind() != reflect.Pointer && t.Kind() != reflect.Interface {
		if own, l := b.own(p, addressable); own || l != nil {
			return l
		}
	}
	switch t.Kind() {
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
	case reflect.Float32, reflect.Float64:
		p.kind = floatPart
	case reflect.String:
		if p.kind = textPart; t == numberType && b.format == "json" {
			p.kind, p.look = numberPart, true
		}
	case reflect.Interface:
		p.kind, p.look, p.nullable = anyPart, true, true
	case reflect.Pointer:
		if to := t.Elem(); pointsToItself(to) {
			return lose("is a pointer to itself")
		}
		p.kind, p.nullable = pointerPart, true
		p.elem, l = b.part(t.Elem(), true)
		return l
	case reflect.Slice:
		p.nullable = true
		if t.Elem().Kind() == reflect.Uint8 && !b.ownBytes(t.Elem()) {
			p.kind = bytesPart
			return nil
		}
		p.kind = listPart
		p.elem, l = b.part(t.Elem(), true)
		return l.in("[]")
	case reflect.Array:
		p.kind = listPart
		p.elem, l = b.part(t.Elem(), addressable)
		return l.in("[]")
	case reflect.Map:
		p.kind, p.nullable = mapPart, true
		if p.key, l = b.mapKey(t.Key()); l != nil {
			return l
		}
		p.elem, l = b.part(t.Elem(), false)
		return l.in("[]")
	case reflect.Struct:
		return b.fillStruct(p, addressable)
	default:
		if t.Kind() != reflect.Uintptr || b.format != "json" {
			return lose("is a %s, which %s has no form for", t.Kind(), strings.ToUpper(b.format))
		}
	}
	return nil
}

func (b *builder) ownBytes(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return b.format == "json" && (p.Implements(jsonMarshaler) || p.Implements(textMarshaler))
}

func pointsToItself(t reflect.Type) bool {
	seen := make(map[reflect.Type]bool)
	for ; t.Kind() == reflect.Pointer; t = t.Elem() {
		if seen[t] {
			return true
		}
		seen[t] = true
	}
	return false
}

// own reports whether the type's own methods encode it.
func (b *builder) own(p *part, addressable bool) (bool, *loss) {
	type way struct {
		out, in reflect.Type
		or      reflect.Type
		name    string
		kind    partKind
	}
	ways := []way{{jsonMarshaler, jsonUnmarshaler, textUnmarshaler, "JSON", ownPart}, {textMarshaler, textUnmarshaler, nil, "Text", ownTextPart}}
	if b.format == "cbor" {
		ways = []way{{cborMarshaler, cborUnmarshaler, nil, "CBOR", ownPart}, {binaryMarshaler, binaryUnmarshaler, nil, "Binary", ownPart},
			{textMarshaler, textUnmarshaler, nil, "Text", ownTextPart}}
	}
	t, to := p.typ, reflect.PointerTo(p.typ)
	for _, w := range ways {
		if !to.Implements(w.out) {
			continue
		}
		if !addressable && !t.Implements(w.out) {
			return false, lose("is a %s in a map, and its Marshal%s has a pointer receiver, which encoding/json does not call there", t, w.name)
		}
		if !to.Implements(w.in) && (w.or == nil || !to.Implements(w.or)) {
			return false, lose("is a %s, which has Marshal%s but no Unmarshal%s", t, w.name, w.name)
		}
		if b.format == "cbor" && w.out != cborMarshaler && to.Implements(cborUnmarshaler) {
			return false, lose("is a %s, which has UnmarshalCBOR but no MarshalCBOR", t)
		}
		in, inName := w.in, "Unmarshal"+w.name
		if !to.Implements(in) {
			in, inName = w.or, "UnmarshalText"
		}
		from, l := soleSource(t, w.out, "Marshal"+w.name)
		if l != nil {
			return false, l
		}
		into, l := soleSource(t, in, inName)
		switch {
		case l != nil:
			return false, l
		case into != nil && t.Field(*into).Type.Kind() == reflect.Pointer:
			return false, lose("is a %s, which has its %s from the embedded pointer %s: that is nil where it is decoded", t, inName, t.Field(*into).Name)
		case from != nil && into != nil && !(b.format == "cbor" && t.Field(*from).Type == timeType): // whose binary form has all of it
			p.wraps = *from
			if p.wrapped, l = b.part(t.Field(*from).Type, addressable); l != nil {
				return false, l.in(t.Field(*from).Name)
			}
		}
		p.kind = w.kind
		p.nullable = w.out == jsonMarshaler && t != bigIntType || w.out == cborMarshaler // their methods may write null
		p.look = t == urlType || t == regexpType
		return true, nil
	}
	for _, w := range ways {
		for _, in := range []reflect.Type{w.in, w.or} {
			if in != nil && to.Implements(in) {
				return false, lose("is a %s, which has a method that decodes it and none that encodes it", t)
			}
		}
	}
	return false, nil
}

// ownMethods reports whether a type has any method by which CBOR encodes or decodes it.
func ownMethods(t reflect.Type) bool {
	for _, m := range []reflect.Type{cborMarshaler, cborUnmarshaler, binaryMarshaler, binaryUnmarshaler, textMarshaler, textUnmarshaler} {
		if reflect.PointerTo(t).Implements(m) {
			return true
		}
	}
	return false
}

func (b *builder) encodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	if b.format == "cbor" && (p.Implements(cborMarshaler) || p.Implements(binaryMarshaler)) {
		return true
	}
	return p.Implements(textMarshaler) || b.format == "json" && p.Implements(jsonMarshaler)
}

// soleSource is the number of the embedded field that a struct has a method from, nil where the method is its own. Other fields would be
// lost.
func soleSource(t, iface reflect.Type, method string) (*int, *loss) {
	from, others := promoted(t, iface, method)
	if from >= 0 && others {
		return nil, lose("is a %s, which has its %s from the embedded %s: its other fields would be lost", t, method, t.Field(from).Name)
	}
	if from < 0 {
		return nil, nil
	}
	return &from, nil
}

// promoted finds the embedded field that a struct has a method from, -1 if there is none, and reports whether it has other fields.
func promoted(t, iface reflect.Type, method string) (from int, others bool) {
	if t.Kind() != reflect.Struct {
		return -1, false
	}
	m, ok := methodOf(t, method)
	if !ok {
		m, ok = methodOf(reflect.PointerTo(t), method)
	}
	if !ok {
		return -1, false
	}
	f := runtime.FuncForPC(m.Func.Pointer())
	if f == nil {
		return -1, false
	}
	if file, _ := f.FileLine(f.Entry()); file != "<autogenerated>" {
		return -1, false // the method is the type's own
	}
	from = -1
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous && from < 0 && (f.Type.Implements(iface) || reflect.PointerTo(f.Type).Implements(iface)) {
			from = i
		} else if f.Name != "_" {
			others = true
		}
	}
	return from, others
}

// methodOf names each method by a constant: for another name the linker would keep all methods of all types in the program.
func methodOf(t reflect.Type, name string) (reflect.Method, bool) {
	switch name {
	case "MarshalJSON":
		return t.MethodByName("MarshalJSON")
	case "MarshalText":
		return t.MethodByName("MarshalText")
	case "MarshalBinary":
		return t.MethodByName("MarshalBinary")
	case "MarshalCBOR":
		return t.MethodByName("MarshalCBOR")
	case "UnmarshalJSON":
		return t.MethodByName("UnmarshalJSON")
	case "UnmarshalText":
		return t.MethodByName("UnmarshalText")
	case "UnmarshalBinary":
		return t.MethodByName("UnmarshalBinary")
	case "UnmarshalCBOR":
		return t.MethodByName("UnmarshalCBOR")
	}
	return reflect.Method{}, false
}

// mapKey refuses keys that would not come back, or not as the same key.
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

// timeAsKey refuses a key whose methods are those of an embedded time, or pointer.
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

// asKey refuses what is not equal to itself once it was decoded.
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

// spread marks the parts in which there is one that is looked at.
func (b *builder) spread() {
	for changed := true; changed; {
		changed = false
		for _, p := range b.made {
			if p.look {
				continue
			}
			p.look = p.wrapped != nil && p.wrapped.look || p.elem != nil && (p.elem.look || p.kind == pointerPart && p.elem.nullable) || p.key != nil && p.key.look
			for _, f := range p.fields {
				p.look = p.look || f.part.look || f.asks
			}
			changed = changed || p.look
		}
	}
}
