package redistest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	clusterPrimaries = 3
	clusterNodes     = 2 * clusterPrimaries

	// clusterTimeout bounds how long a cluster may take to agree on something. It is long for the same reason as
	// startTimeout.
	clusterTimeout = 30 * time.Second

	// nodeTimeout is the silence in ms after which the others suspect a node: short, since a failover takes it and about
	// a second more, and long enough for a node that waits for its turn on a busy machine.
	nodeTimeout = "1000"
)

// Cluster is a Redis Cluster of three primaries with a replica each, on 127.0.0.1. Its nodes can be killed, restarted,
// paused and resumed like any [Server]; a node that is restarted knows its cluster, and has lost its data until its
// primary sends them.
//
// The methods may be called from any goroutine, but one at a time where they change the cluster. Those that change it
// report trouble with Errorf, those that ask it something with Fatalf.
type Cluster struct {
	t     testing.TB
	nodes []*Server
	ids   map[string]*Server // by node id; a node keeps its id through a restart

	mu      sync.Mutex
	proxies map[*Server]*Proxy
}

// StartCluster starts the nodes as [Start] does, with args for each of them, and returns when every node knows the
// whole cluster, finds it able to serve, and every replica has the data of its primary.
func StartCluster(t testing.TB, args ...string) *Cluster {
	t.Helper()
	c := &Cluster{t: t, ids: map[string]*Server{}, proxies: map[*Server]*Proxy{}}
	options := []string{
		"--cluster-enabled", "yes",
		"--cluster-announce-ip", "127.0.0.1",
		"--cluster-node-timeout", nodeTimeout,
		"--cluster-replica-validity-factor", "0", // a replica stands for election however old its data are
		"--repl-diskless-sync-delay", "0",
		"--masterauth", option(args, "--requirepass"),
	}
	for range clusterNodes {
		s := Start(t, slices.Concat(options, args)...)
		if majorVersion(s.bin) >= 7 { // else who gives its last slot away would become a replica
			s.MustDo(t, "CONFIG", "SET", "cluster-allow-replica-migration", "no")
			s.args = append(s.args, "--cluster-allow-replica-migration", "no")
		}
		c.nodes = append(c.nodes, s)
		c.ids[s.MustDo(t, "CLUSTER", "MYID").(string)] = s
	}
	c.form()
	return c
}

// form makes a cluster of the nodes.
//
// A node that starts as a primary refuses to serve for two seconds (CLUSTER_WRITABLE_DELAY in Redis's cluster.c); a
// replica does not, nor does it when it is made a primary. So those that get the slots first are the later replicas.
func (c *Cluster) form() {
	c.t.Helper()
	first, then := c.nodes[clusterPrimaries:], c.nodes[:clusterPrimaries]
	for i, s := range first {
		slots := []string{"CLUSTER", "ADDSLOTS"}
		for slot := i * Slots / clusterPrimaries; slot < (i+1)*Slots/clusterPrimaries; slot++ {
			slots = append(slots, strconv.Itoa(slot))
		}
		s.MustDo(c.t, slots...)
	}
	for i, s := range c.nodes {
		s.MustDo(c.t, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		for _, other := range c.nodes[:i] { // each to each: gossip alone would take seconds
			s.MustDo(c.t, "CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(other.port))
		}
	}
	for i, s := range then {
		c.await("the nodes to meet", func() error {
			_, err := s.Do("CLUSTER", "REPLICATE", c.id(first[i]))
			return err
		})
	}
	for i, s := range then {
		c.await("the replicas to be ready", func() error {
			// A state of ok alone may not mean that it knows the slots that it is to take over: cluster-require-full-coverage.
			state, err := s.info("CLUSTER", "INFO")
			if err != nil || state["cluster_state"] != "ok" || state["cluster_slots_assigned"] != strconv.Itoa(Slots) {
				return errors.Join(fmt.Errorf("%s: cluster_state:%s, knows the owners of %s slots", s.Addr(), state["cluster_state"], state["cluster_slots_assigned"]), err)
			}
			return s.synced()
		})
		// No node tells clients of a replica that has never got a write (isReplicaAvailable in cluster.c).
		first[i].MustDo(c.t, "FLUSHALL")
	}
	c.WaitReplicated()
	for _, s := range then {
		c.awaitEpoch(s)
		c.awaitShard(s)
		s.MustDo(c.t, "CLUSTER", "FAILOVER", "TAKEOVER")
	}
	c.await("the takeovers", func() error {
		return c.agree(func(v view) error {
			for i, s := range then {
				if len(v[c.id(s)].slots) == 0 {
					return fmt.Errorf("%s has no slots", s.Addr())
				}
				if v[c.id(first[i])].primary != c.id(s) {
					return fmt.Errorf("%s is no replica of %s", first[i].Addr(), s.Addr())
				}
			}
			return nil
		})
	})
	c.WaitOK()
	c.ResetCalls()
}

// Nodes returns all nodes, running or not, always in the same order.
func (c *Cluster) Nodes() []*Server { return slices.Clone(c.nodes) }

// Addrs returns the addresses of all nodes.
func (c *Cluster) Addrs() []string {
	addrs := make([]string, len(c.nodes))
	for i, s := range c.nodes {
		addrs[i] = s.Addr()
	}
	return addrs
}

// Primaries returns the nodes that own slots now, dead or alive, in the order of Nodes. Where the nodes do not agree on
// the owner of a slot, the one of the latest epoch is it, as it will be for all.
func (c *Cluster) Primaries() []*Server {
	c.t.Helper()
	owners := c.owners()
	return slices.DeleteFunc(c.Nodes(), func(s *Server) bool { return !slices.Contains(owners[:], s) })
}

// ReplicaOf returns a running replica of a primary. It waits for one where the cluster is about to change.
func (c *Cluster) ReplicaOf(primary *Server) (replica *Server) {
	c.t.Helper()
	id := c.id(primary)
	c.await("a replica of "+primary.Addr(), func() error {
		var roles []string
		for _, s := range c.living() {
			v, err := c.view(s)
			if err != nil {
				return err
			}
			of := v[c.id(s)].primary
			if of == id {
				replica = s
				return nil
			}
			if of != "" {
				of = c.ids[of].Addr()
			}
			roles = append(roles, fmt.Sprintf("%s is a replica of %q", s.Addr(), of))
		}
		return errors.New(strings.Join(roles, ", "))
	})
	if replica == nil {
		c.t.FailNow()
	}
	return replica
}

// NodeOf returns the primary that owns the slot of a key now, dead or alive.
func (c *Cluster) NodeOf(key string) *Server {
	c.t.Helper()
	return c.OwnerOf(Slot(key))
}

// OwnerOf returns the primary that owns a slot now, dead or alive.
func (c *Cluster) OwnerOf(slot int) *Server {
	c.t.Helper()
	owners := c.owners()
	if owners[slot] == nil {
		c.t.Fatalf("redistest: nobody owns slot %d", slot)
	}
	return owners[slot]
}

// NodesOf returns for each key what NodeOf does, for all of them at one time.
func (c *Cluster) NodesOf(keys ...string) []*Server {
	c.t.Helper()
	owners := c.owners()
	nodes := make([]*Server, len(keys))
	for i, key := range keys {
		nodes[i] = owners[Slot(key)]
	}
	return nodes
}

// Do sends a command to the primary that owns the slot of a key: Do("k", "GET", "k").
func (c *Cluster) Do(key string, args ...string) (any, error) {
	c.t.Helper()
	return c.NodeOf(key).Do(args...)
}

// MustDo is Do that ends the test on an error.
func (c *Cluster) MustDo(t testing.TB, key string, args ...string) any {
	t.Helper()
	return c.NodeOf(key).MustDo(t, args...)
}

// TotalCalls returns how often the current primaries have run a command ("get", "client|tracking"), by whomever, within
// scripts and from their primary as replicas too, since they started or since [Cluster.ResetCalls].
func (c *Cluster) TotalCalls(command string) int {
	c.t.Helper()
	total := 0
	for _, s := range c.Primaries() {
		total += s.Calls(c.t, command)
	}
	return total
}

// ResetCalls sets TotalCalls to 0, on all nodes that answer.
func (c *Cluster) ResetCalls() {
	c.t.Helper()
	for _, s := range c.living() {
		s.MustDo(c.t, "CONFIG", "RESETSTAT")
	}
}

// Proxy returns the proxy in front of a node, one for each, which is started with the first call. The cluster knows
// nothing of it and goes on telling clients the node's own address: a client uses [Cluster.Via] where it dials.
func (c *Cluster) Proxy(s *Server) *Proxy {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proxies[s] == nil {
		c.proxies[s] = StartProxy(c.t, s.Addr())
	}
	return c.proxies[s]
}

// Via returns the address of the proxy in front of the node at addr, and addr itself where there is none.
func (c *Cluster) Via(addr string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s, p := range c.proxies {
		if s.Addr() == addr {
			return p.Addr()
		}
	}
	return addr
}

// WaitOK waits until the cluster is whole: every node runs and is known to all as well, all agree on who owns which slot
// and who is whose replica, all slots are served, all replicas have the data of their primaries, and clients are told of
// them.
func (c *Cluster) WaitOK() {
	c.t.Helper()
	c.await("the whole cluster to be ok", func() error {
		if len(c.living()) < len(c.nodes) {
			return fmt.Errorf("only %d nodes run", len(c.living()))
		}
		if err := c.agree(func(v view) error { return v.whole() }); err != nil {
			return err
		}
		for _, s := range c.nodes {
			if state, err := s.info("CLUSTER", "INFO"); err != nil || state["cluster_state"] != "ok" {
				return errors.Join(fmt.Errorf("%s: cluster_state:%s", s.Addr(), state["cluster_state"]), err)
			}
			if err := s.synced(); err != nil {
				return err
			}
			if err := c.listed(s); err != nil {
				return err
			}
		}
		return nil
	})
}

// WaitReplicated waits until the running replicas have all that their primaries have written until now. WAIT does that for
// what its own connection has written.
func (c *Cluster) WaitReplicated() {
	c.t.Helper()
	written := map[string]int{} // by primary
	for _, s := range c.living() {
		if role, err := s.info("INFO", "replication"); err == nil && role["role"] == "master" {
			written[c.id(s)], _ = strconv.Atoi(role["master_repl_offset"])
		}
	}
	for _, s := range c.living() {
		c.await("replication to "+s.Addr(), func() error {
			if !s.runs() {
				return nil
			}
			v, err := c.view(s)
			if err != nil {
				return err
			}
			role, err := s.info("INFO", "replication")
			if err != nil || role["role"] == "master" {
				return err
			}
			if has, _ := strconv.Atoi(role["slave_repl_offset"]); has < written[v[c.id(s)].primary] {
				return fmt.Errorf("has %d of %d bytes", has, written[v[c.id(s)].primary])
			}
			return s.synced()
		})
	}
}

// Promote makes a replica the primary in its primary's place, without loss: the primary stops writing and hands over.
// It returns when all running nodes agree on it.
func (c *Cluster) Promote(replica *Server) {
	c.t.Helper()
	c.failover(replica)
}

// Takeover makes a replica the primary in its primary's place, asking nobody: the old primary may run, be paused or be
// dead, and writes that the replica has not got are lost. It returns when all running nodes agree on it; an old primary
// that is paused believes itself to be the primary until then and for a moment after [Server.Resume].
func (c *Cluster) Takeover(replica *Server) {
	c.t.Helper()
	c.failover(replica, "TAKEOVER")
}

func (c *Cluster) failover(replica *Server, how ...string) {
	c.t.Helper()
	c.awaitEpoch(replica)
	c.awaitShard(replica)
	id := c.id(replica)
	var asked time.Time
	c.await("failover to "+replica.Addr(), func() error {
		v, err := c.view(replica)
		if err != nil {
			return err
		}
		if v[id].primary != "" {
			// A node forgets about a failover that is not done within 5 s (CLUSTER_MF_TIMEOUT).
			if time.Since(asked) > 6*time.Second {
				if _, err := replica.Do(append([]string{"CLUSTER", "FAILOVER"}, how...)...); err != nil {
					return err
				}
				asked = time.Now()
			}
			return fmt.Errorf("%s is a replica", replica.Addr())
		}
		return c.agree(func(v view) error {
			if n := v[id]; n.primary != "" || len(n.slots) == 0 {
				return fmt.Errorf("%s is no primary to all", replica.Addr())
			}
			return nil
		})
	})
}

// awaitEpoch waits until a node knows the latest epoch of all. A takeover takes the next one that the node knows of; where
// another primary has that one already, it may be the old primary that comes out with the later epoch, and keeps its slots.
func (c *Cluster) awaitEpoch(node *Server) {
	c.t.Helper()
	c.await("the epochs to be known", func() error {
		latest, known := 0, 0
		for _, s := range c.living() {
			info, err := s.info("CLUSTER", "INFO")
			if err != nil {
				return err
			}
			epoch, _ := strconv.Atoi(info["cluster_current_epoch"])
			latest = max(latest, epoch)
			if s == node {
				known = epoch
			}
		}
		if known < latest {
			return fmt.Errorf("%s knows epoch %d of %d", node.Addr(), known, latest)
		}
		return nil
	})
}

// awaitShard waits until the running nodes of a replica's shard know that it is one. Nodes of Valkey, and of Redis since 7.2,
// tell each other the id of their shard in some of the messages that they exchange anyway. A primary that does not know yet
// that it shares its shard with the node that takes its slots stays a primary, one without slots, where
// cluster-allow-replica-migration is no.
func (c *Cluster) awaitShard(replica *Server) {
	c.t.Helper()
	c.await("the shard of "+replica.Addr()+" to be known", func() error {
		v, err := c.view(replica)
		if err != nil {
			return err
		}
		primary := c.ids[v[c.id(replica)].primary]
		if primary == nil || !primary.runs() {
			return nil // nobody has to know
		}
		return c.sameShard(replica, primary)
	})
}

// living returns the nodes that run and are not paused.
func (c *Cluster) living() []*Server {
	return slices.DeleteFunc(c.Nodes(), func(s *Server) bool { return !s.runs() })
}

// id returns the node id.
func (c *Cluster) id(s *Server) string {
	for id, node := range c.ids {
		if node == s {
			return id
		}
	}
	c.t.Fatalf("redistest: %s is not of this cluster", s.Addr())
	return ""
}

// await waits until check returns nil, and fails the test where that does not come about in time.
func (c *Cluster) await(what string, check func() error) {
	c.t.Helper()
	deadline := time.Now().Add(clusterTimeout)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Errorf("redistest: waited %v for %s: %v", clusterTimeout, what, err)
			return
		}
		time.Sleep(2 * pollInterval)
	}
}

// info asks for a text of "name:value" lines.
func (s *Server) info(args ...string) (map[string]string, error) {
	if !s.runs() {
		return nil, fmt.Errorf("%s does not run", s.Addr())
	}
	reply, err := s.Do(args...)
	if err != nil {
		return nil, err
	}
	info := map[string]string{}
	for line := range strings.Lines(reply.(string)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	return info, nil
}

// synced returns nil for a primary, and for a replica that has its primary's data.
func (s *Server) synced() error {
	role, err := s.info("INFO", "replication")
	if err == nil && role["role"] == "slave" && role["master_link_status"] != "up" {
		err = fmt.Errorf("%s: master_link_status:%s", s.Addr(), role["master_link_status"])
	}
	return err
}

// Calls returns how often the server has run a command ("get", "client|tracking"), by whomever and within scripts too,
// since it started or since CONFIG RESETSTAT.
func (s *Server) Calls(t testing.TB, command string) int {
	t.Helper()
	stats, err := s.info("INFO", "commandstats")
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	calls := 0
	_, _ = fmt.Sscanf(stats["cmdstat_"+strings.ToLower(command)], "calls=%d", &calls) // no line, no call
	return calls
}
