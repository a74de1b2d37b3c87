package redisstore

import (
	"net"
	"strconv"

	"github.com/redis/rueidis"
)

// endpoints are the addresses that clients are to use, which CLUSTER SLOTS says for nodes with slots. They may differ from those
// in CLUSTER NODES: names (cluster-preferred-endpoint-type hostname), or the address that was asked with a port for each node
// (unknown-endpoint).
type endpoints struct {
	of    map[string]string // addresses, by the ids of the nodes
	named bool              // some are names
	asked bool              // some nodes are at the host that was asked
}

// parseEndpoints parses the answer of the node at addr to CLUSTER SLOTS. It leaves out what it cannot parse: CLUSTER NODES says it
// too.
func parseEndpoints(r rueidis.RedisResult, addr string) (e endpoints) {
	host, _, _ := net.SplitHostPort(addr)
	ranges, _ := r.ToArray()
	for _, entry := range ranges {
		parts, _ := entry.ToArray()
		for _, node := range parts[min(2, len(parts)):] {
			fields, _ := node.ToArray()
			if len(fields) < 3 {
				continue // before version 4 there are no ids
			}
			name, _ := fields[0].ToString()
			port, err := fields[1].AsInt64()
			id, _ := fields[2].ToString()
			switch {
			case err != nil || id == "" || name == "?": // it prefers a name, and has none
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

// apply sets the address of m to its endpoint. Its former address becomes an alias: nodes redirect by either. Where names are
// preferred for certificates, a name stays.
func (e endpoints) apply(m *member, id, asked string, byName bool) {
	_, port, _ := net.SplitHostPort(m.addr)
	to, ok := e.of[id]
	switch {
	case byName && m.alias != "":
		return
	case ok:
	case e.asked: // it has no slots, as the target of a first slot that moves
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

// differ reports whether a node's endpoint differs from its address in a view without endpoints.
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
	return e.asked // redirects to them have no host
}
