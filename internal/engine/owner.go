package engine

import (
	"errors"

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

// VersionBits of what stands for a policy in its stored values are its version, the others its name.
const VersionBits = 16

// foreign reports why a stored value does not count for a's policy, nil where it does. Of two versions of one policy the newer one's
// values stay: see Policy.Version.
func (a *attempt) otherOwner(owner uint64) error {
	own := a.Policy.Owner
	switch {
	case owner == own:
		return nil
	case owner>>VersionBits != own>>VersionBits:
		return errOtherPolicy
	case owner > own:
		return wire.ErrNewer
	}
	return errOlderVersion
}

var (
	errOtherPolicy  = errors.New(reasonShared)
	errOlderVersion = errors.New("stored by an older version of the policy")
)

// reasonShared is the Reason of a miss on another policy's value.
const reasonShared = "another policy's value is under this key"

// otherPolicy notes that another policy's value is under a's key.
func (e *Engine) otherPolicy(a *attempt, owner uint64) {
	a.reason = reasonShared
	if a.Policy.sharedLog.Allow(e.Clock.Now()) {
		e.opts.Logger.Warn("aside: two policies of one category store values under the same key, and replace each other's: give the keys of one of them a part more, or the policy a Category of its own",
			"policy", a.Policy.Name, "other", e.opts.NameOfOwner(owner, a.Policy.Category), "key", a.Key)
	}
}
