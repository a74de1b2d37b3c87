package wire

import (
	"encoding"
	"encoding/json"
	"math/big"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
)

type partKind int

const (
	plainPart   partKind = iota // numbers and truth values
	textPart                    // strings
	floatPart                   // floating point numbers, which may be NaN or infinite
	bytesPart                   // lists of bytes
	ownPart                     // types with methods that encode them
	ownTextPart                 // types with methods that encode them as a text
	timePart
	numberPart // a json.Number
	anyPart    // any interface
	listPart   // slices and arrays
	mapPart
	structPart
	hiddenPart // a struct without any field that is encoded
	pointerPart
)

// A part describes what a format keeps of the values of a type. One part may stand for several places in another type.
type part struct {
	typ       reflect.Type
	kind      partKind
	elem, key *part
	fields    []partField
	embeds    []embedded // whether they come back depends on the value
	look      bool       // whether it comes back depends on the value, so a walker inspects it
	nullable  bool       // it may be encoded as null
	array     bool       // a struct that CBOR writes as a list
	wrapped   *part      // of the embedded field from which a struct has its methods; nil if the methods are its own
	wraps     int        // the number of that field
}

type partField struct {
	name  string
	path  string // as Go spells it
	index []int
	part  *part
	empty bool   // left out if it is empty
	zero  bool   // left out if it is zero
	asks  bool   // its own method IsZero decides that; the field may be a pointer
	other string // an option that changes its form
	least int    // the bytes of its name
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

// part makes the part of a type. Values in maps are not addressable, and encoding/json then ignores methods with a pointer receiver.
func (b *builder) part(t reflect.Type, addressable bool) (*part, *loss) {
	key := partKey{t, addressable || b.format != "json", false}
	if p := b.made[key]; p != nil {
		if b.open[p] {
			p.look = true // the type is recursive: a value may be too deep, or have no end
		}
		return p, nil
	}
	p := &part{typ: t}
	b.made[key], b.open[p] = p, true
	l := b.fill(p, key.addressable)
	delete(b.open, p)
	return p, l
}

// fill determines the kind of p and its parts.
func (b *builder) fill(p *part, addressable bool) (l *loss) {
	t := p.typ
	if t.Kind() != reflect.Interface && (t.Implements(protoMessage) || reflect.PointerTo(t).Implements(protoMessage)) {
		return lose("is a protobuf message: asidecodec.Protobuf keeps one that is the whole value")
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

// spread sets look for each part that contains a part with look.
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
