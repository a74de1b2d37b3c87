package redisstore

import (
	"slices"
	"strings"
)

// slots is how many hash slots a cluster divides its keys into.
const slots = 16384

// slotOf is the slot of a name: the CRC16 (XMODEM) of the text between its first pair of braces, if there is any, or else of the
// whole name.
func slotOf(name string) uint16 {
	if i := strings.IndexByte(name, '{'); i >= 0 {
		if n := strings.IndexByte(name[i+1:], '}'); n > 0 {
			name = name[i+1 : i+1+n]
		}
	}
	var crc uint16
	for i := range len(name) {
		crc = crc<<8 ^ crcTable[byte(crc>>8)^name[i]]
	}
	return crc % slots
}

var crcTable = func() (t [256]uint16) {
	for i := range t {
		crc := uint16(i) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
		t[i] = crc
	}
	return t
}()

// A slotSet is a set of slots.
type slotSet [slots / 64]uint64

func (s *slotSet) add(slot uint16)      { s[slot/64] |= 1 << (slot % 64) }
func (s *slotSet) has(slot uint16) bool { return s[slot/64]&(1<<(slot%64)) != 0 }

// full reports whether s has all slots.
func (s *slotSet) full() bool {
	for _, part := range s {
		if part != ^uint64(0) {
			return false
		}
	}
	return true
}

// of is the intersection of s and other.
func (s *slotSet) of(other *slotSet) *slotSet {
	both := new(slotSet)
	for i := range s {
		both[i] = s[i] & other[i]
	}
	return both
}

func (s *slotSet) empty() bool { return *s == slotSet{} }

// less reports whether s lacks a slot that other has.
func (s *slotSet) less(other *slotSet) bool {
	for i := range s {
		if other[i]&^s[i] != 0 {
			return true
		}
	}
	return false
}

// nobody is the number of no node.
const nobody = ^uint16(0)

// A table says which node has which slot. It is never changed: a new table replaces it.
type table struct {
	nodes     []*link // those with slots, or about to get some, or the one server that has all
	addrs     []string
	named     map[string]uint16 // the number of each node by its addresses in redirects
	slots     []uint16          // the number of each slot's node, or nobody; nil where one server has all, or nothing is known
	migrating slotSet           // the slots whose keys are moving away from their nodes
	moving    bool              // keys of some slots are moving from one node to another
}

// only is the server that has all slots, nil in a cluster.
func (t *table) only() *link {
	if t.slots == nil && len(t.nodes) == 1 {
		return t.nodes[0]
	}
	return nil
}

// sole is the only server, in a cluster or not; nil if there are several, or none is known.
func (t *table) sole() *link {
	if len(t.nodes) == 1 {
		return t.nodes[0]
	}
	return nil
}

// of is the node that has name, nil if there is none.
func (t *table) of(name string) *link {
	if t.slots == nil {
		return t.only()
	}
	if n := t.slots[slotOf(name)]; n != nobody {
		return t.nodes[n]
	}
	return nil
}

// migrates reports whether the slot of name is moving away from its node. A key that is missing there is at another node, or will
// be created there.
func (t *table) migrates(name string) bool { return t.moving && t.migrating.has(slotOf(name)) }

// redirectTarget is the node with this address in a redirect, nil if it is not known.
func (t *table) redirectTarget(addr string) *link {
	if n, ok := t.named[addr]; ok {
		return t.nodes[n]
	}
	return nil
}

// byAddr is the node with an address, nil if there is none.
func (t *table) byAddr(addr string) *link {
	for i, a := range t.addrs {
		if a == addr {
			return t.nodes[i]
		}
	}
	return nil
}

// complete reports whether every slot has a node.
func (t *table) complete() bool {
	if t.slots == nil {
		return len(t.nodes) == 1
	}
	for _, n := range t.slots {
		if n == nobody {
			return false
		}
	}
	return true
}

// same reports whether t and other have the same nodes and the same owner of every slot.
func (t *table) same(other *table) bool {
	if t.moving != other.moving || t.migrating != other.migrating || len(t.slots) != len(other.slots) || len(t.addrs) != len(other.addrs) {
		return false
	}
	for _, addr := range t.addrs {
		if !slices.Contains(other.addrs, addr) {
			return false
		}
	}
	for slot, n := range t.slots {
		m := other.slots[slot]
		if (n == nobody) != (m == nobody) || n != nobody && t.addrs[n] != other.addrs[m] {
			return false
		}
	}
	return true
}
