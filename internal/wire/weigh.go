package wire

import (
	"bytes"
	"math"
	"reflect"
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

// deepest is how deep values are looked at; the decoders refuse deeper ones.
const deepest = 10_001

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

func (w *weigher) end() { w.stack = w.stack[:len(w.stack)-1] }

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

// null is told of an element that is none, and takes its place all the same.
func (w *weigher) null() {
	f := &w.stack[len(w.stack)-1]
	if f.shape != nil && f.shape.array != nil {
		f.count++
	} else if f.shape != nil && f.shape.kind != arrayKind {
		w.left -= 2 * f.shape.elem.size
	}
}

// hasExponent is also true where a text is escaped, so that it may have one.
func hasExponent(text []byte) bool { return bytes.ContainsAny(text, "eEpP\\") }
