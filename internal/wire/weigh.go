package wire

import (
	"bytes"
	"math"
	"reflect"
)

// A few bytes of JSON or CBOR can take much memory as Go values: each {} in a list is an element of the list's type, however large that
// type is. So the decoded size of a payload is bounded too. Fits checks it in three steps:
//
//  1. The length and the type show for most payloads that they cannot exceed the bound, whatever they hold.
//  2. Otherwise it counts brackets and commas. That takes a small part of the time of decoding.
//  3. If the payload could still exceed the bound, a weigher goes through it value by value.

// decodedFactor is how many times Limits.MaxValue the values of a payload may take in memory. Numbers and short strings in lists and
// maps of any take about twelve times the size of their JSON. Small maps of any take about eighteen times that.
const decodedFactor = 32

// Fits reports whether the decoded size of data is within bounds, for a codec of this package and a value of type typ. The size is an
// estimate. Fits reports true for a user's own codec, of which nothing is known.
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
		return true // the codec refuses the type too, before it decodes anything
	}
	s := shapeOf(typ, c.Name())
	left := limit - s.size - 2*int64(len(data)) // the texts, and the buffers in which they are assembled
	values := int64(len(data)/2 + 1)            // at most: each takes a digit and a comma
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

// A weigher subtracts the size of each value from what is left, until that is below zero. A reader of a format reports the values to it.
type weigher struct {
	left  int64
	root  *shape
	stack []frame
}

// A frame is a list or an object that has not ended.
type frame struct {
	shape   *shape // nil: its content is skipped
	object  bool
	started bool
	next    *shape // the shape of the member whose name came last
	count   int    // of a struct: the place of the field that is likely to come next
}

// fieldsAhead is how many fields in the order of the type are compared with a name, before the name is looked up: some may be left out.
const fieldsAhead = 4

// field returns the shape of the member with a name. Encoders write the fields in the order of the type, so mostly the next one has the name. To
// compare it takes a fraction of the time of a lookup, which is most of what weighing takes.
func (f *frame) field(name []byte) *shape {
	order := f.shape.order
	for at := f.count; at < min(f.count+fieldsAhead, len(order)); at++ {
		if order[at].name == string(name) {
			f.count = at + 1
			return order[at].shape
		}
	}
	return f.shape.field(name)
}

// deepest is the depth to which values are weighed. The decoders refuse deeper values.
const deepest = 10_001

// enter starts a value and returns its shape, or nil if the value is skipped.
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
					w.left -= 2 * s.size // a list grows by up to its length
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

// begin starts a list or an object.
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

// end ends the list or object that began last.
func (w *weigher) end() { w.stack = w.stack[:len(w.stack)-1] }

// key takes the name of a member, nil if the name is not a text.
func (w *weigher) key(name []byte) {
	f := &w.stack[len(w.stack)-1]
	switch s := f.shape; {
	case s == nil:
		f.next = nil
	case s.kind == structKind:
		if f.next = f.field(name); f.next == nil && s.own {
			f.next = anything
		}
	default:
		in, out := s.slot()
		if w.left -= out + int64(len(name)); f.started {
			w.left -= 2 * in // a map grows by its size
		} else {
			w.left -= mapSlots * in
		}
		f.started, f.next = true, s.elem
	}
}

// value takes a value that contains no other value, with its bytes if it is a text.
func (w *weigher) value(text []byte) { w.scalar(text, len(text)) }

// number takes a number that is written in digits.
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

// null takes a null element of a list. It takes the place of an element.
func (w *weigher) null() {
	f := &w.stack[len(w.stack)-1]
	if f.shape != nil && f.shape.array != nil {
		f.count++
	} else if f.shape != nil && f.shape.kind != arrayKind {
		w.left -= 2 * f.shape.elem.size
	}
}

// hasExponent reports whether a text may have an exponent. It is also true for a text with escapes, which may hide one.
func hasExponent(text []byte) bool { return bytes.ContainsAny(text, "eEpP\\") }
