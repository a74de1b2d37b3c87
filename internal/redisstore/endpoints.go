package redisstore

import (
	"net"
	"strconv"

	"github.com/redis/rueidis"
)

// Nodes of a cluster may be reached by other addresses than those that they have among themselves, which CLUSTER NODES tells: by
// names (cluster-preferred-endpoint-type hostname), or by the address that was asked, with a port for each (unknown-endpoint).
// CLUSTER SLOTS tells clients what to use, as far as a node has slots.
type endpoints struct {
	of    map[string]string // addresses, by the ids of the nodes
	named bool              // some have a name there
	asked bool              // of some it says that they are where it was asked
}

// parseEndpoints reads what the node at addr answers to CLUSTER SLOTS. What it cannot read it leaves out: CLUSTER NODES has it too.
func parseEndpoints(r rueidis.RedisResult, addr string) (e endpoints) {
	host, _, _ := net.SplitHostPort(addr)
	ranges, _ := r.ToArray()
	for _, entry := range ranges {
		parts, _ := entry.ToArray()
		for _, node := range parts[min(2, len(parts)):] {
			fields, _ := node.ToArray()
			if len(fields) < 3 {
				continue // before version 4 nodes have no ids there
			}
			name, _ := fields[0].ToString()
			port, err := fields[1].AsInt64()
			id, _ := fields[2].ToString()
			switch {
			case err != nil || id == "" || name == "?": // it wants to be called by a name, and has none
				continue
			case name == "": // nothing, or nil
				e.asked, name = true, host
			case net.ParseIP(name) == nil:
				e.named = true
			}
			if e.of == nil {
				e.of = make(map[string]string)
			}
			e.of[id] = net.JoinHostPort(name, strconv.FormatInt(port, 10))
		}
	}
	return e
}

// apply has m called as it wants to be. What it was called by until then, it may still be called by others: they point to each other
// by either. Where names are preferred for the sake of certificates, a name stays.
func (e endpoints) apply(m *member, id, asked string, byName bool) {
	_, port, _ := net.SplitHostPort(m.addr)
	to, ok := e.of[id]
	switch {
	case byName && m.alias != "":
		return
	case ok:
	case e.asked: // it has no slots, as the target of the first one that moves
		host, _, _ := net.SplitHostPort(asked)
		to = net.JoinHostPort(host, port)
	case e.named && m.alias != "":
		to = m.alias
	default:
		return
	}
	if e.asked {
		_, port, _ = net.SplitHostPort(to)
		m.others = append(m.others, ":"+port)
	}
	if to == m.addr {
		return
	}
	m.others = append(m.others, m.addr)
	m.addr = to
}

// differ reports whether a node wants to be called otherwise than in a view without them.
func (e endpoints) differ(v nodeView) bool {
	known := make(map[string]bool, len(v.members))
	for _, m := range v.members {
		known[m.addr] = true
	}
	for _, addr := range e.of {
		if !known[addr] {
			return true
		}
	}
	return e.asked // what points to them has no host
}
