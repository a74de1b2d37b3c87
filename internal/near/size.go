package near

import (
	"reflect"
)

// visits bounds the work of one Size call: larger values are sampled.
const visits = 4096

// Size estimates how many bytes of memory v and what it points to take. v is usually a pointer. Long slices and maps are
// sampled, memory that is shared inside the value is counted once for each way to it, and cycles end with the budget of
// visits; so it is a figure to bound a cache by, not an exact one.
func Size(v any) int64 {
	if v == nil {
		return 0
	}
	rv := reflect.ValueOf(v)
	budget := visits
	return int64(rv.Type().Size()) + indirect(rv, &budget)
}

// indirect estimates what v refers to, beyond its own v.Type().Size() bytes.
func indirect(v reflect.Value, budget *int) int64 {
	if *budget <= 0 {
		return 0
	}
	*budget--
	switch v.Kind() {
	case reflect.String:
		return int64(v.Len())
	case reflect.Pointer:
		if v.IsNil() {
			return 0
		}
		return int64(v.Type().Elem().Size()) + indirect(v.Elem(), budget)
	case reflect.Interface:
		if v.IsNil() {
			return 0
		}
		return int64(v.Elem().Type().Size()) + indirect(v.Elem(), budget)
	case reflect.Slice:
		own := int64(v.Cap()) * int64(v.Type().Elem().Size())
		return own + elements(v, budget)
	case reflect.Array:
		return elements(v, budget)
	case reflect.Struct:
		var sum int64
		for i := range v.NumField() {
			if refers(v.Field(i).Type()) {
				sum += indirect(v.Field(i), budget)
			}
		}
		return sum
	case reflect.Map:
		return entries(v, budget)
	default:
		return 0
	}
}

// elements estimates what a slice's or array's elements refer to, from a sample spread evenly over it.
func elements(v reflect.Value, budget *int) int64 {
	n := v.Len()
	if n == 0 || !refers(v.Type().Elem()) {
		return 0
	}
	sample := min(n, max(1, *budget/4))
	step := n / sample
	var sum int64
	seen := 0
	for ; seen < sample && *budget > 0; seen++ {
		sum += indirect(v.Index(seen*step), budget)
	}
	if seen == 0 {
		return 0
	}
	return sum * int64(n) / int64(seen)
}

func entries(v reflect.Value, budget *int) int64 {
	n := v.Len()
	if n == 0 {
		return 0
	}
	const overhead = 16 // control bytes and slack of a Swiss table, an entry
	pair := int64(v.Type().Key().Size()) + int64(v.Type().Elem().Size()) + overhead
	sample := min(n, max(1, *budget/4))
	var sum int64
	seen := 0
	for it := v.MapRange(); seen < sample && *budget > 0 && it.Next(); seen++ {
		sum += indirect(it.Key(), budget) + indirect(it.Value(), budget)
	}
	if seen == 0 {
		return pair * int64(n)
	}
	return pair*int64(n) + sum*int64(n)/int64(seen)
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
