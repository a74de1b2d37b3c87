package engine

import (
	"log/slog"

	"github.com/gatewayz/aside/internal/loglimit"
	"github.com/gatewayz/aside/internal/wire"
)

// Policies of one category share the first part of their keys, so two of them can make the same key: TTL.UserProfile and TTL.UserCredits
// do with the id of a user alone. People write keys, in an invalidation, in redis-cli and at the admin API, and name no policy there. So a key
// does not contain its policy, and an invalidation of the key reaches the value of any policy. The value says which policy it belongs to, and
// is a miss for others, which replace it:
//
//   - in memory by the owner of its scope;
//   - of a load in flight by the policy in its flightKey;
//   - in Redis by the header's Policy.
//
// Policies that replace each other's values cause loads, so that is logged.

// VersionBits is how many bits of a Policy.Owner are the policy's version. The others stand for its name.
const VersionBits = 16

// otherOwner returns why a stored value does not belong to a's policy, nil if it does. Of two versions of one policy the newer one's values
// stay: see Policy.Version.
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

// otherPolicy notes that another policy's value is under a's key.
func (e *Engine) otherPolicy(a *attempt, owner uint64) {
	a.reason = ReasonOtherPolicy
	if suppressed, ok := a.Policy.logs.shared.Allow(e.Clock.Now()); ok {
		e.opts.Logger.LogAttrs(a.valuesOfCaller(), slog.LevelWarn, "aside: two policies of one category use the same key and replace each other's values: add a part to the keys of one policy, or give it its own Category",
			slog.String("policy", a.Policy.Name), slog.String("other", e.opts.NameOfOwner(owner, a.Policy.Category)), slog.String("key", a.Key), loglimit.Suppressed(suppressed))
	}
}
