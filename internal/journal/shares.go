package journal

import (
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/quota"
)

// Invalidations of the program itself are never refused: if the journal has no room, everything is invalidated. A caller outside of the program,
// a key of the admin API without the scope "all", must not be able to cause that. Its invalidations have room of their own in the journal, and
// are refused, before anything is changed, if that room is taken.

// mostOutside bounds the invalidations of all callers outside of the program together: reserved, unconfirmed, and confirmed but not recorded in
// Redis yet. All of them may be confirmed before they are recorded, so the bound is not above the number that is remembered: see mostRecent.
var mostOutside = quota.Use{Entries: 32768, Patterns: 64, Bytes: 16 << 20}

// Resent is the caller of invalidations that are sent again. They stay in the share of the caller that made them. Those of the program itself
// that a server has lost have a share of their own, under this name: they may be as many as are remembered, and the program's own share has no
// room for that.
const Resent = "%resent"

// account is called with the lock held.
func (j *Journal) account(caller, name string, sign int) {
	if caller == "" {
		j.own.Add(name, sign)
	} else if u := quota.Of(name); sign > 0 {
		j.outside.Take(caller, u)
	} else {
		j.outside.Release(caller, u)
	}
}

// full reports whether there is no room for a name of the program. The lock is held.
func (j *Journal) full(name string) bool {
	return !j.own.Plus(quota.Of(name)).Within(quota.Use{Entries: mostUnconfirmed, Patterns: mostPatterns, Bytes: mostUnconfirmedBytes})
}

// Reserve reserves room for an invalidation of a caller, until end is called. An invalidation of the caller counts until it is confirmed and
// recorded in Redis.
func (j *Journal) Reserve(caller string, names []string) (end func(), ok bool) {
	j.mu.Lock()
	all := j.entries[keyspace.All]
	over := all != nil && all.overflow // a further name would invalidate everything once more
	j.mu.Unlock()
	if over {
		return nil, false
	}
	return j.outside.Reserve(mostOutside, caller, quota.Of(names...))
}

// drop takes an entry out. The lock is held.
func (j *Journal) drop(name string, e *unconfirmed) {
	delete(j.entries, name)
	delete(j.patterns, name)
	j.account(e.caller, name, -1)
}

// CallerOf returns in whose share an entry is.
func (j *Journal) CallerOf(name string) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	if e := j.entries[name]; e != nil {
		return e.caller
	}
	return Resent
}
