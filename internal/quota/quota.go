// Package quota bounds what callers outside of the program may take of something that all of them share: the journal, the tags that
// wait to be swept, the notifications that wait to be delivered.
package quota

import (
	"maps"
	"strings"
	"sync"

	"github.com/gatewayz/aside/internal/keyspace"
)

// A Use is how much of something is taken, or reserved, on behalf of one caller or several.
type Use struct{ Entries, Patterns, Bytes int }

// Of is what names take in the journal.
func Of(names ...string) (u Use) {
	for _, name := range names {
		u.Add(name, 1)
	}
	return u
}

// Add adds the use of one name, or subtracts it where sign is -1.
func (u *Use) Add(name string, sign int) {
	u.Entries += sign
	u.Bytes += sign * len(name)
	if strings.HasPrefix(name, keyspace.PatternPrefix) {
		u.Patterns += sign
	}
}

// Plus is the sum of both.
func (u Use) Plus(v Use) Use {
	return Use{u.Entries + v.Entries, u.Patterns + v.Patterns, u.Bytes + v.Bytes}
}

func (u Use) minus(v Use) Use {
	return Use{u.Entries - v.Entries, u.Patterns - v.Patterns, u.Bytes - v.Bytes}
}

// Within reports whether no part of u is larger than that of v.
func (u Use) Within(v Use) bool {
	return u.Entries <= v.Entries && u.Patterns <= v.Patterns && u.Bytes <= v.Bytes
}

// Shares counts what callers outside of the program have taken of something, together and each of them. It does not count what the
// program itself takes. The zero value is ready.
type Shares struct {
	mu  sync.Mutex
	all Use            // guarded by mu
	by  map[string]Use // by caller, without those that have nothing; guarded by mu
}

// Take notes that a caller has taken something. The empty caller is the program itself.
func (s *Shares) Take(caller string, u Use) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.take(caller, u)
}

// take is called with the lock held.
func (s *Shares) take(caller string, u Use) {
	if caller == "" {
		return
	}
	s.all = s.all.Plus(u)
	own := s.by[caller].Plus(u)
	if own == (Use{}) {
		delete(s.by, caller)
		return
	}
	if s.by == nil {
		s.by = make(map[string]Use)
	}
	s.by[caller] = own
}

// Release undoes Take.
func (s *Shares) Release(caller string, u Use) { s.Take(caller, Use{}.minus(u)) }

// Reserve sets aside what a caller is going to take, until end is called. All callers together may take most. Reserve refuses where the
// caller would have more than it leaves to all others. So one caller takes a half at most, and the next caller still finds a half of the
// rest.
func (s *Shares) Reserve(most Use, caller string, more Use) (end func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own, left := s.by[caller].Plus(more), most.minus(s.all.Plus(more))
	if more.Patterns == 0 { // the caller's patterns do not keep it from invalidating keys and tags
		own.Patterns, left.Patterns = 0, 0
	}
	if !own.Within(left) {
		return nil, false
	}
	s.take(caller, more)
	return sync.OnceFunc(func() { s.Release(caller, more) }), true
}

// Taken is what each caller has, and what all have.
func (s *Shares) Taken() (by map[string]Use, all Use) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.by), s.all
}
