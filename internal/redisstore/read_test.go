package redisstore

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redistest"
)

// Hazard 83: what is missing at a node that gives its slot away is made at the other node. A read that was answered just before
// that is looked at when this process knows of it.
func TestAReadThatFindsNothingWhereItsSlotIsGivenAwayIsNotVouchedFor(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	s, memory := up(t, inCluster(cluster.Addrs()...)), newMemory(t)
	missing, present := nameAt(s, 0, "cat:missing"), nameAt(s, 0, "cat:present")
	at(t, cluster, s, 0).MustDo(t, "SET", present, "value")
	// looks reads a key when the table says that its slot is given away.
	look := func(key string) Read {
		giving := *s.table.Load()
		giving.moving, giving.migrating = true, slotSet{}
		giving.migrating.add(slotOf(key))
		s.table.Store(&giving)
		r := lookAt(t, s, memory, key)
		require.NoError(t, r.Err)
		return r
	}
	require.True(t, lookAt(t, s, memory, missing).Validity.Valid())
	require.Eventually(t, func() bool { return look(missing).Validity == nil }, bound, time.Millisecond)
	require.True(t, look(present).Validity.Valid(), "the node tells of what it has")
}

// A new connection may find a server that does not tell of changes, while a read by the last one is on its way.
func TestAReadUnderWayWhenTrackingIsFoundMissingLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	s := connected(t, proxy.Addr())
	clock := near.NewClock()
	t.Cleanup(clock.Stop)
	memory := near.New(near.Options{MaxEntries: 100, MaxBytes: 1 << 20}, clock)
	t.Cleanup(memory.Close)
	f := memory.Fence(key, nil)
	defer f.End()
	held := proxy.HoldReplies(func(args []string) bool { return args[0] == "GETRANGE" })
	reads := make(chan []Read, 1)
	go func() { reads <- s.Get(context.Background(), Get{Key: key, Fence: f}) }()
	held.Wait(t)
	s.announcements.rotate(new(near.Validity))
	only(s).untracked.Store(true)
	held.Release()
	r := (<-reads)[0]
	require.NoError(t, r.Err)
	require.Empty(t, s.pending)
	require.NotSame(t, s.announcements.validity(), r.Validity, "whose fence was never armed for it")
}

// rueidis sends an ECHO before a tracked read. Several reads on one connection have one ECHO, and each read is tracked as it would be alone.
func TestReadsOnOneConnectionShareAnEcho(t *testing.T) {
	t.Parallel()
	const values = 20
	for name, of := range map[string]struct {
		change func(*rueidis.ClientOption)
		echoes int
	}{
		"one connection":                      {func(*rueidis.ClientOption) {}, 1},
		"and one of its own for long batches": {func(o *rueidis.ClientOption) { o.BlockingPipeline = 2 }, 1},
		"commands are not gathered":           {func(o *rueidis.ClientOption) { o.DisableAutoPipelining = true }, 1},
		"several connections":                 {func(o *rueidis.ClientOption) { o.PipelineMultiplex = 2 }, values + 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			proxy := redistest.StartProxy(t, server.Addr())
			memory := newMemory(t)
			client := clientOf(proxy.Addr())
			of.change(&client)
			s := up(t, Options{Client: client, Format: format, Pushed: memory.Push})
			server.MustDo(t, "RPUSH", "cat:list", "of another type")
			gets := []Get{{Key: "cat:missing"}, {Key: "cat:list"}}
			for i := range values {
				gets = append(gets, Get{Key: "cat:" + strconv.Itoa(i)})
				server.MustDo(t, "SET", gets[i+2].Key, strconv.Itoa(i))
			}
			for i := range gets {
				gets[i].Fence = memory.Fence(gets[i].Key, nil)
				defer gets[i].Fence.End()
			}
			proxy.ResetCounts()
			reads := s.Get(t.Context(), gets...)
			echoes := 0
			for _, command := range proxy.Commands() {
				if command == "ECHO" {
					echoes++
				}
			}
			require.Equal(t, of.echoes, echoes)
			require.NoError(t, reads[0].Err)
			require.Nil(t, reads[0].Value)
			require.True(t, reads[0].Validity.Valid())
			require.True(t, IsWrongType(reads[1].Err))
			require.Nil(t, reads[1].Validity)
			for i, r := range reads[2:] {
				require.NoError(t, r.Err)
				require.Equal(t, strconv.Itoa(i), string(r.Value))
				require.True(t, r.Validity.Valid())
			}
			for i := range gets {
				if i != 1 {
					require.False(t, gets[i].Fence.Broken())
					server.MustDo(t, "SET", gets[i].Key, "changed")
					require.Eventually(t, gets[i].Fence.Broken, bound, time.Millisecond, gets[i].Key)
				}
			}
		})
	}
}

// The nodes of a cluster need not track. Their client has nowhere to pass tracked reads to.
func TestReadsOfAClusterThatDoesNotTrack(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	o := inCluster(cluster.Addrs()...)
	o.Client.AlwaysRESP2 = true
	s, memory := up(t, o), newMemory(t)
	var gets []Get
	for i := range 3 {
		key := nameAt(s, 0, "cat:"+strconv.Itoa(i)+":")
		at(t, cluster, s, 0).MustDo(t, "SET", key, strconv.Itoa(i))
		gets = append(gets, Get{Key: key, Fence: memory.Fence(key, nil)})
		defer gets[i].Fence.End()
	}
	for i, r := range s.Get(t.Context(), gets...) {
		require.NoError(t, r.Err)
		require.Equal(t, strconv.Itoa(i), string(r.Value))
	}
}
