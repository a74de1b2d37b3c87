package tags

import "github.com/gatewayz/aside/internal/near"

// What is loaded without a lease is not stored in Redis. Redis may all the same notify this process of changes of its tags.

// Await makes the fences of tags notice changes in Redis though no reply has armed them. It is for a load without Redis, which may well
// notify this process of a change while the load runs.
func (s *Snapshot) Await(names []string) {
	for _, name := range names {
		s.State(name).Fence.Await()
	}
}

// Tracked reports whether this process is notified of changes of all of tags; if not, whether Redis is away for all those that it is not
// notified of.
func (s *Snapshot) Tracked(names []string) (all, away bool) {
	all, away = true, true
	for _, name := range names {
		t := s.State(name)
		tracked := t.Tracked()
		all, away = all && tracked, away && (tracked || s.registry.CutOff(name, &t.Notice))
	}
	return all, away
}

// Vouchers appends to list what an entry with these tags rests on, all of which this process is notified of. It reports false if one of
// them was invalidated.
func (s *Snapshot) Vouchers(list []*near.Voucher, names []string) (_ []*near.Voucher, ok bool) {
	for _, name := range names {
		t := s.State(name)
		if t.Generation != nil {
			list = t.Generation.Vouchers(list)
			continue
		}
		v := s.registry.near.Hold(t.Fence)
		if v == nil {
			return nil, false
		}
		list = append(list, v, t.Notice.Voucher)
	}
	return list, true
}

// Hold is Vouchers for tags that this process is not notified of: only what it invalidates itself ends the entry.
func (s *Snapshot) Hold(list []*near.Voucher, names []string) (_ []*near.Voucher, ok bool) {
	for _, name := range names {
		v := s.registry.near.Hold(s.State(name).Fence)
		if v == nil {
			return nil, false
		}
		list = append(list, v)
	}
	return list, true
}
