package aside

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"reflect"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/wire"
)

// Policies of one category share the first part of their keys, so two of them can make the same key: TTL.UserProfile and
// TTL.UserCredits do with the id of a user alone. A key is what people write, in an invalidation, in redis-cli and at the admin API,
// where it says nothing of a policy; so it stays as it is, and reaches whatever is stored under it. What is stored says
// whose it is, and counts for that policy alone:
//
//   - in memory by its plan;
//   - of a load in flight by the plan in its flightKey;
//   - in Redis by the header's Policy.
//
// For the others it is a miss, and is replaced. Such policies take the place from each other, which costs loads, so it is logged.

// versionBits of what stands for a policy are its version, the others its name.
const versionBits = 16

// ownerOf is what stands for a policy in its stored values: 0 for the name of one that is named like its category.
func ownerOf(p *Policy) uint64 {
	if p.name() == p.Category {
		return uint64(p.Version)
	}
	sum := sha256.Sum256([]byte(p.name()))
	return max(binary.LittleEndian.Uint64(sum[:])>>versionBits, 1)<<versionBits | uint64(p.Version)
}

// foreign reports why a stored value does not count for s's policy, nil where it does. Of two versions of one policy the newer one's
// values stay: see Policy.Version.
func (s *slot) foreign(owner uint64) error {
	own := s.plan.owner
	switch {
	case owner == own:
		return nil
	case owner>>versionBits != own>>versionBits:
		return errOtherPolicy
	case owner > own:
		return wire.ErrNewer
	}
	return errOlderVersion
}

// nameOfOwner is the name of the policy that a stored value belongs to, as far as this process knows it.
func (c *Cache) nameOfOwner(owner uint64, category string) string {
	if owner>>versionBits == 0 {
		return category
	}
	for name, pl := range c.plans.all() {
		if pl.owner>>versionBits == owner>>versionBits && pl.policy.Category == category {
			return name
		}
	}
	return "one that this process has not used"
}

// reasonShared is the Reason of a miss on another policy's value.
const reasonShared = "another policy's value is under this key"

// sharedKey notes that another policy's value is under s's key.
func (c *Cache) sharedKey(s *slot, owner uint64) {
	s.reason = reasonShared
	if s.plan.sharedLog.Allow(c.clock.Now()) {
		c.opts.Logger.Warn("aside: two policies of one category store values under the same key, and replace each other's: give the keys of one of them a part more, or the policy a Category of its own",
			"policy", s.plan.policy.name(), "other", c.nameOfOwner(owner, s.plan.policy.Category), "key", s.key)
	}
}

// ours reports whether an entry in memory is for s's policy.
func (s *slot) ours(e *near.Entry) bool { return e.Scope.Owner.(*plan) == s.plan }

// as makes a value in memory one of the type that s asks for, as Redis would: by the codec. It fails for a value that cannot be
// decoded into that. Values of a policy whose callers each get a copy of their own stay encoded.
func (c *Cache) as(value any, s *slot) (any, bool) {
	switch v := value.(type) {
	case nil, *absence:
		return value, true
	case *encoded:
		return value, v.typ == s.typ || c.decodes(s, v.codec, v.payload, reflect.New(s.typ).Interface())
	}
	typ := reflect.TypeOf(value).Elem()
	if typ == s.typ {
		return value, true
	}
	codec := (&slot{request: request{plan: s.plan, typ: typ}}).codec()
	payload, err := c.limits().Marshal(codec, value)
	if err != nil {
		return nil, false
	}
	other := reflect.New(s.typ).Interface()
	return other, c.decodes(s, codec, payload, other)
}

// decodes decodes a payload that may be of another type.
func (c *Cache) decodes(s *slot, codec wire.Codec, payload []byte, into any) bool {
	if own, ok := wire.Builtin(wire.ID(codec)); ok && !c.limits().Fits(own, s.typ, payload) {
		return false
	}
	return wire.Unmarshal(codec, append([]byte(nil), payload...), into) == nil
}

var (
	errOtherPolicy  = errors.New(reasonShared)
	errOlderVersion = errors.New("stored by an older version of the policy")
)
