package wire

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// A format must give back the value that it was given, or refuse it. Most of what a format would change is known from the type. It is
// determined once for each type. The rest depends on the value: the content of an interface, the depth of a recursive list. For that, a
// walker inspects each value before it is encoded. It inspects only the parts in which such a change is possible.

// A LossError describes what a format would change.
type LossError struct {
	Type  reflect.Type
	Field string // such as Models[].Price; "" for the value itself
	Why   string
}

// Error names the type and the field, and quotes no part of the value.
func (e *LossError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("%s %s", e.Type, e.Why)
	}
	return fmt.Sprintf("%s, field %s %s", e.Type, e.Field, e.Why)
}

// A keeper knows what a format keeps of a type.
type keeper struct {
	format  string
	refused error // the loss that is known from the type alone
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

// target returns a pointer to a value, and the value with its type. v is the pointer, or the value itself. The value is then copied, so
// that methods with a pointer receiver are found in both cases. rv is not valid if v is nil.
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

// check refuses a value that the format would change. If it has to inspect the value, it also refuses one that takes more than most
// bytes for certain.
func (k *keeper) check(v reflect.Value, most int) error {
	if k.refused != nil {
		return k.refused
	}
	if !k.root.look || !v.IsValid() {
		return nil
	}
	return k.walk(v, most, false)
}

// find returns the loss in a value that the encoder has refused or changed. It returns nil if it finds none.
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

// A loss is a part of a value that a format would change. Its path is from the inside out.
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

// tooLarge is the loss of a value that takes too many bytes.
var tooLarge = new(loss)
