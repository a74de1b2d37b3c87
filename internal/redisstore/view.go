package redisstore

import (
	"errors"
	"net"
	"strconv"
	"strings"
)

// A view is what one node of a cluster says of all: CLUSTER NODES, a line each, as its documentation describes it.
type view struct {
	members []member
	moving  bool // keys of some slots are on their way to or from the node that was asked
}

// A member is one node of a cluster.
type member struct {
	addr   string
	epoch  uint64 // its configuration epoch: of two nodes that claim a slot, the one with the larger epoch has it
	ranges [][2]uint16
}

// parseView reads a view of the node at addr. Where nodes have names that they want to be called by and the connection is by TLS,
// those are used: a certificate is made out to a name, as a rule.
func parseView(text, addr string, byName bool) (v view, err error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 8 {
			return view{}, errors.New("malformed reply to CLUSTER NODES")
		}
		var m member
		if m.addr, err = parseAddr(fields[1], addr, byName); err != nil {
			return view{}, err
		}
		if m.epoch, err = strconv.ParseUint(fields[6], 10, 64); err != nil {
			return view{}, errors.New("malformed epoch in a reply to CLUSTER NODES")
		}
		for _, field := range fields[8:] {
			if strings.HasPrefix(field, "[") { // [slot->-node] and [slot-<-node]
				v.moving = true
				continue
			}
			first, last, ok := strings.Cut(field, "-")
			if !ok {
				last = first
			}
			from, err := strconv.ParseUint(first, 10, 16)
			to, err2 := strconv.ParseUint(last, 10, 16)
			if err != nil || err2 != nil || from > to || to >= slots {
				return view{}, errors.New("malformed slots in a reply to CLUSTER NODES")
			}
			m.ranges = append(m.ranges, [2]uint16{uint16(from), uint16(to)})
		}
		if !strings.Contains(fields[2], "noaddr") {
			v.members = append(v.members, m)
		}
	}
	if len(v.members) == 1 {
		v.members[0].addr = addr // who is alone is found where it was asked, whatever it is called
	}
	return v, nil
}

// parseAddr reads ip:port@busport[,name]. A node that nobody has told its own address yet leaves it out: it is the one that was asked.
func parseAddr(text, asked string, byName bool) (string, error) {
	text, names, _ := strings.Cut(text, ",")
	text, _, _ = strings.Cut(text, "@")
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return "", errors.New("malformed address in a reply to CLUSTER NODES")
	}
	host, port := text[:i], text[i+1:]
	if name, _, _ := strings.Cut(names, ","); byName && name != "" && !strings.Contains(name, "=") {
		host = name
	}
	if host == "" {
		host, _, _ = net.SplitHostPort(asked)
	}
	return net.JoinHostPort(host, port), nil
}

// A claim is the best that is known of who has a slot.
type claim struct {
	addr  string
	epoch uint64
}

// merge decides who has each slot, as the nodes themselves do when they hear of each other.
func merge(views []view) (claims *[slots]claim, moving bool) {
	claims = new([slots]claim)
	for _, v := range views {
		moving = moving || v.moving
		for _, m := range v.members {
			for _, r := range m.ranges {
				for slot := int(r[0]); slot <= int(r[1]); slot++ {
					if c := &claims[slot]; c.addr == "" || m.epoch > c.epoch {
						*c = claim{m.addr, m.epoch}
					}
				}
			}
		}
	}
	return claims, moving
}
