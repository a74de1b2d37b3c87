package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/gatewayz/aside/internal/redistest"
)

// cluster is a Redis Cluster of three primaries and their replicas. None of them keeps anything on disk.
type cluster struct {
	t       testing.TB
	nodes   *redistest.Cluster
	proxies []*redistest.Proxy // of all nodes, only before the first worker
	via     map[string]string  // by the address of the node
}

func newCluster(t testing.TB, _ bool) topology {
	c := &cluster{t: t, nodes: redistest.StartCluster(t), via: map[string]string{}}
	for _, s := range c.nodes.Nodes() {
		p := c.nodes.Proxy(s)
		p.SetDelay(distance)
		c.proxies = append(c.proxies, p)
		c.via[s.Addr()] = p.Addr()
	}
	return c
}

func (c *cluster) addresses(int) []string { return c.nodes.Addrs() }

func (c *cluster) detours(role int) map[string]string {
	if role == 0 {
		return c.via
	}
	return nil
}

func (c *cluster) single() bool { return false }

func (c *cluster) tidy() {
	for _, p := range c.proxies {
		p.ResetCounts()
	}
}

// Faults with which a cluster may lose what it has confirmed: another node takes over that was not told of it yet. Replication
// is asynchronous.
const (
	faultTakeover = "takeover"
	faultDead     = "primary killed"
	faultHung     = "primary hung"
)

func (c *cluster) faults() []nemesis {
	at := func(do func(random *rand.Rand)) func(random *rand.Rand) func() {
		return func(random *rand.Rand) func() { do(random); return nil }
	}
	primary := func(random *rand.Rand) *redistest.Server {
		all := c.nodes.Primaries()
		return all[random.IntN(len(all))]
	}
	all := func(args ...string) {
		for _, s := range c.nodes.Primaries() {
			if _, err := s.Do(args...); err != nil {
				c.t.Errorf("checker: %s: %v", args[0], err)
			}
		}
	}
	return []nemesis{
		{"clients killed", 0, at(func(*rand.Rand) { all("CLIENT", "KILL", "TYPE", "normal") })},
		{"flushed", 0, at(func(*rand.Rand) { all("FLUSHALL") })},
		{"slots moved", 0, at(c.moveSlots)},
		{"slots moved again", 0, at(c.moveSlots)},
		{"slot slow to move", time.Second, c.moveSlowly},
		{"promotion", 0, at(func(random *rand.Rand) {
			c.nodes.Promote(c.nodes.ReplicaOf(primary(random)))
			c.nodes.WaitOK()
		})},
		{faultTakeover, 0, at(func(random *rand.Rand) {
			c.nodes.Takeover(c.nodes.ReplicaOf(primary(random)))
			c.nodes.WaitOK()
		})},
		{faultDead, 3 * time.Second, func(random *rand.Rand) func() {
			s := primary(random)
			s.Kill()
			return func() { s.Restart(); c.nodes.WaitOK() }
		}},
		{faultHung, 4 * time.Second, func(random *rand.Rand) func() {
			s := primary(random)
			s.Pause()
			return func() { s.Resume(); c.nodes.WaitOK() }
		}},
		{"tracking table full", time.Second, func(*rand.Rand) func() {
			all("CONFIG", "SET", "tracking-table-max-keys", "1")
			return func() { all("CONFIG", "SET", "tracking-table-max-keys", "1000000") }
		}},
	}
}

// move is a slot that has a key, and a primary that is to get it.
func (c *cluster) move(random *rand.Rand) (slot int, to *redistest.Server) {
	slot = redistest.Slot(keyName(random.IntN(keyCount)))
	primaries := c.nodes.Primaries()
	at := slices.Index(primaries, c.nodes.OwnerOf(slot))
	return slot, primaries[(at+1+random.IntN(len(primaries)-1))%len(primaries)]
}

func (c *cluster) moveSlots(random *rand.Rand) {
	for range 3 {
		slot, to := c.move(random)
		c.nodes.MigrateSlot(slot, to)
	}
}

func (c *cluster) moveSlowly(random *rand.Rand) func() {
	slot, to := c.move(random)
	m := c.nodes.BeginMigration(slot, to)
	return m.Finish
}

func (c *cluster) ways() []nemesis {
	each := func(do func(p *redistest.Proxy)) {
		for _, p := range c.proxies {
			do(p)
		}
	}
	return []nemesis{
		{"partition", 4 * time.Second, func(*rand.Rand) func() {
			each(func(p *redistest.Proxy) { p.Blackhole(true) })
			return func() { each(func(p *redistest.Proxy) { p.Blackhole(false) }) }
		}},
		{"partition from one node", 4 * time.Second, func(random *rand.Rand) func() {
			p := c.proxies[random.IntN(len(c.proxies))]
			p.Blackhole(true)
			return func() { p.Blackhole(false) }
		}},
		{"replies lost", 4 * time.Second, func(*rand.Rand) func() {
			each(func(p *redistest.Proxy) { p.BlackholeReplies(true) })
			return func() { each(func(p *redistest.Proxy) { p.BlackholeReplies(false) }) }
		}},
		{"slow", 2 * time.Second, func(random *rand.Rand) func() {
			delay := time.Duration(1+random.Int64N(300)) * time.Millisecond
			each(func(p *redistest.Proxy) { p.SetDelay(delay) })
			return func() { each(func(p *redistest.Proxy) { p.SetDelay(distance) }) }
		}},
		{"cut", 0, func(*rand.Rand) func() { each((*redistest.Proxy).CloseConnections); return nil }},
	}
}

// lagging is for how long before a failover a replica may not have been told of what its primary has confirmed, on a machine on
// which it has to wait for its turn.
const lagging = time.Second

// excuse accounts for what a failover has lost: an invalidation that was confirmed at about that time is complete, for all but
// its own process, when that has had the time to find the other primary and send it again; if the process was killed before,
// never. This is declared: see docs/consistency.md. It may be called again when more has been noted.
func (h *history) excuse() {
	excused := 0
	killed := map[uint16]int64{}
	for _, p := range h.processes {
		killed[p.proc] = p.killed
	}
	for _, f := range h.faults {
		if f.name != faultTakeover && f.name != faultDead && f.name != faultHung {
			continue
		}
		from, to := f.began-int64(lagging), f.end+int64(settle)
		for n := range h.invalidations {
			i := &h.invalidations[n]
			if i.confirmed < from || i.confirmed > to {
				continue
			}
			excused++
			if i.confirmed = to; killed[i.proc] != 0 && killed[i.proc] <= to {
				i.confirmed = 0
			}
		}
	}
	h.excused = max(h.excused, excused)
}
