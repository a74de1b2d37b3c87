package redisstore

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redistest"
)

func inCluster(addrs ...string) Options {
	return Options{Client: clients(addrs...), Format: format}
}

func TestWhatGoesOverKeysFailsAtOnceWhileNoServerIsKnown(t *testing.T) {
	t.Parallel()
	s := open(t, inCluster("127.0.0.1:1"))
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	require.ErrorIs(t, s.Scan(ctx, func([]string) error { return nil }, ""), ErrUnavailable)
}

// Whoever logs a state may well ask for more.
func TestWhoIsToldOfAStateMayAskForIt(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	asked := make(chan State, 16)
	o := inCluster(cluster.Addrs()...)
	ready := make(chan *Store, 1)
	o.OnState = func(State) {
		s := <-ready
		asked <- s.State()
		ready <- s
	}
	ready <- up(t, o)
	select {
	case s := <-asked:
		require.True(t, s.Up)
	case <-time.After(bound):
		t.Fatal("nobody was told")
	}
}

// mute accepts connections, and says nothing. It returns its address, and how many there have been.
func mute(t *testing.T) (addr string, accepted *atomic.Int64) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	accepted = new(atomic.Int64)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			all.Go(func() { _, _ = io.Copy(io.Discard, conn); conn.Close() })
		}
	})
	t.Cleanup(func() { listener.Close(); all.Wait() })
	return listener.Addr().String(), accepted
}

func TestCloseCutsOffTheSearchForServers(t *testing.T) {
	t.Parallel()
	addr, accepted := mute(t)
	s := Open(Options{Client: inCluster(addr).Client, OpTimeout: bound, Lease: time.Second})
	require.Eventually(t, func() bool { return accepted.Load() > 0 }, bound, time.Millisecond)
	began, allowed := time.Now(), redistest.Allowing(t)
	s.Close()
	require.Less(t, time.Since(began), allowed(2*abandonAfter))
}

// Callers may be at work when a cluster's connections are closed, and what they ask for fails.
func TestCloseWhileACallerReads(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	s := up(t, inCluster(cluster.Addrs()...))
	var looks []Get
	for i := range 30 {
		looks = append(looks, Get{Key: "cat:" + strconv.Itoa(i)})
	}
	failed := make(chan error, 1)
	go func() {
		for {
			for _, r := range s.Get(context.Background(), looks...) {
				if r.Err != nil {
					failed <- r.Err
					return
				}
			}
		}
	}()
	s.Close()
	select {
	case <-failed:
	case <-time.After(bound):
		t.Fatal("it is still at work")
	}
	require.ErrorIs(t, s.Scan(t.Context(), func([]string) error { return nil }, ""), ErrUnavailable)
}

// lone starts a server that is part of no cluster yet.
func lone(t *testing.T) *redistest.Server {
	t.Helper()
	return redistest.Start(t, "--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1")
}

func TestAClusterIsFoundBySomeOfItsNodes(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	empty := lone(t)
	replica := cluster.ReplicaOf(cluster.Primaries()[0])
	for name, seeds := range map[string][]string{
		"a replica":                         {replica.Addr()},
		"one that is dead before":           {"127.0.0.1:1", cluster.Primaries()[1].Addr()},
		"one that is part of none before":   {empty.Addr(), cluster.Primaries()[2].Addr()},
		"one that is part of none, replica": {empty.Addr(), replica.Addr()},
	} {
		t.Run(name, func(t *testing.T) {
			s := up(t, inCluster(seeds...))
			require.Len(t, s.table.Load().nodes, 3)
		})
	}
	s := open(t, inCluster(empty.Addr()))
	require.Eventually(t, func() bool { return s.State().Cause != nil }, bound, time.Millisecond)
	require.ErrorIs(t, s.State().Cause, errNoNode)
}

// A node that does not say who has which slot must not be taken for a server that has them all.
func TestAUserWhoMayNotAskForTheNodesIsRefusedInAClusterAlone(t *testing.T) {
	t.Parallel()
	for what, args := range map[string][]string{"cluster": {"--cluster-enabled", "yes"}, "single": nil} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, args...)
			server.MayDeny()
			server.MustDo(t, "ACL", "SETUSER", "limited", "on", ">a-long-password", "~*", "&*", "+@all", "-cluster")
			if what == "cluster" {
				var all []string
				for slot := range slots {
					all = append(all, strconv.Itoa(slot))
				}
				server.MustDo(t, append([]string{"CLUSTER", "ADDSLOTS"}, all...)...)
			}
			o := inCluster(server.Addr())
			o.Client.Username, o.Client.Password = "limited", "a-long-password"
			s := open(t, o)
			require.Eventually(t, func() bool { state := s.State(); return state.Up || state.Cause != nil }, bound, time.Millisecond)
			if what == "single" {
				require.True(t, s.State().Up)
			} else {
				require.Equal(t, "NOPERM", code(s.State().Cause))
			}
		})
	}
}

// importing is a cluster with a key whose slot is on its way to a node that has none yet.
func importing(t *testing.T) (s *Store, key string, from, to *redistest.Server) {
	t.Helper()
	cluster := redistest.StartCluster(t)
	s = up(t, inCluster(cluster.Addrs()...))
	to = lone(t)
	host, port, _ := strings.Cut(cluster.Primaries()[0].Addr(), ":")
	to.MustDo(t, "CLUSTER", "MEET", host, port)
	key = "cat:moves"
	from = cluster.NodeOf(key)
	idOf := func(n *redistest.Server) string { return n.MustDo(t, "CLUSTER", "MYID").(string) }
	knows := func(n, other *redistest.Server) bool {
		return strings.Contains(n.MustDo(t, "CLUSTER", "NODES").(string), idOf(other)) // by its own id: the handshake is over
	}
	require.Eventually(t, func() bool {
		return knows(to, from) && knows(from, to) && strings.Contains(to.MustDo(t, "CLUSTER", "INFO").(string), "cluster_state:ok")
	}, bound, 10*time.Millisecond)
	from.MustDo(t, "SET", key, entry(1, 0, 0, "value"))
	slot := strconv.Itoa(redistest.Slot(key))
	to.MustDo(t, "CLUSTER", "SETSLOT", slot, "IMPORTING", idOf(from))
	from.MustDo(t, "CLUSTER", "SETSLOT", slot, "MIGRATING", idOf(to))
	_, port, _ = strings.Cut(to.Addr(), ":")
	from.MustDo(t, "MIGRATE", host, port, "", "0", "5000", "KEYS", key)
	return s, key, from, to
}

// A node that is about to get its first slot has keys before it has the slot.
func TestWhatHasGoneToANewNodeIsFoundAndRemoved(t *testing.T) {
	t.Parallel()
	s, key, from, to := importing(t)
	var seen []string
	require.Eventually(t, func() bool {
		seen = nil
		return s.Scan(t.Context(), func(keys []string) error { seen = append(seen, keys...); return nil }, "cat:*") == nil
	}, bound, 10*time.Millisecond)
	require.Contains(t, seen, key)
	require.True(t, s.State().Up, "nothing is amiss")
	require.NoError(t, s.WriteWatermark(t.Context(), 7))
	require.NoError(t, s.Writable(t.Context()))
	require.NoError(t, s.Replicated(t.Context(), 0))
	r := s.Get(t.Context(), Get{Key: key})[0]
	require.NoError(t, r.Err)
	require.NotEmpty(t, r.Value)
	_, errs := s.Remove(t.Context(), key)
	require.Nil(t, errs)
	require.EqualValues(t, 0, to.MustDo(t, "CLUSTER", "COUNTKEYSINSLOT", strconv.Itoa(redistest.Slot(key))))
	// The rest of its slot follows.
	slot, id := strconv.Itoa(redistest.Slot(key)), to.MustDo(t, "CLUSTER", "MYID").(string)
	to.MustDo(t, "CLUSTER", "SETSLOT", slot, "NODE", id)
	from.MustDo(t, "CLUSTER", "SETSLOT", slot, "NODE", id)
	require.Eventually(t, func() bool {
		at := s.table.Load()
		l := at.byAddr(to.Addr())
		return l != nil && !l.hasNoSlots() && at.of(key) == l && l.Up()
	}, bound, time.Millisecond)
}

// A read that a node has sent on to a new one is not tracked there: it gets no validity.
func TestWhatIsReadAtANodeThatIsAboutToGetItIsNotVouchedFor(t *testing.T) {
	t.Parallel()
	s, key, _, _ := importing(t)
	clock := near.NewClock()
	t.Cleanup(clock.Stop)
	memory := near.New(near.Options{MaxEntries: 100, MaxBytes: 1 << 20}, clock)
	t.Cleanup(memory.Close)
	require.Eventually(t, func() bool {
		f := memory.Fence(key, nil)
		defer f.End()
		r := s.Get(t.Context(), Get{Key: key, Fence: f})[0]
		require.Nil(t, r.Validity)
		return r.Err == nil && r.Value != nil
	}, bound, 10*time.Millisecond)
}

// Where no node lets us in, others are asked less and less often; where one is only away, with every look.
func TestScoutsAreSentOutSeldomWhereNoNodeLetsUsIn(t *testing.T) {
	t.Parallel()
	const looks = 20
	noTLS := tls.RecordHeaderError{Msg: "the server speaks no TLS"}
	for _, test := range []struct {
		causes []error
		scouts int64
	}{
		{[]error{errBroken, errBroken}, looks},
		{[]error{errBroken, noTLS}, looks},
		{[]error{noTLS, noTLS}, 1},
	} {
		var dials atomic.Int64
		top := &topology{options: rueidis.ClientOption{
			InitAddress: []string{"127.0.0.1:1"},
			DialCtxFn: func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
				dials.Add(1)
				return nil, errBroken
			},
		}}
		table := new(table)
		for _, cause := range test.causes {
			l := new(link)
			l.report(State{Cause: cause})
			table.nodes, table.addrs = append(table.nodes, l), append(table.addrs, "")
		}
		top.table.Store(table)
		for range looks {
			top.refresh(t.Context())
		}
		require.Equal(t, test.scouts, dials.Load(), test.causes)
	}
}
