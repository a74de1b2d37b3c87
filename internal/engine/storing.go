package engine

import "sync"

// A storing is a fill under way. Callers that ask for one of its values wait for its end.
type storing struct {
	over chan struct{} // closed when the values are in memory too, or will not be; nil while nobody waits; guarded by the lock of storings
	err  error         // why Redis did not confirm the fill; written before over is closed
}

// storings are the fills under way, by the keys of their values.
type storings struct {
	mu    sync.Mutex
	byKey map[string]*storing // guarded by mu
}

// begin notes a fill of attempts.
func (s *storings) begin(u *storing, attempts []*attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byKey == nil {
		s.byKey = make(map[string]*storing)
	}
	for _, a := range attempts {
		s.byKey[a.Key] = u
	}
}

// end wakes those that wait for a fill.
func (s *storings) end(u *storing, attempts []*attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range attempts {
		if s.byKey[a.Key] == u {
			delete(s.byKey, a.Key)
		}
	}
	if u.over != nil {
		close(u.over)
	}
}

// of returns the fill of key that is under way, nil if there is none, and a channel that is closed when it ends.
func (s *storings) of(key string) (u *storing, over <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u = s.byKey[key]; u == nil {
		return nil, nil
	}
	if u.over == nil {
		u.over = make(chan struct{})
	}
	return u, u.over
}
