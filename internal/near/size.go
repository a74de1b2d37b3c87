package near

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"unsafe"
)

const (
	// visits bounds how many values one Size call inspects. Larger values are sampled.
	visits = 4096
	// huge is the largest size that Size returns. A size that is scaled up from an unusual sample must stay a positive int64.
	huge = 1 << 50
)

// Size estimates how many bytes of memory v takes, with everything that it points to. v is usually a pointer. The estimate serves to bound
// a cache and is not exact: large values are sampled, and memory that is reached twice as the same type is counted once.
//
// Size never reads memory that a type may change under a lock of its own. It counts a struct that contains a type of package sync or
// sync/atomic without the memory that the struct refers to. The same holds for maps, pointers, interfaces and elements behind unexported
// fields. Size counts the bytes of an unexported string or slice.
func Size(v any) int64 {
	if v == nil {
		return 0
	}
	w := walks.Get().(*walk)
	defer func() {
		w.clear()
		walks.Put(w)
	}()
	w.add(float64(reflect.TypeOf(v).Size()), 1)
	w.count(reflect.ValueOf(v), 1, false)
	w.run()
	return int64(min(huge, w.sum))
}

// A walk is one call of Size. It goes level by level, so that a long list in one field leaves visits for the next field.
type walk struct {
	sum   float64
	level []item        // the values that are expanded now
	next  []item        // the next level
	seen  places        // the memory that was counted
	text  reflect.Value // a string that is set to one of a map after the other: to copy each would allocate
	left  int           // how many values may still be inspected
}

var (
	stringType = reflect.TypeFor[string]()
	walks      = sync.Pool{New: func() any { return &walk{text: reflect.New(stringType).Elem(), left: visits} }}
)

// clear prepares a walk for another value. It refers to none any more, and keeps room for the parts of a usual one: to clear what a large
// one has left would take longer than to measure the next.
func (w *walk) clear() {
	w.level, w.next = emptied(w.level), emptied(w.next)
	w.text.SetString("")
	w.seen.clear()
	w.sum, w.left = 0, visits
}

const usualItems = 32

func emptied(items []item) []item {
	if cap(items) > usualItems {
		return nil
	}
	clear(items[:cap(items)]) // items beyond the length are those of the level before
	return items[:0]
}

// An item is a value whose own bytes are counted. The memory that it refers to is not counted yet.
type item struct {
	v      reflect.Value
	weight float64 // how many values it stands for
	hidden bool    // whether it lies in an unexported field
}

// A place identifies memory. A struct and its first field have the same address. The type distinguishes them.
type place struct {
	at unsafe.Pointer
	as reflect.Type
}

type field struct {
	index  int
	hidden bool
}

// places are those that were counted. Most values have few.
type places struct {
	few  []place
	many map[place]struct{} // those after the first ones; nil where there are none
}

const fewPlaces = 16

// add reports whether p is a new one.
func (s *places) add(p place) bool {
	if slices.Contains(s.few, p) {
		return false
	}
	if len(s.few) < fewPlaces {
		s.few = append(s.few, p)
		return true
	}
	if s.many == nil {
		s.many = make(map[place]struct{})
	}
	before := len(s.many)
	s.many[p] = struct{}{}
	return len(s.many) > before
}

func (s *places) count() int { return len(s.few) + len(s.many) }

func (s *places) clear() {
	clear(s.few)
	s.few, s.many = s.few[:0], nil
}

// run processes one level after the other. Each level may use a quarter of the visits that are left. It divides them equally between a
// sample of its items, for their elements.
func (w *walk) run() {
	var random *rand.Rand // of those levels that are sampled
	for len(w.next) > 0 && w.left > 0 {
		w.level, w.next = w.next, w.level[:0]
		level := w.level
		keep := min(len(level), max(1, w.left/4))
		share := max(1, w.left/4/keep)
		if keep < len(level) && random == nil {
			random = rand.New(rand.NewPCG(0, 0)) // a fixed seed: a value always has the same size
		}
		for i := range keep {
			if keep < len(level) {
				j := i + random.IntN(len(level)-i)
				level[i], level[j] = level[j], level[i]
			}
			it := level[i]
			it.weight *= float64(len(level)) / float64(keep)
			w.expand(it, share)
		}
	}
}

// expand counts the memory that the parts of a value refer to. It inspects at most share parts.
func (w *walk) expand(it item, share int) {
	n := 1
	switch it.v.Kind() {
	case reflect.Slice, reflect.Array, reflect.Map:
		n = it.v.Len()
	}
	sample := min(n, share)
	step := float64(n) / float64(sample)
	w.left -= max(1, sample)
	switch it.v.Kind() {
	case reflect.Map:
		keys, values := it.v.Type().Key(), it.v.Type().Elem()
		for entries := it.v.MapRange(); sample > 0 && entries.Next(); sample-- {
			if keys == stringType {
				w.text.SetIterKey(entries)
				w.count(w.text, it.weight*step, false)
			} else if refers(keys) {
				w.count(entries.Key(), it.weight*step, false)
			}
			if values == stringType {
				w.text.SetIterValue(entries)
				w.count(w.text, it.weight*step, false)
			} else if refers(values) {
				w.count(entries.Value(), it.weight*step, false)
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range sample {
			w.count(it.v.Index(int((float64(i)+0.5)*step)), it.weight*step, it.hidden)
		}
	default:
		w.count(it.v.Elem(), it.weight, it.hidden)
	}
}

// count adds the memory that v refers to directly. v's own bytes are counted already. Memory behind that is left to the next level.
func (w *walk) count(v reflect.Value, weight float64, hidden bool) {
	t := v.Type()
	switch v.Kind() {
	case reflect.String:
		w.add(float64(v.Len()), weight)
	case reflect.Struct:
		for _, f := range fields(t) {
			w.count(v.Field(f.index), weight, hidden || f.hidden)
		}
	case reflect.Array:
		w.later(v, weight, hidden, refers(t.Elem()))
	case reflect.Slice:
		if w.first(v) {
			w.add(float64(v.Cap())*float64(t.Elem().Size()), weight)
			w.later(v, weight, hidden, !hidden && refers(t.Elem()))
		}
	case reflect.Map:
		if !hidden && w.first(v) {
			const overhead = 16 // control bytes and slack of a Swiss table, for each entry
			w.add(float64(v.Len())*float64(t.Key().Size()+t.Elem().Size()+overhead), weight)
			w.later(v, weight, hidden, refers(t.Key()) || refers(t.Elem()))
		}
	case reflect.Pointer, reflect.Interface:
		if !hidden && !v.IsNil() && (v.Kind() == reflect.Interface || w.first(v)) {
			w.add(float64(v.Elem().Type().Size()), weight)
			w.later(v, weight, hidden, refers(v.Elem().Type()))
		}
	}
}

func (w *walk) add(bytes, weight float64) { w.sum += bytes * weight }

func (w *walk) later(v reflect.Value, weight float64, hidden, worth bool) {
	if worth {
		w.next = append(w.next, item{v, weight, hidden})
	}
}

// first reports whether v refers to memory that was not counted yet. v is a pointer, a map or a slice.
func (w *walk) first(v reflect.Value) bool {
	p := place{v.UnsafePointer(), v.Type()}
	return p.at != nil && w.seen.add(p)
}

// fieldsOf has, by the types of structs, the fields that can refer to memory that Size may read.
var fieldsOf sync.Map

func fields(t reflect.Type) []field {
	if known, ok := fieldsOf.Load(t); ok {
		return known.([]field)
	}
	var fields []field
	if !locks(t) {
		for i := range t.NumField() {
			// Fields that are promoted from an embedded struct belong to the outer type, whatever the name of the inner type.
			f := t.Field(i)
			if refers(f.Type) {
				fields = append(fields, field{i, !f.IsExported() && !(f.Anonymous && f.Type.Kind() == reflect.Struct)})
			}
		}
	}
	fieldsOf.Store(t, fields)
	return fields
}

// locks reports whether a value of type t, or a pointer to it, contains a type by which goroutines synchronize.
func locks(t reflect.Type) bool {
	named := t
	if t.Kind() == reflect.Pointer {
		named = t.Elem()
	}
	switch named.PkgPath() {
	case "sync", "sync/atomic":
		return true
	}
	switch t.Kind() {
	case reflect.Array:
		return t.Len() > 0 && locks(t.Elem()) // an empty one marks a struct that must not be copied, as that of a protobuf message
	case reflect.Struct:
		for i := range t.NumField() {
			if locks(t.Field(i).Type) {
				return true
			}
		}
	}
	return false
}

// refers reports whether a value of type t may refer to memory outside itself.
func refers(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String, reflect.Pointer, reflect.Interface, reflect.Slice, reflect.Map, reflect.Array, reflect.Struct:
		return true
	}
	return false
}
