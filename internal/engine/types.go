package engine

import (
	"log/slog"
	"reflect"
	"sync/atomic"

	"github.com/gatewayz/aside/internal/wire"
)

// A program may read one key as two types, though a policy is for one type. A value that was stored as the type with fewer fields lacks the
// others. Read as the type with more fields, it would be a hit with zeros until its TTL ends. So it is a miss for that type. In Redis this
// holds for types that this program itself uses with the policy. A value that another build has stored is read: see docs/codecs.md.
// The Reason of such a miss is ReasonFewerFields.

// hasAllFields reports whether a value in memory has all fields of the type that a asks for.
func (a *attempt) hasAllFields(value any) bool {
	switch v := value.(type) {
	case nil, *absence:
		return true
	case *encoded:
		return v.typ == a.Type || wire.Covers(v.codec, v.typ, a.Type)
	}
	typ := reflect.TypeOf(value).Elem()
	return typ == a.Type || wire.Covers((&attempt{Request: Request{Policy: a.Policy, Type: typ}}).codec(), typ, a.Type)
}

// narrower reports whether a payload was written as another type that this program uses with the policy, and that lacks fields of a's type.
func (a *attempt) narrower(codec wire.Codec, payload []byte) (yes bool) {
	a.Policy.types.LoadOrStore(a.Type, nil)
	if wire.IsOf(codec, payload, a.Type) {
		return false
	}
	a.Policy.types.Range(func(typ, _ any) bool {
		other := typ.(reflect.Type)
		yes = wire.IsOf(codec, payload, other) && !wire.Covers(codec, other, a.Type)
		return !yes
	})
	return yes
}

// A codec may leave out fields, such as unexported ones. A process that has loaded a value then sees all fields, and a process that reads it in
// Redis does not. So the first values of each type that are stored are decoded again and compared: several of them, since a field may be
// empty in the first one.

// typeAndCodec identifies a type whose first values are checked.
type typeAndCodec struct {
	typ   reflect.Type
	codec uint32
}

const (
	mostCheckedBytes = 4 << 20 // a larger payload would take long to decode
	firstValues      = 8       // how many values of a type are checked
)

// checkFirst logs a field of a's value that its codec does not keep, if the value is one of the first of its type. The callers have the value by
// then.
func (e *Engine) checkFirst(a *attempt, payload []byte, id uint32) {
	if a.out.Value == nil || len(payload) > mostCheckedBytes || wire.IsRaw(a.Type) {
		return
	}
	if _, encoded := a.out.Value.(*encoded); encoded {
		return // each caller decodes it
	}
	is := typeAndCodec{a.Type, id}
	if last := a.Policy.checked.Load(); last != nil && *last == is {
		return
	}
	n, _ := e.checkedTypes.LoadOrStore(is, new(atomic.Int32))
	checked := n.(*atomic.Int32)
	if checked.Load() >= firstValues || checked.Add(1) > firstValues {
		a.Policy.checked.Store(&typeAndCodec{a.Type, id}) // to find it in a map takes memory
		return
	}
	codec := a.codec()
	field, what, some := wire.NotKept(codec, payload, a.out.Value)
	if !some {
		return
	}
	if checked.Swap(firstValues) > firstValues {
		return // another goroutine has just logged it
	}
	checked.Add(1)
	e.opts.Logger.LogAttrs(a.valuesOfCaller(), slog.LevelWarn, "aside: codec does not keep a field: processes that read the value in Redis see a different one",
		slog.String("policy", a.Policy.Name), slog.String("type", a.Type.String()), slog.String("field", field), slog.String("codec", codec.Name()), slog.String("cause", what))
}
