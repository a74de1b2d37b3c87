package wire

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A shape describes how much memory the values of a type take.
type shape struct {
	kind   kind
	size   int64             // of a value
	elem   *shape            // of a list, an array, a map or a pointer
	key    int64             // size of a map's keys
	fields map[string]*shape // of a struct, by their names in the format and by these names folded; numbers are in decimal
	order  []namedShape      // of a struct: its fields in the order of the type, by their names in the format
	array  []*shape          // of a struct that CBOR writes as a list
	own    bool              // the type decodes itself: a value of another form may become anything
	ratio  bool              // a few digits of its text may be an exponent
	digits bool              // its text, or the text of a value in it, is a number of any length
	most   int64             // the most that one value of the format can add, anywhere in a value of the type
}

type namedShape struct {
	name  string
	shape *shape
}

type kind int

const (
	scalarKind kind = iota
	textKind        // a string
	listKind
	arrayKind
	mapKind
	structKind
	pointerKind
	anyKind // an interface without methods: it takes the types of the format
)

const (
	mapHeader  = 48
	mapSlots   = 8 // of a small map
	inlineElem = 128
	anySize    = 16

	// ratioSize is more than a big.Rat allocates for an exponent, temporary memory included. big.Rat refuses exponents above a million.
	ratioSize = 2 << 20

	// The time to read a number grows with the square of its digits. It is negligible up to longNumber bytes. Above that, a number counts
	// with the square of its digits, divided by digitsSquare, in bytes.
	longNumber   = 64 << 10
	digitsSquare = 256
)

// slot returns how many bytes an entry of a map takes inside the map, and how many outside of it.
func (s *shape) slot() (in, out int64) {
	if s.elem.size > inlineElem {
		return s.key + 8, s.elem.size
	}
	return s.key + s.elem.size, 0
}

type shapeKey struct {
	typ    reflect.Type
	format string
}

var shapes sync.Map // shapeKey -> *shape

func shapeOf(typ reflect.Type, format string) *shape {
	k := shapeKey{typ, format}
	if s, ok := shapes.Load(k); ok {
		return s.(*shape)
	}
	made := make(map[reflect.Type]*shape)
	s := makeShape(typ, format, made)
	s.most = 1
	for _, other := range made {
		s.most, s.digits = max(s.most, other.step()), s.digits || other.digits
	}
	shapes.Store(k, s)
	return s
}

// step returns the most that one value of the format can add, directly inside a value of the shape.
func (s *shape) step() int64 {
	switch s.kind {
	case listKind:
		return 2 * s.elem.size
	case mapKind:
		in, out := s.slot()
		return mapHeader + mapSlots*in + out
	case pointerKind:
		return s.elem.size
	case anyKind:
		return mapHeader + mapSlots*2*anySize + 2*anySize
	}
	if s.ratio {
		return ratioSize
	}
	return 0
}

func makeShape(t reflect.Type, format string, made map[reflect.Type]*shape) *shape {
	if s := made[t]; s != nil {
		return s
	}
	s := &shape{size: int64(t.Size())}
	made[t] = s
	p := reflect.PointerTo(t)
	s.own = p.Implements(textUnmarshaler)
	if format == "json" {
		s.own = s.own || p.Implements(jsonUnmarshaler)
	} else {
		s.own = s.own || p.Implements(binaryUnmarshaler) || p.Implements(cborUnmarshaler)
	}
	switch t.Kind() {
	case reflect.String:
		s.kind = textKind
	case reflect.Slice:
		s.kind, s.elem = listKind, makeShape(t.Elem(), format, made)
	case reflect.Array:
		s.kind, s.elem = arrayKind, makeShape(t.Elem(), format, made)
	case reflect.Map:
		s.kind, s.elem, s.key = mapKind, makeShape(t.Elem(), format, made), int64(t.Key().Size())
	case reflect.Pointer:
		s.kind, s.elem = pointerKind, makeShape(t.Elem(), format, made)
	case reflect.Interface:
		if t.NumMethod() == 0 {
			s.kind, s.elem, s.key = anyKind, s, anySize
		}
	case reflect.Struct:
		s.kind, s.fields = structKind, make(map[string]*shape)
		var names []string
		var shapes []*shape
		s.ratio = t == bigRatType
		s.digits = s.ratio || t == bigIntType
		for _, f := range reflect.VisibleFields(t) { // including those of embedded structs
			tag := tagOf(f, format)
			name, opts, _ := strings.Cut(tag, ",")
			if tag == "-" || !f.IsExported() && !f.Anonymous {
				continue
			}
			if format == "json" && !isName(name) {
				name = ""
			}
			if name == "" {
				name = f.Name
			}
			if n, err := strconv.Atoi(name); err == nil && strings.Contains(opts, "keyasint") {
				name = strconv.Itoa(n)
			}
			of := makeShape(f.Type, format, made)
			s.ratio = s.ratio || f.Anonymous && (of.ratio || of.elem != nil && of.elem.ratio) // the struct has the methods of the embedded field
			s.digits = s.digits || f.Anonymous && (of.digits || of.elem != nil && of.elem.digits)
			names = append(names, name, fold(name))
			shapes = append(shapes, of, of)
			if f.Anonymous && f.Type.Kind() == reflect.Pointer {
				s.size += int64(f.Type.Elem().Size()) // allocated if one of its fields comes
			}
		}
		for i, name := range names { // of several fields with one folded name, the one that may take most
			if there := s.fields[name]; there == nil || shapes[i].worst() > there.worst() {
				s.fields[name] = shapes[i]
			}
		}
		for i := 0; i < len(names); i += 2 {
			s.order = append(s.order, namedShape{names[i], s.fields[names[i]]})
		}
		if format == "cbor" && isArray(t) {
			s.array = arrayShapes(t, format, made)
		}
	}
	if s.own {
		makeShape(reflect.TypeFor[any](), format, made)
	}
	return s
}

// arrayShapes returns the shapes of the fields of a struct that is written as a list.
func arrayShapes(t reflect.Type, format string, made map[reflect.Type]*shape) []*shape {
	b := &builder{format: format}
	found, _, l := b.findFields(t)
	if l != nil {
		return nil // the codec refuses the type
	}
	slices.SortFunc(found, func(a, b foundField) int { return slices.Compare(a.index, b.index) })
	list := make([]*shape, len(found))
	for i, f := range found {
		list[i] = makeShape(f.at.Type, format, made)
	}
	return list
}

// worst returns the most that one value of the format can add, anywhere in a value of the shape.
func (s *shape) worst() int64 {
	most := int64(0)
	seen := make(map[*shape]bool)
	var look func(s *shape)
	look = func(s *shape) {
		if s == nil || seen[s] {
			return
		}
		seen[s] = true
		most = max(most, s.step(), s.size)
		look(s.elem)
		for _, f := range s.fields {
			look(f)
		}
	}
	look(s)
	return most
}

// field returns the shape of the field with a name, or nil if the decoder skips the name.
func (s *shape) field(name []byte) *shape {
	if f := s.fields[string(name)]; f != nil {
		return f
	}
	return s.fields[fold(string(name))]
}

// anything is the shape of the type any.
var anything = func() *shape {
	s := &shape{kind: anyKind, size: anySize, key: anySize}
	s.elem = s
	return s
}()
