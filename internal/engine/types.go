package engine

import (
	"reflect"
	"sync/atomic"

	"github.com/gatewayz/aside/internal/wire"
)

// A program may read one key as two types, though a policy is for one. What was loaded or read as the type with fewer fields has none
// of the others: read as the type with more of them, these would be zero, in a hit that is fresh until the TTL ends. So it counts as a
// miss there. In Redis that is done for what this program itself uses as both; what another build has stored is read, see docs/codecs.md.

// reasonNarrower is the Reason of such a miss.
const reasonNarrower = "stored by this program as a type with fewer fields"

// covers reports whether a value in memory has all fields of the type that a asks for.
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

// narrower reports whether a payload that was read as a's type was written as another one that this program uses with the policy, and
// that lacks fields of it.
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

// A codec may leave out what it does not know of, unexported fields, say: a process that has loaded a value would see it whole, and one
// that has read it in Redis without them. So the first values of each type that are stored are decoded again and compared. Several: a
// field that is left out may be empty in the first one.

// typeAndCodec is what is looked at once in a process.
type typeAndCodec struct {
	typ   reflect.Type
	codec uint32
}

const (
	mostCheckedBytes = 4 << 20 // of a payload: a larger one would take long to decode
	firstValues      = 8       // of a type
)

// checkFirst logs what does not come back of a's value, where it is one of the first of its type. Its callers have theirs by then.
func (e *Engine) checkFirst(a *attempt, payload []byte, id uint32) {
	if a.out.Value == nil || len(payload) > mostCheckedBytes || wire.IsRaw(a.Type) {
		return
	}
	if _, encoded := a.out.Value.(*encoded); encoded {
		return // each caller decodes it
	}
	n, _ := e.checkedTypes.LoadOrStore(typeAndCodec{a.Type, id}, new(atomic.Int32))
	checked := n.(*atomic.Int32)
	if checked.Load() >= firstValues || checked.Add(1) > firstValues {
		return
	}
	codec := a.codec()
	field, what, some := wire.NotKept(codec, payload, a.out.Value)
	if !some {
		return
	}
	if checked.Swap(firstValues) > firstValues {
		return // somebody else has just logged it
	}
	checked.Add(1)
	e.opts.Logger.Warn("aside: a type does not survive its codec: processes that read its values in Redis see something else than the one that has loaded them",
		"policy", a.Policy.Name, "type", a.Type.String(), "field", field, "codec", codec.Name(), "what", what)
}
