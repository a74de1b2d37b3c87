package wire

import (
	"errors"
	"fmt"
	"math"
	"reflect"
)

// A build reads what another one wrote, whose type had other fields. What both know must be the same afterwards, and names that only one
// of them knows may be missing on one side. Where each side has a name that the other lacks, a field may have got another name, and where
// all names are the same, a field has another type: both are refused.

// errOtherFields says nothing of the value.
var errOtherFields = errors.New("stored by a build in which the type had other fields")

var errTooLong = fmt.Errorf("%w, and too long to be compared", errOtherFields)

// maxCompared bounds what is compared so: longer payloads of another build's type are refused.
const maxCompared = 4 << 20

// compare decides on a payload of another build's type: what was decoded of it is encoded again for that.
func (k *keeper) compare(stored []byte, v reflect.Value, encode func() ([]byte, error), decode func([]byte, any) error) error {
	if len(stored) > maxCompared {
		return errTooLong
	}
	written, err := encode()
	if err != nil {
		return fmt.Errorf("%w: %w", errOtherFields, err)
	}
	var was, is any
	if err := errors.Join(decode(stored, &was), decode(written, &is)); err != nil {
		return fmt.Errorf("%w: %w", errOtherFields, err)
	}
	differs, l := common(k.root, was, is)
	if l == nil && !differs {
		l = lose("has the same fields as before, of other types")
	}
	if l == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errOtherFields, l.error(v.Type()))
}

// common compares what was stored with what was made of it, encoded again; both are decoded as any.
func common(p *part, stored, again any) (differs bool, l *loss) {
	for p != nil && p.kind == pointerPart {
		p = p.elem
	}
	if a, ok := entriesOf(stored); ok {
		b, ok := entriesOf(again)
		if !ok {
			return false, lose("has another type")
		}
		var unknown, missing any
		for name, x := range a {
			y, ok := b[name]
			if !ok {
				unknown = name
				continue
			}
			of, step := p.member(name)
			d, l := common(of, x, y)
			if l != nil {
				return false, l.in(step)
			}
			differs = differs || d
		}
		for name := range b {
			if _, ok := a[name]; !ok {
				missing = name
			}
		}
		if unknown != nil && missing != nil {
			l := lose("is missing, and there is one that the type lacks: it may have got another name")
			if _, step := p.member(missing); step != "" {
				l = l.in(step)
			}
			return false, l
		}
		return differs || unknown != nil || missing != nil, nil
	}
	switch a := stored.(type) {
	case []any:
		b, ok := again.([]any)
		if !ok || len(a) != len(b) {
			return false, lose("has another type")
		}
		var elem *part
		if p != nil {
			elem = p.elem
		}
		for i := range a {
			d, l := common(elem, a[i], b[i])
			if l != nil {
				return false, l.in("[]")
			}
			differs = differs || d
		}
		return differs, nil
	case float64:
		if b, ok := again.(float64); ok && math.Float64bits(a) == math.Float64bits(b) {
			return false, nil
		}
		return false, lose("has another type")
	}
	if !reflect.DeepEqual(stored, again) {
		return false, lose("has another type")
	}
	return false, nil
}

// entriesOf are those of a map: JSON has only texts as keys.
func entriesOf(x any) (map[any]any, bool) {
	switch m := x.(type) {
	case map[any]any:
		return m, true
	case map[string]any:
		all := make(map[any]any, len(m))
		for name, x := range m {
			all[name] = x
		}
		return all, true
	}
	return nil, false
}

// member is the part of what has a name, and how Go spells that; a map's key is not told.
func (p *part) member(name any) (*part, string) {
	if p == nil || p.kind != structPart {
		var elem *part
		if p != nil {
			elem = p.elem
		}
		return elem, "[]"
	}
	for i := range p.fields {
		if f := &p.fields[i]; f.name == name {
			return f.part, f.path
		}
	}
	return nil, ""
}
