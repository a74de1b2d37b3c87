package redistest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestClusterServes(t *testing.T) {
	t.Parallel()
	c := StartCluster(t)
	equal(t, len(c.Addrs()), 6)
	primaries := c.Primaries()
	equal(t, len(primaries), 3)
	var owners []*Server
	for i := range 100 {
		key := fmt.Sprint("key", i)
		equal(t, c.MustDo(t, key, "SET", key, "v"), "OK")
		equal(t, c.MustDo(t, key, "CLUSTER", "KEYSLOT", key), int64(Slot(key)))
		owners = append(owners, c.NodeOf(key))
	}
	equal(t, c.TotalCalls("set"), 100)
	c.ResetCalls()
	equal(t, c.TotalCalls("set"), 0)
	c.WaitReplicated()
	for _, s := range primaries {
		if !slices.Contains(owners, s) {
			t.Errorf("%s owns none of 100 keys", s.Addr())
		}
		replica := c.ReplicaOf(s)
		if slices.Contains(primaries, replica) {
			t.Errorf("%s is a replica and a primary", replica.Addr())
		}
		equal(t, replica.MustDo(t, "DBSIZE"), s.MustDo(t, "DBSIZE"))
	}
}

// A primary that is not sure of its replica's shard would stay a primary when that replica takes its slots over.
func TestShardOfAPrimaryAndItsReplica(t *testing.T) {
	t.Parallel()
	c := StartCluster(t)
	if majorVersion(c.nodes[0].bin) < 7 {
		t.Skip("this server knows no shards")
	}
	primaries := c.Primaries()
	for i, s := range primaries {
		equal(t, c.sameShard(s, c.ReplicaOf(s)), nil)
		other := primaries[(i+1)%len(primaries)]
		if c.sameShard(s, other) == nil || c.sameShard(c.ReplicaOf(s), other) == nil {
			t.Errorf("%s shares the shard of %s", s.Addr(), other.Addr())
		}
	}
}

func TestSlotOfKey(t *testing.T) {
	t.Parallel()
	equal(t, Slot("123456789"), 0x31c3) // the specification's example
	equal(t, Slot(""), 0)
	s := Start(t, "--cluster-enabled", "yes")
	for _, key := range []string{"", "a", "{a}b", "x{a}b{c}", "{}a", "a{}{b}", "{a", "a}b{", "{{a}}", "{a{b}c}", "\x00\xff{\xfe}"} {
		equal(t, s.MustDo(t, "CLUSTER", "KEYSLOT", key), int64(Slot(key)))
	}
}

func TestClusterArgumentsReachEveryNode(t *testing.T) {
	t.Parallel()
	c := StartCluster(t, "--requirepass", "open sesame", "--cluster-require-full-coverage", "no", "--user", "guest", "on", "nopass", "~*", "+get")
	for _, s := range c.Nodes() {
		equal(t, s.MustDo(t, "CONFIG", "GET", "cluster-require-full-coverage"), []any{"cluster-require-full-coverage", "no"})
		conn := Raw(t, s.Addr())
		if _, err := conn.Do("PING"); !refused(err, "NOAUTH") {
			t.Errorf("without the password: %v", err)
		}
		equal(t, must(conn.Do("AUTH", "guest", "")), "OK")
		if _, err := conn.Do("SET", "k", "v"); !refused(err, "NOPERM") {
			t.Errorf("SET as a guest: %v", err)
		}
	}
	c.MustDo(t, "k", "SET", "k", "v") // and the nodes know the password for each other
	c.MigrateSlot(Slot("k"), c.other("k"))
	equal(t, c.MustDo(t, "k", "GET", "k"), "v")
	c.Promote(c.ReplicaOf(c.NodeOf("k")))
	c.WaitOK()
	equal(t, c.MustDo(t, "k", "GET", "k"), "v")
}

func TestKilledPrimaryIsReplaced(t *testing.T) {
	t.Parallel()
	c := StartCluster(t)
	old := c.NodeOf("k")
	replica := c.ReplicaOf(old)
	c.MustDo(t, "k", "SET", "k", "v")
	c.WaitReplicated()

	old.Kill()
	equal(t, len(c.Primaries()), 3)
	c.await("failover", func() error {
		if s := c.NodeOf("k"); s != replica {
			return fmt.Errorf("the owner is %s", s.Addr())
		}
		return nil
	})
	equal(t, replica.MustDo(t, "GET", "k"), "v")

	old.Restart()
	c.WaitOK()
	equal(t, c.NodeOf("k"), replica)
	equal(t, c.ReplicaOf(replica), old)
	if _, err := old.Do("GET", "k"); !refused(err, "MOVED") {
		t.Errorf("the old primary answered %v", err)
	}
}

func TestKilledReplicaComesBack(t *testing.T) {
	t.Parallel()
	c := StartCluster(t)
	primary := c.NodeOf("k")
	replica := c.ReplicaOf(primary)
	c.MustDo(t, "k", "SET", "k", "v")
	replica.Kill()
	equal(t, c.MustDo(t, "k", "GET", "k"), "v")
	replica.Restart()
	c.WaitOK()
	equal(t, c.ReplicaOf(primary), replica)
	equal(t, replica.MustDo(t, "DBSIZE"), int64(1))
	equal(t, c.TotalCalls("get"), 1)
}

func TestPromote(t *testing.T) {
	t.Parallel()
	c := StartCluster(t)
	for i := range 3 {
		old := c.NodeOf("k")
		replica := c.ReplicaOf(old)
		equal(t, old.MustDo(t, "INCR", "k"), int64(i+1)) // nothing is lost on the way
		c.Promote(replica)
		equal(t, c.NodeOf("k"), replica)
		c.WaitOK()
		equal(t, c.ReplicaOf(replica), old)
	}
}

func TestTakeover(t *testing.T) {
	t.Parallel()
	t.Run("alive", func(t *testing.T) {
		t.Parallel()
		c := StartCluster(t)
		old := c.NodeOf("k")
		replica := c.ReplicaOf(old)
		c.Takeover(replica)
		equal(t, c.NodeOf("k"), replica)
		if _, err := old.Do("GET", "k"); !refused(err, "MOVED") {
			t.Errorf("the old primary answered %v", err)
		}
		c.WaitOK()
		equal(t, c.ReplicaOf(replica), old)
	})
	t.Run("paused", func(t *testing.T) {
		t.Parallel()
		c := StartCluster(t)
		old := c.NodeOf("k")
		replica := c.ReplicaOf(old)
		old.Pause()
		c.Takeover(replica)
		equal(t, c.NodeOf("k"), replica)
		equal(t, replica.MustDo(t, "SET", "k", "v"), "OK")
		old.Resume()
		c.WaitOK()
		equal(t, c.ReplicaOf(replica), old)
		equal(t, old.MustDo(t, "DBSIZE"), int64(1))
	})
	t.Run("dead", func(t *testing.T) {
		t.Parallel()
		c := StartCluster(t)
		old := c.NodeOf("k")
		replica := c.ReplicaOf(old)
		old.Kill()
		c.Takeover(replica)
		equal(t, c.NodeOf("k"), replica)
		equal(t, replica.MustDo(t, "SET", "k", "v"), "OK")
		old.Restart()
		c.WaitOK()
		equal(t, c.ReplicaOf(replica), old)
	})
}

func TestSlotMovesWithItsKeys(t *testing.T) {
	t.Parallel()
	c := StartCluster(t)
	from, to := c.NodeOf("k"), c.other("k")
	huge := strings.Repeat("x", 20<<20)
	for i := range 25 {
		key := fmt.Sprintf("{k}%d", i)
		c.MustDo(t, key, "SET", key, key)
	}
	c.MustDo(t, "k", "SET", "{k}huge", huge)
	c.MustDo(t, "k", "SET", "{k}brief", "v", "PX", "100000")

	m := c.BeginMigration(Slot("k"), to)
	m.Move("{k}1", "{k}none", "{k}brief")
	equal(t, c.NodeOf("k"), from)
	equal(t, from.MustDo(t, "GET", "{k}2"), "{k}2")
	if _, err := from.Do("GET", "{k}1"); !refused(err, fmt.Sprintf("ASK %d %s", Slot("k"), to.Addr())) {
		t.Errorf("the old owner says %v of a key that is gone", err)
	}
	if _, err := to.Do("GET", "{k}1"); !refused(err, "MOVED") {
		t.Errorf("the next owner says %v without ASKING", err)
	}
	asking := Raw(t, to.Addr())
	equal(t, must(asking.Do("ASKING")), "OK")
	equal(t, must(asking.Do("GET", "{k}1")), "{k}1")
	if _, err := from.Do("MGET", "{k}1", "{k}2"); !refused(err, "TRYAGAIN") {
		t.Errorf("the old owner says %v of keys on both sides", err)
	}

	m.Finish()
	equal(t, c.NodeOf("k"), to)
	equal(t, must(c.count(from, "k")), int64(0))
	equal(t, must(c.count(to, "k")), int64(27))
	equal(t, to.MustDo(t, "GET", "{k}huge") == huge, true)
	if ttl := to.MustDo(t, "PTTL", "{k}brief").(int64); ttl <= 0 || ttl > 100_000 {
		t.Errorf("%d ms left", ttl)
	}
	c.WaitOK()
	c.WaitReplicated()
	equal(t, c.ReplicaOf(to).MustDo(t, "CLUSTER", "COUNTKEYSINSLOT", fmt.Sprint(Slot("k"))), int64(27))

	c.MigrateSlot(Slot("k"), from)
	equal(t, must(c.count(from, "k")), int64(27))
}

func TestManySlotsMove(t *testing.T) {
	t.Parallel()
	c := StartCluster(t)
	before := map[string]*Server{}
	for i := range 100 {
		key := fmt.Sprint("key", i)
		c.MustDo(t, key, "SET", key, key)
		before[key] = c.NodeOf(key)
	}
	moved := c.MigrateSlots(20)
	equal(t, len(moved), 20)
	touched := 0
	for key, old := range before {
		equal(t, c.MustDo(t, key, "GET", key), key)
		equal(t, slices.Contains(moved, Slot(key)), c.NodeOf(key) != old)
		if c.NodeOf(key) != old {
			touched++
		}
	}
	if touched < 20 {
		t.Errorf("%d keys in 20 slots", touched)
	}
	c.WaitOK()
}

func TestClientsThroughProxies(t *testing.T) {
	t.Parallel()
	c := StartCluster(t)
	s := c.NodeOf("k")
	equal(t, c.Via(s.Addr()), s.Addr())
	p := c.Proxy(s)
	equal(t, c.Proxy(s), p)
	equal(t, c.Via(s.Addr()), p.Addr())
	equal(t, c.Via(c.other("k").Addr()), c.other("k").Addr())
	equal(t, must(Raw(t, c.Via(s.Addr())).Do("SET", "k", "v")), "OK")
	equal(t, p.Commands(), []string{"SET"})
}

func TestClusterReportsTrouble(t *testing.T) {
	t.Parallel()
	c := StartCluster(t)
	tb := &recorder{TB: t}
	c.t = tb
	c.MigrateSlots(1)
	if !strings.Contains(tb.failed, "only 0 slots with keys") {
		t.Errorf("MigrateSlots reported %q", tb.failed)
	}
	c.MigrateSlot(0, c.OwnerOf(0))
	if !strings.Contains(tb.failed, "there already") {
		t.Errorf("MigrateSlot reported %q", tb.failed)
	}
	for _, s := range c.Nodes() {
		s.Kill()
	}
	tb.run(func() { c.NodeOf("k") })
	if !strings.Contains(tb.fatal, "no node") {
		t.Errorf("NodeOf ended with %q", tb.fatal)
	}
}

// other returns a primary that does not own the key.
func (c *Cluster) other(key string) *Server {
	owner := c.NodeOf(key)
	return c.Primaries()[(slices.Index(c.Primaries(), owner)+1)%clusterPrimaries]
}

// count returns how many keys of the key's slot a node holds.
func (c *Cluster) count(s *Server, key string) (any, error) {
	return s.Do("CLUSTER", "COUNTKEYSINSLOT", fmt.Sprint(Slot(key)))
}

func refused(err error, prefix string) bool {
	refusal := Error("")
	return errors.As(err, &refusal) && strings.HasPrefix(string(refusal), prefix)
}
