package wire

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// A format gives back what it was given, or it refuses it. What it would change is known from the type for the most part, and is found
// once for each type. The rest hangs on the value: what lies in an interface, how deep a list of itself goes. For that the parts of each
// value where it can happen are looked at before it is encoded, and no others.

// A LossError says what a format would change: of which type, in which field.
type LossError struct {
	Type  reflect.Type
	Field string // such as Models[].Price; "" for the value itself
	Why   string
}

// Error names no part of the value: only its type has names for what it says.
func (e *LossError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("%s %s", e.Type, e.Why)
	}
	return fmt.Sprintf("%s, field %s %s", e.Type, e.Field, e.Why)
}

// A keeper knows what a format keeps of a type.
type keeper struct {
	format  string
	refused error // what is known from the type alone
	root    *part
	print   uint32 // a hash of the names and kinds of the type's fields
	fields  fieldSet
}

type keeperKey struct {
	typ    reflect.Type
	format string
}

var keepers sync.Map // keeperKey -> *keeper

func keeperOf(typ reflect.Type, format string) *keeper {
	key := keeperKey{typ, format}
	if k, ok := keepers.Load(key); ok {
		return k.(*keeper)
	}
	b := &builder{format: format, made: make(map[partKey]*part), open: make(map[*part]bool)}
	k := &keeper{format: format}
	var loss *loss
	if k.root, loss = b.part(typ, true); loss != nil {
		k.refused = loss.error(typ)
	} else {
		b.spread()
		k.fields, k.print = k.root.fieldSet(format)
	}
	keepers.Store(key, k)
	return k
}

// target is what v, a pointer, points to, and the type of that; rv is not valid where v is nil. Another v is copied, so that methods with
// a pointer receiver are found in either case.
func target(v any) (pointer any, typ reflect.Type, rv reflect.Value) {
	rv = reflect.ValueOf(v)
	switch {
	case !rv.IsValid():
		return v, nil, rv
	case rv.Kind() == reflect.Pointer && rv.IsNil():
		return v, rv.Type().Elem(), reflect.Value{}
	case rv.Kind() == reflect.Pointer:
		return v, rv.Type().Elem(), rv.Elem()
	}
	p := reflect.New(rv.Type())
	p.Elem().Set(rv)
	return p.Interface(), rv.Type(), p.Elem()
}

// check refuses a value of which the format would change something. Where it looks at values one by one, it also refuses what takes more
// than a number of bytes at least.
func (k *keeper) check(v reflect.Value, most int) error {
	if k.refused != nil {
		return k.refused
	}
	if !k.root.look || !v.IsValid() {
		return nil
	}
	return k.walk(v, most, false)
}

// find says where in a value the format has met what it has no form for, nil where that is not found.
func (k *keeper) find(v reflect.Value) error { return k.walk(v, math.MaxInt, true) }

func (k *keeper) walk(v reflect.Value, most int, all bool) error {
	w := walker{format: k.format, all: all, left: most}
	loss := w.value(k.root, v, 0, 0)
	switch {
	case loss == tooLarge || w.left < 0:
		return fmt.Errorf("%w: at most %d bytes", ErrTooLarge, most)
	case loss != nil:
		return loss.error(v.Type())
	}
	return nil
}

// A loss is what would be changed; its path is from the inside out.
type loss struct {
	why  string
	path []string
}

func lose(format string, args ...any) *loss { return &loss{why: fmt.Sprintf(format, args...)} }

func (l *loss) in(step string) *loss {
	if l != nil && l != tooLarge {
		l.path = append(l.path, step)
	}
	return l
}

func (l *loss) error(typ reflect.Type) error {
	if n := len(l.path); n > 12 {
		l.path = append(append(slices.Clone(l.path[:2]), "…"), l.path[n-8:]...)
	}
	var b strings.Builder
	for _, step := range slices.Backward(l.path) {
		if step != "[]" && b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(step)
	}
	return &LossError{Type: typ, Field: b.String(), Why: l.why}
}

// tooLarge stands for a value that takes too many bytes.
var tooLarge = new(loss)
