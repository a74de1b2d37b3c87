package near

import (
	"reflect"
	"unsafe"
)

const (
	// visits bounds the work of one Size call: larger values are sampled.
	visits = 4096
	// few is up to how many elements a slice or map is taken for a record, whose parts have little in common, rather than
	// for a list, whose parts are alike: the parts of a record share the visits, a list is sampled.
	few = 16
	// huge is the largest figure that a sample is scaled to. The sum of as many of them as there are visits is an int64.
	huge = 1 << 50
)

// Size estimates how many bytes of memory v and what it points to take. v is usually a pointer. Long slices and maps are
// sampled; memory that is reached twice through pointers, maps or slices of the same type is counted once, so that a tree
// whose nodes know their parents is no larger than one whose nodes do not. It is a figure to bound a cache by, not an
// exact one.
func Size(v any) int64 {
	if v == nil {
		return 0
	}
	rv := reflect.ValueOf(v)
	budget := visits
	return int64(rv.Type().Size()) + (&walk{}).indirect(rv, &budget)
}

// A walk is one call of Size.
type walk struct {
	seen map[place]struct{} // what was counted
}

// A place is some memory. A struct and its first field have one address; the type tells them apart.
type place struct {
	at unsafe.Pointer
	as reflect.Type
}

// first reports whether v, a pointer, map or slice, refers to memory that was not counted yet.
func (w *walk) first(v reflect.Value) bool {
	p := place{v.UnsafePointer(), v.Type()}
	if _, found := w.seen[p]; found {
		return false
	}
	if w.seen == nil {
		w.seen = make(map[place]struct{})
	}
	w.seen[p] = struct{}{}
	return true
}

// indirect estimates what v refers to, beyond its own v.Type().Size() bytes. Without a budget left it still counts what is
// one step away, only nothing behind that.
func (w *walk) indirect(v reflect.Value, budget *int) int64 {
	deeper := *budget > 0
	if deeper {
		*budget--
	}
	switch v.Kind() {
	case reflect.String:
		return int64(v.Len())
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() || v.Kind() == reflect.Pointer && !w.first(v) {
			return 0
		}
		sum := int64(v.Elem().Type().Size())
		if deeper {
			sum += w.indirect(v.Elem(), budget)
		}
		return sum
	case reflect.Slice:
		if !refers(v.Type().Elem()) {
			return int64(v.Cap()) * int64(v.Type().Elem().Size())
		}
		if v.IsNil() || !w.first(v) {
			return 0
		}
		return int64(v.Cap())*int64(v.Type().Elem().Size()) + w.elements(v, budget)
	case reflect.Array:
		return w.elements(v, budget)
	case reflect.Struct:
		return w.fields(v, budget)
	case reflect.Map:
		if v.IsNil() || !w.first(v) {
			return 0
		}
		return w.entries(v, budget)
	default:
		return 0
	}
}

// part is indirect for the next of so many parts of a record. It keeps a sixteenth of the budget back for each of the
// others, or everybody's equal share if they are many: without this, a long slice in a struct's first field would leave
// nothing to count the second with. Not more than that, because the part may be the rest of a linked list.
func (w *walk) part(v reflect.Value, budget *int, parts int) int64 {
	back := min(*budget/16*(parts-1), *budget-*budget/parts)
	*budget -= back
	sum := w.indirect(v, budget)
	*budget += back
	return sum
}

func (w *walk) fields(v reflect.Value, budget *int) int64 {
	parts := 0
	for i := range v.NumField() {
		if branches(v.Field(i).Type()) {
			parts++
		}
	}
	var sum int64
	for i := range v.NumField() {
		switch t := v.Field(i).Type(); {
		case branches(t):
			sum += w.part(v.Field(i), budget, parts)
			parts--
		case refers(t):
			sum += w.indirect(v.Field(i), budget)
		}
	}
	return sum
}

// elements estimates what a slice's or array's elements refer to, from a sample spread evenly over it.
func (w *walk) elements(v reflect.Value, budget *int) int64 {
	n := v.Len()
	if *budget <= 0 || n == 0 || !refers(v.Type().Elem()) {
		return 0
	}
	var sum int64
	if n <= few {
		for i := range n {
			sum += w.part(v.Index(i), budget, n-i)
		}
		return sum
	}
	sample := min(n, max(1, *budget/4))
	seen := 0
	for ; seen < sample && *budget > 0; seen++ {
		sum += w.indirect(v.Index((2*seen+1)*n/(2*sample)), budget)
	}
	return scale(sum, n, seen)
}

func (w *walk) entries(v reflect.Value, budget *int) int64 {
	n := v.Len()
	const overhead = 16 // control bytes and slack of a Swiss table, an entry
	own := int64(n) * (int64(v.Type().Key().Size()) + int64(v.Type().Elem().Size()) + overhead)
	if *budget <= 0 || !refers(v.Type().Key()) && !refers(v.Type().Elem()) {
		return own
	}
	var sum int64
	if n <= few {
		left := 2 * n
		for it := v.MapRange(); it.Next(); left -= 2 {
			sum += w.part(it.Key(), budget, left) + w.part(it.Value(), budget, left-1)
		}
		return own + sum
	}
	sample := min(n, max(1, *budget/4))
	seen := 0
	for it := v.MapRange(); seen < sample && *budget > 0 && it.Next(); seen++ {
		sum += w.indirect(it.Key(), budget) + w.indirect(it.Value(), budget)
	}
	return own + scale(sum, n, seen)
}

// scale is the sum for n elements when that for seen of them is known.
func scale(sum int64, n, seen int) int64 {
	if seen == 0 {
		return 0
	}
	return int64(min(huge, float64(sum)*float64(n)/float64(seen)))
}

// branches reports whether what a value of type t refers to can refer to more: it takes more than one step to count.
func branches(t reflect.Type) bool {
	return refers(t) && t.Kind() != reflect.String && (t.Kind() != reflect.Slice || refers(t.Elem()))
}

// refers reports whether a value of type t can refer to memory outside itself.
func refers(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String, reflect.Pointer, reflect.Interface, reflect.Slice, reflect.Map, reflect.Chan, reflect.Func, reflect.UnsafePointer:
		return true
	case reflect.Array:
		return t.Len() > 0 && refers(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if refers(t.Field(i).Type) {
				return true
			}
		}
	}
	return false
}
