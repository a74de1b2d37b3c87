package wire

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A few bytes of JSON or CBOR can take a lot of memory as Go values: each {} in a list is an element of the list's type, however
// large that is. So what a payload becomes is bounded too. A payload that cannot reach the bound whatever it holds, as far as
// its length and its type tell, is not looked at; of one that could, brackets and commas are counted, which takes a small part of
// the time of decoding it; and only what could still reach it is gone through value by value.

// decodedFactor is how many times Limits.MaxValue the values of a payload may take in memory. Numbers and short strings in lists and
// maps of any take about twelve times their JSON, small maps of any about eighteen.
const decodedFactor = 32

// Fits reports whether what data becomes in memory is within bounds, as far as that can be estimated: decoded by a codec of this
// package, as a value of type typ. Of a user's own codec nothing is known.
func (l Limits) Fits(c Codec, typ reflect.Type, data []byte) bool {
	packed := false
	switch c.(type) {
	case jsonCodec:
	case cborCodec:
		packed = true
	default:
		return true
	}
	limit := int64(math.MaxInt64)
	if int64(l.MaxValue) < math.MaxInt64/decodedFactor {
		limit = int64(l.MaxValue) * decodedFactor
	}
	if keeperOf(typ, c.Name()).refused != nil {
		return true // and so does the codec, before it decodes anything
	}
	s := shapeOf(typ, c.Name())
	left := limit - s.size - 2*int64(len(data)) // the texts in it, and what they are put together in
	values := int64(len(data)/2 + 1)            // at most: a digit and a comma each
	if packed {
		values = int64(len(data))
	}
	long := s.digits && len(data) > longNumber
	if values <= left/s.most && !long {
		return true
	}
	w := weigher{left: limit - s.size, root: s}
	switch {
	case packed:
		if _, _, item, ok := cutCBOR(data); ok {
			w.cbor(item)
		}
	case long || int64(1+bytes.Count(data, []byte{','})+bytes.Count(data, []byte{'['})+bytes.Count(data, []byte{'{'})) > left/s.most:
		w.json(data)
	}
	return w.left >= 0
}

// A shape is what matters of a type here.
type shape struct {
	kind   kind
	size   int64             // of a value
	elem   *shape            // of a list, an array, a map or a pointer
	key    int64             // size of a map's keys
	fields map[string]*shape // of a struct, by their names in the format, and by these folded: numbers as they are written in decimal
	array  []*shape          // of a struct that CBOR writes as a list
	own    bool              // the type decodes itself: what does not fit it may become anything
	ratio  bool              // a few digits of its text may be an exponent
	digits bool              // its text is a number of any length, or that of a value in it is
	most   int64             // what one value of the format can add at most, anywhere in a value of the type
}

type kind int

const (
	scalarKind kind = iota
	textKind        // what holds the bytes of a string
	listKind
	arrayKind
	mapKind
	structKind
	pointerKind
	anyKind // an interface without methods: what the format itself has
)

const (
	mapHeader  = 48
	mapSlots   = 8 // of a small map
	inlineElem = 128
	anySize    = 16

	// ratioSize is more than a big.Rat takes for an exponent, with what is allocated on the way: it refuses those above a million.
	ratioSize = 2 << 20

	// To read a number takes the square of its digits in time. Up to the first of these that is nothing; then as many digits' squares count
	// as a byte.
	longNumber   = 64 << 10
	digitsSquare = 256
)

// slot is what an entry of a map takes in it, and out is what it takes beside it.
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

// step is what one value of the format, inside of a value of the shape, can add at most.
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
		for _, f := range reflect.VisibleFields(t) { // with those of embedded structs
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
			s.ratio = s.ratio || f.Anonymous && (of.ratio || of.elem != nil && of.elem.ratio) // whose methods it has
			s.digits = s.digits || f.Anonymous && (of.digits || of.elem != nil && of.elem.digits)
			names = append(names, name, fold(name))
			shapes = append(shapes, of, of)
			if f.Anonymous && f.Type.Kind() == reflect.Pointer {
				s.size += int64(f.Type.Elem().Size()) // made for the sake of a field in it
			}
		}
		for i, name := range names { // of one name, or of two that fold alike, what may take most
			if there := s.fields[name]; there == nil || shapes[i].worst() > there.worst() {
				s.fields[name] = shapes[i]
			}
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

// arrayShapes are those of the fields of a struct that is written as a list.
func arrayShapes(t reflect.Type, format string, made map[reflect.Type]*shape) []*shape {
	b := &builder{format: format}
	found, _, l := b.findFields(t)
	if l != nil {
		return nil // it is refused
	}
	slices.SortFunc(found, func(a, b foundField) int { return slices.Compare(a.index, b.index) })
	list := make([]*shape, len(found))
	for i, f := range found {
		list[i] = makeShape(f.at.Type, format, made)
	}
	return list
}

// worst is what one value of the format can add at most in a value of the shape.
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

// field is the shape of what has a name in a struct, nil for what is passed over.
func (s *shape) field(name []byte) *shape {
	if f := s.fields[string(name)]; f != nil {
		return f
	}
	return s.fields[fold(string(name))]
}

// anything is the shape of any.
var anything = func() *shape {
	s := &shape{kind: anyKind, size: anySize, key: anySize}
	s.elem = s
	return s
}()

// A weigher takes what values add from what is left, until that is below zero. It is told what a format holds.
type weigher struct {
	left  int64
	root  *shape
	stack []frame
}

// A frame is a list or an object that has not ended.
type frame struct {
	shape   *shape // nil: it is passed over
	object  bool
	started bool
	next    *shape // the member whose name was last
	count   int    // of the elements, in a struct that is written as a list
}

// enter is told of a value, and returns its shape, nil where it is passed over.
func (w *weigher) enter() *shape {
	s := w.root
	if n := len(w.stack); n > 0 {
		f := &w.stack[n-1]
		s = f.next
		if !f.object && f.shape != nil && f.shape.array != nil {
			if s = nil; f.count < len(f.shape.array) {
				s = f.shape.array[f.count]
			}
			f.count++
		} else if !f.object {
			if s = nil; f.shape != nil {
				if s = f.shape.elem; f.shape.kind != arrayKind {
					w.left -= 2 * s.size // lists grow by up to their length
				}
			}
		}
	}
	for s != nil && s.kind == pointerKind {
		w.left -= s.elem.size
		s = s.elem
	}
	return s
}

func (w *weigher) begin(object bool) {
	s := w.enter()
	fits := s != nil && (s.kind == anyKind || object && (s.kind == mapKind || s.kind == structKind) || !object && (s.kind == listKind || s.kind == arrayKind || s.array != nil))
	if !fits && s != nil && s.own {
		s, fits = anything, true
	}
	if !fits {
		s = nil
	} else if s.kind == anyKind && !object {
		w.left -= 24 // the header of a slice
	} else if s.kind == anyKind || s.kind == mapKind {
		w.left -= mapHeader
	}
	w.stack = append(w.stack, frame{shape: s, object: object})
}

// key is told of the name of a member, nil for what is no text.
func (w *weigher) key(name []byte) {
	f := &w.stack[len(w.stack)-1]
	switch s := f.shape; {
	case s == nil:
		f.next = nil
	case s.kind == structKind:
		if f.next = s.field(name); f.next == nil && s.own {
			f.next = anything
		}
	default:
		in, out := s.slot()
		if w.left -= out + int64(len(name)); f.started {
			w.left -= 2 * in // maps grow by their size
		} else {
			w.left -= mapSlots * in
		}
		f.started, f.next = true, s.elem
	}
}

// value is told of a value that holds no other, and of its bytes, if it is a text.
func (w *weigher) value(text []byte) { w.scalar(text, len(text)) }

// number is told of one that is written in digits.
func (w *weigher) number(text []byte) { w.scalar(text, 0) }

func (w *weigher) scalar(text []byte, bytes int) {
	s := w.enter()
	if s == nil {
		return
	}
	if n := int64(len(text)); s.digits && n > longNumber {
		w.left -= n * n / digitsSquare
	}
	switch {
	case s.ratio && hasExponent(text):
		w.left -= ratioSize
	case s.kind == anyKind:
		w.left -= int64(bytes) + anySize
	case s.kind == textKind || s.kind == listKind || s.own:
		w.left -= int64(bytes)
	}
}

func (w *weigher) end() { w.stack = w.stack[:len(w.stack)-1] }

// deepest is how deep values are looked at; the decoders refuse deeper ones.
const deepest = 10_001

// json goes through a JSON text. Where that is malformed, it stops anywhere: the decoder looks at all of it before it makes anything.
func (w *weigher) json(data []byte) {
	named := false // a member's name has come, and its value is next
	for i := 0; i < len(data) && w.left >= 0; i++ {
		inObject := len(w.stack) > 0 && w.stack[len(w.stack)-1].object
		switch c := data[i]; c {
		case '{', '[':
			if len(w.stack) > deepest {
				return
			}
			w.begin(c == '{')
			named = false
		case '}', ']':
			if len(w.stack) == 0 {
				return
			}
			w.end()
		case ',':
			named = false
		case ' ', '\t', '\r', '\n', ':':
		case '"':
			n := textLen(data[i+1:])
			if n < 0 {
				return
			}
			if inObject && !named {
				w.key(unescaped(data[i:i+n+2], data[i+1:i+1+n]))
				named = true
			} else {
				w.value(data[i+1 : i+1+n])
			}
			i += n + 1
		default:
			start := i
			for i+1 < len(data) && data[i+1] != ',' && data[i+1] != ']' && data[i+1] != '}' {
				i++
			}
			if c != 'n' { // null
				w.number(data[start : i+1])
			} else if len(w.stack) > 0 && !inObject {
				w.null()
			}
		}
	}
}

// hasExponent is also true where a text is escaped, so that it may have one.
func hasExponent(text []byte) bool { return bytes.ContainsAny(text, "eEpP\\") }

// null is told of an element that is none, and takes its place all the same.
func (w *weigher) null() {
	f := &w.stack[len(w.stack)-1]
	if f.shape != nil && f.shape.array != nil {
		f.count++
	} else if f.shape != nil && f.shape.kind != arrayKind {
		w.left -= 2 * f.shape.elem.size
	}
}

// unescaped is the name that a text in quotation marks stands for.
func unescaped(quoted, text []byte) []byte {
	var name string
	if bytes.IndexByte(text, '\\') < 0 || json.Unmarshal(quoted, &name) != nil {
		return text
	}
	return []byte(name)
}

// textLen is how long a JSON string is whose opening quotation mark is before data, negative where it does not end.
func textLen(data []byte) int {
	for from := 0; ; {
		n := bytes.IndexByte(data[from:], '"')
		if n < 0 {
			return -1
		}
		at := from + n
		escapes := 0
		for escapes < at && data[at-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return at
		}
		from = at + 1
	}
}

// The major types of CBOR, RFC 8949 section 3.1.
const (
	cborMinus = 1 // and 0 for numbers that are not below it
	cborBytes = 2
	cborText  = 3
	cborList  = 4
	cborMap   = 5
	cborTag   = 6
	cborOther = 7 // truth values, null and numbers with a point
)

const cborNull = 22

// cborItem reads the first byte of an item and the number that follows. It is false where the data end before, and for a length that is not
// told, which this package neither writes nor decodes.
func cborItem(data []byte) (major byte, n uint64, size int, ok bool) {
	if len(data) == 0 {
		return 0, 0, 0, false
	}
	major, n = data[0]>>5, uint64(data[0]&0x1f)
	if n < 24 {
		return major, n, 1, true
	}
	if n > 27 {
		return 0, 0, 0, false
	}
	size = 1 + 1<<(n-24)
	if len(data) < size {
		return 0, 0, 0, false
	}
	n = 0
	for _, b := range data[1:size] {
		n = n<<8 | uint64(b)
	}
	return major, n, size, true
}

// cborNumber is a number as it is written in decimal.
func cborNumber(major byte, n uint64) []byte {
	if major == cborMinus {
		return strconv.AppendInt(nil, -1-int64(n), 10)
	}
	return strconv.AppendUint(nil, n, 10)
}

// cbor goes through a CBOR item, and stops where it is malformed: the decoder looks at all of it before it makes anything.
func (w *weigher) cbor(data []byte) {
	var missing []uint64 // items, in each list or map that has not ended
	for first := true; w.left >= 0; first = false {
		for len(missing) > 0 && missing[len(missing)-1] == 0 {
			missing = missing[:len(missing)-1]
			w.end()
		}
		if len(missing) == 0 && !first || len(missing) > maxNesting {
			return
		}
		named := false
		if n := len(missing); n > 0 {
			named = w.stack[n-1].object && missing[n-1]%2 == 0
			missing[n-1]--
		}
		major, n, size, ok := cborItem(data)
		for ok && major == cborTag {
			data = data[size:]
			major, n, size, ok = cborItem(data)
		}
		if !ok {
			return
		}
		null := major == cborOther && size == 1 && n == cborNull
		data = data[size:]
		var text []byte
		if major == cborBytes || major == cborText {
			if n > uint64(len(data)) {
				return
			}
			text, data = data[:n], data[n:]
		}
		if named {
			if s := w.stack[len(w.stack)-1].shape; s != nil && s.kind == structKind && major <= cborMinus {
				text = cborNumber(major, n)
			}
			w.key(text)
		}
		switch {
		case major == cborList || major == cborMap:
			if n > uint64(len(data)) {
				return // each item takes a byte at least
			}
			w.begin(major == cborMap)
			if major == cborMap {
				n *= 2
			}
			missing = append(missing, n)
		case named:
		case !null:
			w.value(text)
		case len(w.stack) > 0 && !w.stack[len(w.stack)-1].object:
			w.null()
		}
	}
}
