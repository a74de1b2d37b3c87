package aside

import (
	"errors"
	"log/slog"
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
	u := unreturned{wake: make(chan struct{}, 1)}
	leases := []unreturnedLease{{Request: redisstore.Request{Key: "a"}}, {Request: redisstore.Request{Key: "b"}}}
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
	u := unreturned{wake: make(chan struct{}, 1)}
	leases := make([]unreturnedLease, mostUnreturned+2)
	for i := range leases {
		leases[i].Key = strconv.Itoa(i)
	}
	failed := slices.Repeat([]error{errors.New("broken")}, len(leases))
	u.add(leases, failed)
	require.Equal(t, mostUnreturned, u.count())
	first := u.take(1)
	require.Equal(t, leases[2:3], first, "those that have waited longest are left")
	u.add(first, failed[:1])
	require.Equal(t, append(slices.Clone(leases[3:]), first...), u.take(mostUnreturned))
}

// One node of a cluster is away: that the others answer is no reason to give up what it has.
func TestLeasesOfANodeThatIsAwayWaitForIt(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	c, err := New(Options{Redis: rueidis.ClientOption{InitAddress: cluster.Addrs()}, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	key := "items:a"
	lease := "{" + key + "}!l"
	up := func() bool { return c.store.UpFor(key) }
	require.Eventually(t, up, 20*time.Second, time.Millisecond)
	cluster.MustDo(t, key, "SET", lease, "nonce")
	cluster.WaitReplicated()
	node := cluster.NodeOf(key)
	node.Pause()
	require.Eventually(t, func() bool { return !up() && c.store.Up() }, 20*time.Second, time.Millisecond)
	c.giveBack([]redisstore.Request{{Key: key, Nonce: "nonce"}})
	for range 2 * mostTries {
		some, all := c.giveBackAgain(t.Context())
		require.False(t, all)
		require.True(t, some || c.unreturned.count() > 0) // the background may have it in hand
	}
	node.Resume()
	require.Eventually(t, func() bool {
		n, err := cluster.Do(key, "EXISTS", lease)
		return err == nil && n == int64(0)
	}, 20*time.Second, 10*time.Millisecond)
}

func TestSetsWhileRedisIsAwayLeaveNoLeasesToGiveBack(t *testing.T) {
	t.Parallel()
	c, err := New(Options{
		Redis:  rueidis.ClientOption{InitAddress: []string{"127.0.0.1:1"}, ForceSingleClient: true}, // where nobody listens
		Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	key := (&Policy{Name: "items", Category: "items", TTL: time.Hour}).Key("a")
	for range 100 {
		require.NoError(t, Set(t.Context(), c, key, "v"))
	}
	require.NoError(t, c.Close()) // it waits for what they have begun
	require.Zero(t, c.unreturned.count())
}
