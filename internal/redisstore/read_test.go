package redisstore

import (
	"context"
	"testing"
	"time"

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
