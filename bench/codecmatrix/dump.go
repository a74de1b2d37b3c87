package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"net"
	"reflect"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
)

type time64 = time.Time

// dump spells a value out, with what is not exported, so that two processes can compare theirs. Values with equal texts are the same: nil
// is not empty, a time is its instant and its offset, an address is what it says, and a list that is left out where it is empty may be nil.
func dump(v any, loose bool) string {
	d := dumper{loose: loose}
	d.value(reflect.ValueOf(v), 0, false)
	return d.b.String()
}

type dumper struct {
	b     strings.Builder
	loose bool
}

func (d *dumper) value(v reflect.Value, depth int, omits bool) {
	if depth > 60 {
		d.b.WriteString("…")
		return
	}
	if !v.IsValid() {
		d.b.WriteString("nil")
		return
	}
	t := v.Type()
	if v.CanInterface() && d.known(v) {
		return
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			d.b.WriteString("nil")
			return
		}
		if v.Kind() == reflect.Interface {
			fmt.Fprintf(&d.b, "(%s)", v.Elem().Type())
		} else {
			d.b.WriteByte('&')
		}
		d.value(v.Elem(), depth+1, false)
	case reflect.Slice, reflect.Map:
		if v.IsNil() || omits && v.Len() == 0 {
			d.b.WriteString("nil")
			return
		}
		if v.Kind() == reflect.Map {
			d.entries(v, depth)
			return
		}
		fallthrough
	case reflect.Array:
		d.b.WriteByte('[')
		for i := range v.Len() {
			d.value(v.Index(i), depth+1, false)
			d.b.WriteByte(' ')
		}
		d.b.WriteByte(']')
	case reflect.Struct:
		d.b.WriteByte('{')
		for i := range v.NumField() {
			f := t.Field(i)
			if t.PkgPath() == "sync" {
				continue
			}
			tag := f.Tag.Get("json")
			fmt.Fprintf(&d.b, "%s:", f.Name)
			d.value(v.Field(i), depth+1, strings.Contains(tag, "omitempty"))
			d.b.WriteByte(' ')
		}
		d.b.WriteByte('}')
	case reflect.Float32, reflect.Float64:
		if f := v.Float(); math.IsNaN(f) {
			d.b.WriteString("NaN")
		} else {
			fmt.Fprintf(&d.b, "%x", f)
		}
	case reflect.String:
		fmt.Fprintf(&d.b, "%q", v.String())
	case reflect.Bool:
		fmt.Fprint(&d.b, v.Bool())
	case reflect.Complex64, reflect.Complex128:
		fmt.Fprint(&d.b, v.Complex())
	case reflect.Chan, reflect.Func, reflect.UnsafePointer:
		fmt.Fprintf(&d.b, "%s %v", v.Kind(), v.IsNil())
	default:
		if v.CanInt() {
			fmt.Fprint(&d.b, v.Int())
		} else {
			fmt.Fprint(&d.b, v.Uint())
		}
	}
}

func (d *dumper) entries(v reflect.Value, depth int) {
	var all []string
	for e := v.MapRange(); e.Next(); {
		k, x := dumper{loose: d.loose}, dumper{loose: d.loose}
		k.value(e.Key(), depth+1, false)
		x.value(e.Value(), depth+1, false)
		all = append(all, k.b.String()+"="+x.b.String())
	}
	slices.Sort(all)
	fmt.Fprintf(&d.b, "map%q", all)
}

func (d *dumper) known(v reflect.Value) bool {
	switch x := v.Interface().(type) {
	case time.Time:
		_, offset := x.Zone()
		fmt.Fprintf(&d.b, "%d.%d%+d", x.Unix(), x.Nanosecond(), offset)
	case big.Int:
		d.b.WriteString(x.String())
	case big.Rat:
		d.b.WriteString(x.String())
	case net.IP:
		if x == nil {
			return false
		}
		d.b.WriteString(x.String())
	case fmt.Stringer:
		if v.Type().PkgPath() != "net/netip" {
			m, ok := x.(proto.Message)
			if !ok || v.IsNil() {
				return false
			}
			b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
			fmt.Fprintf(&d.b, "%x %v", b, err)
			return true
		}
		d.b.WriteString(x.String())
	case json.RawMessage:
		if !d.loose {
			return false
		}
		var b bytes.Buffer
		if x == nil {
			x = json.RawMessage("null")
		}
		if json.Compact(&b, x) != nil {
			return false
		}
		d.b.Write(b.Bytes())
	default:
		return false
	}
	return true
}

// agrees reports whether a reader of another build has what it and the writer both know, and has not lost a field that it knows under
// another name or with another type.
func agrees(build int, written, read any, loose bool) bool {
	w, r := reflect.ValueOf(written).Elem(), reflect.ValueOf(read).Elem()
	if w.Field(0).Int() != r.Field(0).Int() {
		return false
	}
	field := func(v reflect.Value) string {
		d := dumper{loose: loose}
		d.value(v, 0, false)
		return d.b.String()
	}
	switch build {
	case 0: // added
		return field(w.Field(1)) == field(r.Field(1)) && r.Field(2).IsZero()
	case 1: // removed
		return true
	case 2: // renamed: what it was must have been found
		return field(w.Field(1)) == field(r.Field(1))
	}
	return false // retyped
}
