package engine

import "github.com/gatewayz/aside/internal/tags"

// A program can have calls bypass the cache: their loaders alone answer them. Such a call reads nothing in memory or in Redis, and stores
// nothing. It takes fences, since callers may join its load only until this process invalidates the key or a tag. Redis does not notify this
// process of other changes, since nothing is read there. So such a load can be joined for redisstore.UntrackedLife: see setJoinable.
//
// In a batch, calls that bypass the cache and others share one call of the loader.

// splitBypassing takes the attempts that bypass the cache out of those of a flight, and prepares them for their load.
func (e *Engine) splitBypassing(attempts []*attempt, m *tags.Snapshot) (others, bypassing []*attempt) {
	others = listOf(attempts)
	for _, a := range attempts {
		if !a.Bypass {
			others = append(others, a)
			continue
		}
		a.tagEvents = e.tags.Events()
		if a.Replace {
			e.Near.Break(a.Key) // no load that is in flight may be stored: see share
		}
		e.takeFences(a, m, nil)
		a.status, a.storable, a.reason, a.read = StatusMiss, false, ReasonBypassed, true
		a.setJoinable(e, m)
		bypassing = append(bypassing, a)
	}
	return others, bypassing
}
