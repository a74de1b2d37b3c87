package near

import (
	"math/rand/v2"
	"reflect"
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
	w := newWalk()
	w.add(float64(reflect.TypeOf(v).Size()), 1)
	w.count(reflect.ValueOf(v), 1, false)
	w.run()
	return int64(min(huge, w.sum))
}

// A walk is one call of Size. It goes level by level, so that a long list in one field leaves visits for the next field.
type walk struct {
	sum  float64
	next []item                   // the next level
	seen map[place]struct{}       // the memory that was counted
	refs map[reflect.Type][]field // the fields of a struct that are counted
	left int                      // how many values may still be inspected
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

func newWalk() *walk {
	return &walk{seen: make(map[place]struct{}), refs: make(map[reflect.Type][]field), left: visits}
}

// run processes one level after the other. Each level may use a quarter of the visits that are left. It divides them equally between a
// sample of its items, for their elements.
func (w *walk) run() {
	random := rand.New(rand.NewPCG(0, 0)) // a fixed seed: a value always has the same size
	for len(w.next) > 0 && w.left > 0 {
		level := w.next
		w.next = nil
		keep := min(len(level), max(1, w.left/4))
		share := max(1, w.left/4/keep)
		for i := range keep {
			j := i + random.IntN(len(level)-i)
			level[i], level[j] = level[j], level[i]
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
		for entries := it.v.MapRange(); sample > 0 && entries.Next(); sample-- {
			w.count(entries.Key(), it.weight*step, false)
			w.count(entries.Value(), it.weight*step, false)
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
		for _, f := range w.fields(t) {
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
	_, found := w.seen[p]
	w.seen[p] = struct{}{}
	return !found && p.at != nil
}

// fields returns the fields of a struct type that can refer to memory that Size may read.
func (w *walk) fields(t reflect.Type) []field {
	fields, found := w.refs[t]
	if !found && !locks(t) {
		for i := range t.NumField() {
			// Fields that are promoted from an embedded struct belong to the outer type, whatever the name of the inner type.
			f := t.Field(i)
			if refers(f.Type) {
				fields = append(fields, field{i, !f.IsExported() && !(f.Anonymous && f.Type.Kind() == reflect.Struct)})
			}
		}
	}
	w.refs[t] = fields
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
		return locks(t.Elem())
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
