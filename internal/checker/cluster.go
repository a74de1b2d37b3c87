package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/gatewayz/aside/internal/redistest"
)

// cluster is a Redis Cluster of three primaries and their replicas. None of them keeps anything on disk.
type cluster struct {
	servers
	proxied
	nodes  *redistest.Cluster
	target *redistest.Server // the primary that the last fault was about
	struck keySet            // see hit
}

func newCluster(t testing.TB, _ bool) topology {
	c := &cluster{nodes: redistest.StartCluster(t, asWorker...)}
	c.servers = servers{
		t: t, all: c.nodes.Nodes(), takeable: append(slices.Clone(takeable), takeableInCluster),
		primaries: c.nodes.Primaries, replicated: c.nodes.WaitReplicated, outage: c.fail,
	}
	for _, s := range c.nodes.Nodes() {
		c.add(s.Addr(), c.nodes.Proxy(s))
	}
	return c
}

func (c *cluster) addresses(int) []string { return c.nodes.Addrs() }

func (c *cluster) login() string { return workerUser }

func (c *cluster) foreign(s *source, note func(fault)) []nemesis {
	list := c.servers.foreign(s, note)
	for i := range list {
		if list[i].name == faultBusy {
			list[i].turn = &c.turn // who moves slots and has nodes take over does not wait for scripts
		}
	}
	return list
}

// fail is an outage of one primary or of all. It is over when the cluster is whole, whoever has taken over.
func (c *cluster) fail(random *rand.Rand) outage {
	victims := c.some(random)
	each := func(do func(s *redistest.Server)) {
		for _, s := range victims {
			do(s)
		}
	}
	// From less than what a failover takes to more.
	o := outage{name: faultHung, keys: c.keysAt(victims...), most: 2500 * time.Millisecond}
	o.begin = func() { each((*redistest.Server).Pause) }
	o.end = func() { each((*redistest.Server).Resume); c.nodes.WaitOK() }
	if random.IntN(2) == 0 {
		o.name = faultDead
		o.begin = func() { each((*redistest.Server).Kill) }
		o.end = func() { each((*redistest.Server).Restart); c.nodes.WaitOK() }
	}
	o.kind = fmt.Sprintf("%s: %d of them", o.name, len(victims))
	return o
}

// keysAt are those that some primaries have now.
func (c *cluster) keysAt(some ...*redistest.Server) (keys keySet) {
	names := everyKey.names()
	for k, s := range c.nodes.NodesOf(names...) {
		if slices.Contains(some, s) {
			keys |= one(k)
		}
	}
	return keys
}

func (c *cluster) hit() keySet { return c.struck }

func (c *cluster) mode() mode { return inCluster }

// Faults with which a cluster may lose what it has confirmed: another node takes over that was not told of it yet. Replication
// is asynchronous.
const (
	faultTakeover = "takeover"
	faultDead     = "primary killed"
	faultHung     = "primary hung"
)

var failovers = []string{faultTakeover, faultDead, faultHung, faultReplaced, faultReplacedAgain, faultReplacedDead, faultReplacedHung}

func (c *cluster) faults() []nemesis {
	at := func(do func(random *rand.Rand)) func(random *rand.Rand) func() {
		return func(random *rand.Rand) func() { do(random); return nil }
	}
	aim := func(random *rand.Rand) {
		all := c.nodes.Primaries()
		c.target = all[random.IntN(len(all))]
		c.struck = c.keysAt(c.target)
	}
	list := []nemesis{
		{name: "clients killed", begin: at(func(*rand.Rand) { c.askEach(c.primaries(), "CLIENT", "KILL", "TYPE", "normal") })},
		{name: "one client killed", begin: at(c.killOne)},
		{name: "flushed", begin: at(func(*rand.Rand) { c.askEach(c.primaries(), "FLUSHALL") })},
		{name: "slots moved", begin: at(c.moveSlots)},
		{name: "slots moved again", begin: at(c.moveSlots)},
		{name: "slot slow to move", most: time.Second, begin: c.moveSlowly},
		{name: "promotion", aim: aim, begin: at(func(*rand.Rand) {
			c.nodes.Promote(c.nodes.ReplicaOf(c.target))
			c.nodes.WaitOK()
		})},
		{name: faultTakeover, aim: aim, begin: at(func(*rand.Rand) {
			c.nodes.Takeover(c.nodes.ReplicaOf(c.target))
			c.nodes.WaitOK()
		})},
		{name: faultDead, most: 3 * time.Second, aim: aim, begin: func(*rand.Rand) func() {
			s := c.target
			s.Kill()
			return func() { s.Restart(); c.nodes.WaitOK() }
		}},
		{name: faultHung, most: 4 * time.Second, aim: aim, begin: func(*rand.Rand) func() {
			s := c.target
			s.Pause()
			return func() { s.Resume(); c.nodes.WaitOK() }
		}},
	}
	for i := range list {
		list[i].turn = &c.turn
	}
	// A node that goes away or is replaced meanwhile does not matter to these.
	return append(append(list, []nemesis{
		{name: "evicting", most: time.Second, begin: c.evict},
		{name: "tracking table full", most: time.Second, begin: func(*rand.Rand) func() {
			c.askEach(c.all, "CONFIG", "SET", "tracking-table-max-keys", "1")
			return func() { c.askEach(c.all, "CONFIG", "SET", "tracking-table-max-keys", "1000000") }
		}},
	}...), c.shared()...)
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

// lagging is for how long before a failover a replica may not have been told of what its primary has confirmed, on a machine on
// which it has to wait for its turn.
const lagging = time.Second

// excuse accounts for what a failover may have lost: an invalidation that the node had confirmed which another one has replaced is
// complete, for all but its own process, when that has had the time to find the other node and send it again; if the process was
// killed before, never. This is declared: see docs/limits.md. It may be called again when more has been noted.
func (h *history) excuse() {
	killed := map[uint16]int64{}
	for _, p := range h.processes {
		killed[p.proc] = p.killed
	}
	excused := 0
	for _, f := range h.faults {
		if !slices.Contains(failovers, f.name) {
			continue
		}
		from, to, again := f.began-int64(lagging), f.end, f.end+int64(settle)
		if f.name == faultDead {
			to = f.began // it has confirmed nothing any more
		}
		for n := range h.invalidations {
			i := &h.invalidations[n]
			byKey := i.door == doorKey || i.door == doorKeys || i.door == doorLoaderInval
			// The node may have confirmed it by then, though its answer came later.
			if i.confirmed < from || i.call > to || i.confirmed >= again || byKey && i.keys&f.keys == 0 {
				continue // else what was confirmed may have been at any node
			}
			excused++
			if i.confirmed = again; killed[i.proc] != 0 && killed[i.proc] <= again {
				i.confirmed = 0
			}
		}
	}
	h.excused += excused
	h.excuseRestored()
}
