package redisstore

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
