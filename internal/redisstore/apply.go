package redisstore

import (
	"slices"
)

// apply makes the table from what nodes say.
func (t *topology) apply(views []nodeView) {
	claims, targets, moving := merge(views)
	old, next := t.table.Load(), &table{slots: make([]uint16, slots), moving: moving, named: make(map[string]uint16)}
	var owned []*slotSet
	number := func(addr string) uint16 {
		n, ok := next.named[addr]
		if !ok {
			n = uint16(len(next.addrs))
			next.named[addr] = n
			next.addrs, owned = append(next.addrs, addr), append(owned, new(slotSet))
		}
		return n
	}
	for _, v := range views {
		for _, slot := range v.migrating {
			next.migrating.add(slot)
		}
	}
	for slot, c := range claims {
		if c.addr == "" {
			next.slots[slot] = nobody
			continue
		}
		n := number(c.addr)
		next.slots[slot] = n
		owned[n].add(uint16(slot))
	}
	if len(next.addrs) == 0 {
		return // a node that has forgotten the others, or never knew them
	}
	// A node that is about to get its first slots has keys already, and others redirect to it.
	for _, addr := range targets {
		number(addr)
	}
	for _, v := range views {
		for _, m := range v.members {
			n, ok := next.named[m.addr]
			if !ok {
				continue
			}
			for _, alias := range append(m.others, m.alias) {
				if alias != "" && !slices.Contains(next.addrs, alias) {
					next.named[alias] = n
				}
			}
		}
	}
	t.discovery.known = t.discovery.known[:0]
	for _, v := range views {
		for _, m := range v.members {
			if !slices.Contains(t.discovery.known, m.addr) {
				t.discovery.known = append(t.discovery.known, m.addr)
			}
		}
	}
	if next.same(old) {
		return
	}
	var doubtful, giving, gone []*link
	for i, l := range old.nodes {
		if !slices.Contains(next.addrs, old.addrs[i]) {
			gone = append(gone, l)
		}
	}
	for i, addr := range next.addrs {
		l := old.byAddr(addr)
		if l == nil {
			l = t.newLink(owned[i])
			if len(old.nodes) > 0 {
				l.first.end() // callers need not wait for it
			}
			l.handedOver.Store(len(gone) == 0 && handedOver(old, next, uint16(i)))
			opt := t.options
			opt.ForceSingleClient, opt.InitAddress = true, []string{addr}
			l.open(opt, func(s State) {
				t.notifyNode(addr, s, false)
				t.notifyState()
			})
		} else {
			if before := l.owned.Swap(owned[i]); owned[i].less(before) {
				doubtful = append(doubtful, l)
			}
			if old.migrating.less(next.migrating.of(owned[i])) {
				giving = append(giving, l)
			}
		}
		next.nodes = append(next.nodes, l)
	}
	t.table.Store(next)
	t.firsts.found.end()
	// The keys of a slot that a node no longer has may be changed at another node, and this node pushes nothing. So validities for
	// what was read before the table was changed end here. What is read after that does not come from a node that the table
	// does not name.
	for _, l := range slices.Concat(doubtful, gone) {
		l.lapse()
	}
	for _, l := range giving {
		for _, w := range l.conns() {
			w.lapseMissing()
		}
	}
	for _, l := range gone {
		t.closing.Go(func() {
			l.Close()
			t.notifyNode(l.addr(), State{}, true)
		})
	}
	t.notifyState()
}

// handedOver reports whether all slots of a node come from nodes that are still there and have kept other slots. Then the slots
// have moved key by key, and nothing that was confirmed before is lost. A replica that has replaced its primary has all of its
// slots.
func handedOver(old, next *table, node uint16) bool {
	if old.slots == nil {
		return false
	}
	kept := make(map[string]bool)
	for _, n := range next.slots {
		if n != nobody {
			kept[next.addrs[n]] = true
		}
	}
	for slot, n := range next.slots {
		if before := old.slots[slot]; n == node && (before == nobody || !kept[old.addrs[before]]) {
			return false
		}
	}
	return true
}
