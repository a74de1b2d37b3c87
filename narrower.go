package aside

import (
	"reflect"

	"github.com/gatewayz/aside/internal/wire"
)

// A program may read one key as two types, though a policy is for one. What was loaded or read as the type with fewer fields has none
// of the others: read as the type with more of them, these would be zero, in a hit that is fresh until the TTL ends. So it counts as a
// miss there. In Redis that is done for what this program itself uses as both; what another build has stored is read, see docs/codecs.md.

// reasonNarrower is the Reason of such a miss.
const reasonNarrower = "stored by this program as a type with fewer fields"

// covers reports whether a value in memory has all fields of the type that s asks for.
func (s *slot) covers(value any) bool {
	switch v := value.(type) {
	case nil, *absence:
		return true
	case *encoded:
		return v.typ == s.typ || wire.Covers(v.codec, v.typ, s.typ)
	}
	typ := reflect.TypeOf(value).Elem()
	return typ == s.typ || wire.Covers((&slot{request: request{plan: s.plan, typ: typ}}).codec(), typ, s.typ)
}

// narrower reports whether a payload that was read as s's type was written as another one that this program uses with the policy, and
// that lacks fields of it.
func (s *slot) narrower(codec wire.Codec, payload []byte) (yes bool) {
	s.plan.types.LoadOrStore(s.typ, nil)
	if wire.IsOf(codec, payload, s.typ) {
		return false
	}
	s.plan.types.Range(func(typ, _ any) bool {
		other := typ.(reflect.Type)
		yes = wire.IsOf(codec, payload, other) && !wire.Covers(codec, other, s.typ)
		return !yes
	})
	return yes
}
