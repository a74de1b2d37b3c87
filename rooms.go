package aside

import (
	"maps"
	"strings"
	"sync"

	"github.com/gatewayz/aside/internal/keyspace"
)

// A use is how much of something is taken, or reserved, on behalf of one caller or several.
type use struct{ entries, patterns, bytes int }

// useOf is what names take in the journal.
func useOf(names ...string) (u use) {
	for _, name := range names {
		u.add(name, 1)
	}
	return u
}

func (u *use) add(name string, sign int) {
	u.entries += sign
	u.bytes += sign * len(name)
	if strings.HasPrefix(name, keyspace.PatternPrefix) {
		u.patterns += sign
	}
}

func (u use) plus(v use) use {
	return use{u.entries + v.entries, u.patterns + v.patterns, u.bytes + v.bytes}
}
func (u use) minus(v use) use {
	return use{u.entries - v.entries, u.patterns - v.patterns, u.bytes - v.bytes}
}

// within reports whether no part of u is larger than that of v.
func (u use) within(v use) bool {
	return u.entries <= v.entries && u.patterns <= v.patterns && u.bytes <= v.bytes
}

// A room counts what callers outside of the program have taken of something, together and each of them. What the program itself takes
// is not counted.
type room struct {
	mu  sync.Mutex
	all use            // guarded by mu
	by  map[string]use // by caller, without those that have nothing; guarded by mu
}

func (r *room) take(caller string, u use) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.takeLocked(caller, u)
}

func (r *room) takeLocked(caller string, u use) {
	if caller == "" {
		return
	}
	r.all = r.all.plus(u)
	own := r.by[caller].plus(u)
	if own == (use{}) {
		delete(r.by, caller)
		return
	}
	if r.by == nil {
		r.by = make(map[string]use)
	}
	r.by[caller] = own
}

func (r *room) giveBack(caller string, u use) { r.take(caller, use{}.minus(u)) }

// reserve sets aside what a caller is about to take of what all of them may have, until end is called. There is room for what is no more than
// what is left to all others then: so one caller takes a half at most, and the next one still finds a half of the rest.
func (r *room) reserve(most use, caller string, more use) (end func(), ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	own, left := r.by[caller].plus(more), most.minus(r.all.plus(more))
	if more.patterns == 0 { // those that the caller has are no hindrance to what is none
		own.patterns, left.patterns = 0, 0
	}
	if !own.within(left) {
		return nil, false
	}
	r.takeLocked(caller, more)
	return sync.OnceFunc(func() { r.giveBack(caller, more) }), true
}

// taken is what each caller has, and what all have.
func (r *room) taken() (by map[string]use, all use) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.by), r.all
}
