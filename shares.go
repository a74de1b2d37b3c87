package aside

import (
	"context"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/quota"

	"github.com/gatewayz/aside/internal/outside"
)

// The program itself may invalidate without end: where the journal has no room for more, everything is invalidated. Whoever is outside
// of the program, and may not invalidate everything, must not be able to bring that about. So what is done on behalf of such a caller
// has room of its own in the journal, and is refused, before anything is changed, where that is taken.

// mostOutside is what all callers outside of the program have in the journal together: what is reserved, what waits, and what is
// confirmed and not written down yet. All of that may be confirmed before it is written down, so it is no more than is remembered: see
// mostRecent.
var mostOutside = quota.Use{Entries: 32768, Patterns: 64, Bytes: 16 << 20}

// resent is in the place of the caller of what is sent again: it is in the share of whoever has invalidated it first. What the program has
// invalidated and a server has forgotten is in a share of its own: it may be as much as is remembered, which the program's has no room for.
const resent = "%resent"

// account is called with the lock held.
func (j *journal) account(caller, name string, sign int) {
	if caller == "" {
		j.own.Add(name, sign)
	} else if u := quota.Of(name); sign > 0 {
		j.outside.Take(caller, u)
	} else {
		j.outside.Release(caller, u)
	}
}

// full reports whether there is no room for a name of the program's own. The lock is held.
func (j *journal) full(name string) bool {
	return !j.own.Plus(quota.Of(name)).Within(quota.Use{Entries: mostUnconfirmed, Patterns: mostPatterns, Bytes: mostUnconfirmedBytes})
}

// reserve sets room aside for what a caller is about to invalidate: until it is confirmed and that is written down, it counts.
func (j *journal) reserve(caller string, names []string) (end func(), ok bool) {
	j.mu.Lock()
	all := j.entries[keyspace.All]
	over := all != nil && all.others // what comes now would have everything invalidated once more
	j.mu.Unlock()
	if over {
		return nil, false
	}
	return j.outside.Reserve(mostOutside, caller, quota.Of(names...))
}

// drop takes an entry out. The lock is held.
func (j *journal) drop(name string, e *unconfirmed) {
	delete(j.entries, name)
	delete(j.patterns, name)
	j.account(e.caller, name, -1)
}

// callerOf returns in whose share an entry is.
func (j *journal) callerOf(name string) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	if e := j.entries[name]; e != nil {
		return e.caller
	}
	return resent
}

// admit returns on whose behalf names are to be invalidated, and sets room aside until end is called.
func (c *Cache) admit(ctx context.Context, names ...string) (caller string, end func(), err error) {
	if caller = outside.Caller(ctx); caller == "" {
		return "", func() {}, nil
	}
	var rooms []func(caller string, names []string) (end func(), ok bool)
	if c.opts.OnInvalidated != nil {
		rooms = append(rooms, c.told.reserve)
	}
	if c.store != nil {
		rooms = append(rooms, c.sweeps.reserve, c.journal.reserve)
	}
	var reserved []func()
	end = func() {
		for _, end := range reserved {
			end()
		}
	}
	for _, reserve := range rooms {
		one, ok := reserve(caller, names)
		if !ok {
			end()
			const wait = 2 * time.Second
			return "", nil, &Error{
				Code: CodeOverloaded, RetryAfter: wait,
				Message: "there is no room for this, while earlier invalidations are being carried out: nothing was invalidated; send it again a little later, or less of it at once",
			}
		}
		reserved = append(reserved, one)
	}
	return caller, end, nil
}
