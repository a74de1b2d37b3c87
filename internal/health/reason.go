package health

import "github.com/gatewayz/aside/internal/redisstore"

// Reason says why Redis is not in use, for a state that is not up.
func Reason(s redisstore.State) string {
	if s.Cause == nil {
		return "connecting to redis"
	}
	return redisstore.Describe(s.Cause)
}

// Untracked says what follows from a server without client tracking, for a state that is up.
func Untracked(s redisstore.State) string {
	reason := "the server has no client tracking: memory keeps values for " + redisstore.UntrackedLife.String() + " at most"
	if s.Silent {
		reason += "; other processes may serve an old value as long, since the server refuses PUBLISH"
	}
	return reason
}
