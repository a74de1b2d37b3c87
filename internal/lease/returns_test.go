package lease

import (
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/redistest"
)

func TestALeaseThatCannotBeGivenBackIsGivenUp(t *testing.T) {
	t.Parallel()
	u := newLeasesToReturn()
	leases := []leaseToReturn{{Request: redisstore.Request{Key: "a"}}, {Request: redisstore.Request{Key: "b"}}}
	u.add(leases, nil)
	require.Zero(t, u.count(), "they were given back")
	failed := []error{nil, errors.New("broken")}
	u.add(leases, failed)
	<-u.wake
	for range mostTries {
		require.Equal(t, leases[1:], u.take(2))
		require.Zero(t, u.count())
		leases[1].tries++
		u.add(leases, failed)
	}
	require.Zero(t, u.count())
}

func TestLeasesToGiveBackAreBoundedAndTakeTurns(t *testing.T) {
	t.Parallel()
	u := newLeasesToReturn()
	leases := make([]leaseToReturn, mostToReturn+2)
	for i := range leases {
		leases[i].Key = strconv.Itoa(i)
	}
	failed := slices.Repeat([]error{errors.New("broken")}, len(leases))
	u.add(leases, failed)
	require.Equal(t, mostToReturn, u.count())
	first := u.take(1)
	require.Equal(t, leases[2:3], first, "those that have waited longest are left")
	u.add(first, failed[:1])
	require.Equal(t, append(slices.Clone(leases[3:]), first...), u.take(mostToReturn))
}

// One node of a cluster is away: that the others answer is no reason to give up what it has.
func TestLeasesOfANodeThatIsAwayWaitForIt(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	store := redisstore.Open(redisstore.Options{Client: rueidis.ClientOption{InitAddress: cluster.Addrs()}, OpTimeout: 500 * time.Millisecond, Lease: time.Second})
	t.Cleanup(store.Close)
	k := NewKeeper(store, time.Second, 1<<20, func(f func()) { f() })
	key := "items:a"
	lease := "{" + key + "}!l"
	up := func() bool { return store.UpFor(key) }
	require.Eventually(t, up, time.Minute, time.Millisecond)
	cluster.MustDo(t, key, "SET", lease, "nonce")
	cluster.WaitReplicated()
	node := cluster.NodeOf(key)
	node.Pause()
	require.Eventually(t, func() bool { return !up() && store.Up() }, time.Minute, time.Millisecond)
	k.Release([]redisstore.Request{{Key: key, Nonce: "nonce"}})
	<-k.Waiting()
	for range 2 * mostTries {
		some, all := k.ReleaseAgain(t.Context())
		require.True(t, some)
		require.False(t, all)
	}
	node.Resume()
	require.Eventually(t, func() bool {
		k.ReleaseAgain(t.Context())
		n, err := cluster.Do(key, "EXISTS", lease)
		return err == nil && n == int64(0)
	}, time.Minute, 10*time.Millisecond)
}
