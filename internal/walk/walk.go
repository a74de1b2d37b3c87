// Package walk finds every text inside a value by reflection. Tests use it to look for secrets that a careless printer could show.
package walk

import (
	"fmt"
	"reflect"
)

// Texts calls see with every text, as bytes, that reflection reaches from v. It follows pointers, interfaces, slices, maps and unexported
// fields. It cannot look into functions and channels.
func Texts(v any, see func(path string, text []byte)) {
	w := &walker{see: see, seen: make(map[visit]bool)}
	w.walk(fmt.Sprintf("%T", v), reflect.ValueOf(v))
}

type visit struct {
	kind reflect.Type
	at   uintptr
}

type walker struct {
	see  func(path string, text []byte)
	seen map[visit]bool
}

func (w *walker) walk(path string, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		w.see(path, []byte(v.String()))
	case reflect.Interface:
		w.walk(path, v.Elem())
	case reflect.Pointer:
		at := visit{v.Type(), v.Pointer()}
		if v.IsNil() || w.seen[at] {
			return
		}
		w.seen[at] = true
		w.walk(path, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			w.walk(path+"."+v.Type().Field(i).Name, v.Field(i))
		}
	case reflect.Map:
		for i := v.MapRange(); i.Next(); {
			w.walk(path+"[key]", i.Key())
			w.walk(path+"[]", i.Value())
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			text := make([]byte, v.Len())
			for i := range text {
				text[i] = byte(v.Index(i).Uint())
			}
			w.see(path, text)
			return
		}
		for i := range v.Len() {
			w.walk(fmt.Sprintf("%s[%d]", path, i), v.Index(i))
		}
	}
}
