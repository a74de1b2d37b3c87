package aside

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/gatewayz/aside/internal/outside"
)

// The program itself may invalidate without end: where the journal has no room for more, everything is invalidated. Whoever is outside
// of the program, and may not invalidate everything, must not be able to bring that about. So what is done on behalf of such a caller
// has room of its own in the journal, and is refused, before anything is changed, where that is taken.

// A use is how much of the journal is taken, or reserved, on behalf of one caller.
type use struct{ entries, patterns, bytes int }

func (u *use) add(name string, sign int) {
	u.entries += sign
	u.bytes += sign * len(name)
	if strings.HasPrefix(name, patternName) {
		u.patterns += sign
	}
}

// within reports whether no part of u is larger than that of v.
func (u use) within(v use) bool {
	return u.entries <= v.entries && u.patterns <= v.patterns && u.bytes <= v.bytes
}

// mostOutside is what all callers outside of the program have in the journal together.
var mostOutside = use{entries: 32768, patterns: 64, bytes: 16 << 20}

// resent is in the place of the caller of what is sent again: it is in the share of whoever has invalidated it first. Of what a server has
// forgotten nobody knows any more who that was, so it does not count as the program's.
const resent = "%resent"

// account is called with the lock held.
func (j *journal) account(caller, name string, sign int) {
	u := j.uses[caller]
	if u == nil {
		u = &use{}
		j.uses[caller] = u
	}
	if u.add(name, sign); *u == (use{}) {
		delete(j.uses, caller)
	}
	if caller != "" {
		j.outside.add(name, sign)
	}
}

// full reports whether there is no room for a name of the program's own. The lock is held.
func (j *journal) full(name string) bool {
	u := j.uses[""]
	if u == nil {
		return false
	}
	more := *u
	more.add(name, 1)
	return !more.within(use{mostUnconfirmed, mostPatterns, mostUnconfirmedBytes})
}

// reserve sets room aside for what a caller is about to invalidate, which Redis may not confirm. There is room for what is no more than
// what is left to all others then: so one caller takes a half at most, and the next one still finds a half of the rest.
func (j *journal) reserve(caller string, names []string) (end func(), ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if all := j.entries[tagAll]; all != nil && all.others { // what comes now would have everything invalidated once more
		return nil, false
	}
	// Of what is confirmed, the last names are kept until they are written down. A server that had forgotten more than those would
	// have everything invalidated.
	// One caller has a half of those at most, and the next one still finds a half of the rest.
	if n := uint64(len(names)); j.ahead.of(caller)+n+j.count-min(j.marked, j.count)+n > mostRecent {
		return nil, false
	}
	var own use
	if u := j.uses[caller]; u != nil {
		own = *u
	}
	left := j.outside
	for _, name := range names {
		own.add(name, 1)
		left.add(name, 1)
	}
	left = use{mostOutside.entries - left.entries, mostOutside.patterns - left.patterns, mostOutside.bytes - left.bytes}
	if own.patterns == 0 {
		left.patterns = 0
	}
	if !own.within(left) {
		return nil, false
	}
	for _, name := range names {
		j.account(caller, name, 1)
	}
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		for _, name := range names {
			j.account(caller, name, -1)
		}
	}, true
}

// drop takes an entry out. The lock is held.
func (j *journal) drop(name string, e *unconfirmed) {
	delete(j.entries, name)
	delete(j.patterns, name)
	j.account(e.caller, name, -1)
}

// forgetOldest bounds what is kept of the confirmed invalidations. The lock is held.
func (j *journal) forgetOldest() {
	n := len(j.recent)
	if n <= 2*mostRecent && j.bytes <= mostRecentBytes {
		return
	}
	from := n
	for j.bytes = 0; from > 0 && n-from < mostRecent && j.bytes+len(j.recent[from-1]) <= mostRecentBytes/2; from-- {
		j.bytes += len(j.recent[from-1])
	}
	j.recent = slices.Clone(j.recent[from:])
}

// wrote notes that Redis has written down how many invalidations are confirmed.
func (j *journal) wrote(mark uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if mark > j.marked {
		j.ahead.forget(min(mark, j.count) - min(j.marked, j.count))
		j.marked = mark
	}
}

// admit returns on whose behalf names are to be invalidated, and sets room aside until end is called.
func (c *Cache) admit(ctx context.Context, names ...string) (caller string, end func(), err error) {
	if caller = outside.Caller(ctx); caller == "" {
		return "", func() {}, nil
	}
	end, ok := func() {}, !c.told.behind()
	if ok && c.store != nil {
		if ok = !c.sweeps.behind(); ok {
			end, ok = c.journal.reserve(caller, names)
		}
	}
	if !ok {
		const wait = 2 * time.Second
		return "", nil, &Error{
			Code: CodeOverloaded, RetryAfter: wait,
			Message: "there is no room for this, while earlier invalidations are being carried out: nothing was invalidated; send it again a little later, or less of it at once",
		}
	}
	return caller, end, nil
}
