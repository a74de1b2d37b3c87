package redisstore

import (
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
)

// A nodeView is what one node of a cluster says of all nodes: CLUSTER NODES, a line each, as its documentation describes it.
type nodeView struct {
	members   []member
	moving    bool     // keys of some slots are moving to or from the node that was asked
	migrating []uint16 // the slots whose keys are moving from the node that was asked
	targets   []string // the nodes to which keys are moving, as far as their addresses are known
}

// knowsSlots reports whether any slot has an owner.
func (v *nodeView) knowsSlots() bool {
	return slices.ContainsFunc(v.members, func(m member) bool { return len(m.ranges) > 0 })
}

// A member is one node of a cluster.
type member struct {
	addr   string
	alias  string   // its other address in redirects, where there is one
	others []string // further addresses
	epoch  uint64   // its configuration epoch: of two nodes that claim a slot, the larger epoch wins
	ranges [][2]uint16
}

// parseNodeView parses the answer of the node at addr. With byName, which is for TLS, nodes are reached by the names that they
// announce, if any: a certificate is issued for a name, as a rule.
func parseNodeView(text, addr string, byName bool) (v nodeView, err error) {
	return parseNodeViewWith(text, addr, byName, endpoints{})
}

// parseNodeViewWith is parseNodeView where the nodes may have to be reached by other addresses than those in CLUSTER NODES.
func parseNodeViewWith(text, addr string, byName bool, wanted endpoints) (v nodeView, err error) {
	var targets []string // by their ids
	places := make(map[string]string)
	// In RESP3 the reply is a verbatim string. rueidis leaves its kind at the beginning.
	for line := range strings.Lines(strings.TrimPrefix(text, "txt:")) {
		fields := strings.Fields(line)
		if len(fields) < 8 {
			return nodeView{}, errors.New("malformed reply to CLUSTER NODES")
		}
		var m member
		if m.addr, m.alias, err = parseAddr(fields[1], addr, byName); err != nil {
			return nodeView{}, err
		}
		wanted.apply(&m, fields[0], addr, byName)
		if m.epoch, err = strconv.ParseUint(fields[6], 10, 64); err != nil {
			return nodeView{}, errors.New("malformed epoch in a reply to CLUSTER NODES")
		}
		for _, field := range fields[8:] {
			if strings.HasPrefix(field, "[") { // [slot->-node] and [slot-<-node]
				v.moving = true
				if slot, id, ok := strings.Cut(strings.Trim(field, "[]"), "->-"); ok {
					targets = append(targets, id)
					if n, err := strconv.ParseUint(slot, 10, 16); err == nil && n < slots {
						v.migrating = append(v.migrating, uint16(n))
					}
				} else {
					targets = append(targets, fields[0])
				}
				continue
			}
			first, last, ok := strings.Cut(field, "-")
			if !ok {
				last = first
			}
			from, err := strconv.ParseUint(first, 10, 16)
			to, err2 := strconv.ParseUint(last, 10, 16)
			if err != nil || err2 != nil || from > to || to >= slots {
				return nodeView{}, errors.New("malformed slots in a reply to CLUSTER NODES")
			}
			m.ranges = append(m.ranges, [2]uint16{uint16(from), uint16(to)})
		}
		if !strings.Contains(fields[2], "noaddr") {
			v.members = append(v.members, m)
			places[fields[0]] = m.addr
		}
	}
	for _, id := range targets {
		if at, ok := places[id]; ok {
			v.targets = append(v.targets, at)
		}
	}
	if len(v.members) == 1 {
		v.members[0].addr, v.targets = addr, nil // a single node is reached at the address where it was asked
	}
	return v, nil
}

// parseAddr parses ip:port@busport[,name]. A node that does not know its own address yet leaves it out: it is the node that was
// asked. A node with a name has an alias: whether nodes redirect by address or by name is a setting of theirs.
func parseAddr(text, asked string, byName bool) (addr, alias string, err error) {
	text, names, _ := strings.Cut(text, ",")
	text, _, _ = strings.Cut(text, "@")
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return "", "", errors.New("malformed address in a reply to CLUSTER NODES")
	}
	host, port := text[:i], text[i+1:]
	if host == "" {
		host, _, _ = net.SplitHostPort(asked)
	}
	addr = net.JoinHostPort(host, port)
	if name, _, _ := strings.Cut(names, ","); name != "" && !strings.Contains(name, "=") {
		if alias = net.JoinHostPort(name, port); byName {
			addr, alias = alias, addr
		}
	}
	return addr, alias, nil
}

// A slotClaim is the best known claim to a slot.
type slotClaim struct {
	addr  string
	epoch uint64
}

// merge decides which node has each slot, as the nodes themselves do when they hear of each other.
func merge(views []nodeView) (claims *[slots]slotClaim, targets []string, moving bool) {
	claims = new([slots]slotClaim)
	for _, v := range views {
		moving, targets = moving || v.moving, append(targets, v.targets...)
		for _, m := range v.members {
			for _, r := range m.ranges {
				for slot := int(r[0]); slot <= int(r[1]); slot++ {
					if c := &claims[slot]; c.addr == "" || m.epoch > c.epoch {
						*c = slotClaim{m.addr, m.epoch}
					}
				}
			}
		}
	}
	return claims, targets, moving
}
