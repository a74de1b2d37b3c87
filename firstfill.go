package aside

import (
	"reflect"
	"sync/atomic"

	"github.com/gatewayz/aside/internal/wire"
)

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

// checkFirst logs what does not come back of s's value, where it is one of the first of its type. Its callers have theirs by then.
func (c *Cache) checkFirst(s *slot, payload []byte, id uint32) {
	if s.out.value == nil || len(payload) > mostCheckedBytes || wire.IsRaw(s.typ) {
		return
	}
	if _, encoded := s.out.value.(*encoded); encoded {
		return // each caller decodes it
	}
	n, _ := c.checkedTypes.LoadOrStore(typeAndCodec{s.typ, id}, new(atomic.Int32))
	checked := n.(*atomic.Int32)
	if checked.Load() >= firstValues || checked.Add(1) > firstValues {
		return
	}
	codec := s.codec()
	field, what, some := wire.NotKept(codec, payload, s.out.value)
	if !some {
		return
	}
	if checked.Swap(firstValues) > firstValues {
		return // somebody else has just logged it
	}
	checked.Add(1)
	c.opts.Logger.Warn("aside: a type does not survive its codec: processes that read its values in Redis see something else than the one that has loaded them",
		"policy", s.plan.policy.name(), "type", s.typ.String(), "field", field, "codec", codec.Name(), "what", what)
}
