package engine

import "errors"

// The Reasons of results. The root package has a constant with the same name and text for each. Reasons about Redis itself, such as a lost
// connection, are texts of package redisstore.
const (
	// Hits.
	ReasonFresh      = "fresh"
	ReasonRefreshing = "fresh, being refreshed"
	ReasonStale      = "past its TTL, being refreshed"
	ReasonLoadFailed = "past its TTL, the load failed"
	ReasonSlowLoad   = "past its TTL, the load takes longer than SoftTimeout"
	ReasonBackoff    = "past its TTL, the last loads failed"
	ReasonOverloaded = "past its TTL, too many loads"

	// Loads.
	ReasonNotCached    = "not cached"
	ReasonExpired      = "expired"
	ReasonInvalidated  = "invalidated by a tag or its category"
	ReasonUnusable     = "the stored value cannot be used"
	ReasonIncomplete   = "a part of the stored value is gone"
	ReasonFewerFields  = "stored by this program as a type with fewer fields"
	ReasonOtherBuild   = "stored by a build with another type or codec"
	ReasonNewerBuild   = "stored by a newer build"
	ReasonOlderVersion = "stored by an older version of the policy"
	ReasonOtherPolicy  = "another policy's value is under this key"
	ReasonLeaseHeld    = "another process has held the lease for too long"
	ReasonUnconfirmed  = "redis has not confirmed an invalidation yet"
	ReasonBypassed     = "the cache is bypassed"
	ReasonSharedLoad   = "shared a load in flight" // followed by a colon, a space, and the reason of the load
)

// Errors whose text is a reason.
var (
	errExpired      = errors.New(ReasonExpired)
	errOtherPolicy  = errors.New(ReasonOtherPolicy)
	errOlderVersion = errors.New(ReasonOlderVersion)
)
