package redisstore

import "time"

// A Node is one server, as this process sees it.
type Node struct {
	Addr    string // empty while Sentinels have not named the server
	State   State
	Tracked bool // it pushes changes of the keys that were read, or is taken for a server that does

	// Offset is how far its clock is before this process's, Within how far off Offset may be: 0 if the server's clock was not read yet.
	Offset, Within time.Duration

	Trips [TripCauses]uint64 // how often callers were not sent to it any more, by cause
}

// Nodes returns the servers that this process uses: one, or the primaries of a cluster. It returns none while nothing is known of the cluster.
func (t *topology) Nodes() (all []Node) {
	for _, l := range t.table.Load().nodes {
		n := Node{Addr: l.addr(), State: l.State(), Tracked: l.Tracked()}
		n.Offset, n.Within = l.clock.offset()
		n.Trips = l.tripsOf(n.Addr)
		all = append(all, n)
	}
	return all
}

// tripsOf are the trips while the link has gone to an address.
func (l *link) tripsOf(addr string) [TripCauses]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.trips.of(addr)
}

// addr is the address of the server.
func (l *link) addr() string {
	if s := l.latest.Load(); s != nil && s.primary != "" {
		return s.primary
	}
	switch {
	case len(l.addrs) > 0:
		return l.addrs[int(l.at.Load())%len(l.addrs)]
	case l.options.Sentinel.MasterSet != "":
		return ""
	}
	return l.options.InitAddress[0]
}
