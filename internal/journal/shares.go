package journal

import (
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/quota"
)

// The program itself may invalidate without end: where the journal has no room for more, everything is invalidated. A caller outside of
// the program may not invalidate everything, so it must not be able to bring that about. What is invalidated on behalf of such a caller
// has room of its own in the journal, and is refused, before anything is changed, where that room is taken.

// mostOutside is what all callers outside of the program have in the journal together: what is reserved, what waits, and what is
// confirmed and not recorded in Redis yet. All of that may be confirmed before it is recorded, so it is no more than is remembered: see
// mostRecent.
var mostOutside = quota.Use{Entries: 32768, Patterns: 64, Bytes: 16 << 20}

// Resent is in the place of the caller of what is sent again, which is in the share of the caller who has invalidated it first. What the
// program has invalidated and a server has forgotten is in a share of its own, under this name: it may be as much as is remembered, and
// the program's own share has no room for that.
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

// full reports whether there is no room for a name of the program's own. The lock is held.
func (j *Journal) full(name string) bool {
	return !j.own.Plus(quota.Of(name)).Within(quota.Use{Entries: mostUnconfirmed, Patterns: mostPatterns, Bytes: mostUnconfirmedBytes})
}

// Reserve sets room aside for what a caller is going to invalidate, until end is called. What the caller has invalidated counts until it
// is confirmed and that is recorded in Redis.
func (j *Journal) Reserve(caller string, names []string) (end func(), ok bool) {
	j.mu.Lock()
	all := j.entries[keyspace.All]
	over := all != nil && all.overflow // a further name would have everything invalidated once more
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
