package tags

import "github.com/gatewayz/aside/internal/near"

// A value that is loaded without a lease is not stored in Redis. Redis may still notify this process of changes of its tags.

// Await makes the fences of tags notice changes in Redis though no reply has armed them. It is for a load without Redis, which may well
// notify this process of a change while the load runs.
func (s *Snapshot) Await(names []string) {
	for _, name := range names {
		t := s.State(name)
		t.watch()
		t.Fence.Await()
	}
}

// Tracked reports whether Redis notifies this process of changes of all tags; if not, whether Redis is unavailable for each tag that it does not
// notify of.
func (s *Snapshot) Tracked(names []string) (all, unavailable bool) {
	all, unavailable = true, true
	for _, name := range names {
		t := s.State(name)
		tracked := t.Tracked()
		all, unavailable = all && tracked, unavailable && (tracked || s.registry.CutOff(name, &t.Notice))
	}
	return all, unavailable
}

// Validities appends to list the validities on which an entry with these tags rests. This process must be notified of changes of all the
// tags. Validities reports false if a tag was invalidated.
func (s *Snapshot) Validities(list []*near.Validity, names []string) (_ []*near.Validity, ok bool) {
	for _, name := range names {
		t := s.State(name)
		if t.Generation != nil {
			list = t.Generation.Validities(list)
			continue
		}
		v := s.registry.hold(t)
		if v == nil {
			return nil, false
		}
		list = append(list, v, t.Notice.Validity)
	}
	return list, true
}

// Hold is Validities for tags that this process is not notified of: only what it invalidates itself ends the entry.
func (s *Snapshot) Hold(list []*near.Validity, names []string) (_ []*near.Validity, ok bool) {
	for _, name := range names {
		v := s.registry.hold(s.State(name))
		if v == nil {
			return nil, false
		}
		list = append(list, v)
	}
	return list, true
}

// hold returns a validity that ends when this process invalidates the tag, nil if it has done so since the State was made.
func (r *Registry) hold(t *State) *near.Validity {
	if t.watch(); t.InvalidatedHere() {
		return nil
	}
	return r.near.Hold(t.Fence)
}
