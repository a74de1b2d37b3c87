package lease

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"errors"
	"slices"
	"strconv"
	"testing"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/redistest"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redisstore"
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
	store := redisstore.Open(redisstore.Options{Client: rueidis.ClientOption{InitAddress: cluster.Addrs()}, OpTimeout: 50 * time.Millisecond, Lease: time.Second})
	t.Cleanup(store.Close)
	k := NewKeeper(store, time.Second, 1<<20, func(f func()) { f() })
	key := "items:a"
	lease := "{" + key + "}!l"
	up := func() bool { return store.UpFor(key) }
	require.Eventually(t, up, 20*time.Second, time.Millisecond)
	cluster.MustDo(t, key, "SET", lease, "nonce")
	cluster.WaitReplicated()
	node := cluster.NodeOf(key)
	node.Pause()
	require.Eventually(t, func() bool { return !up() && store.Up() }, 20*time.Second, time.Millisecond)
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
	}, 20*time.Second, 10*time.Millisecond)
}

// A lease that is renewed is held while its value is encoded, and given back when that does not end.
func TestALeaseIsRenewedUntilItsValueIsStored(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	const life = 1500 * time.Millisecond // a busy machine may keep this process waiting for some of it
	store := redisstore.Open(redisstore.Options{Client: rueidis.ClientOption{InitAddress: []string{server.Addr()}}, OpTimeout: time.Second, Lease: life})
	t.Cleanup(store.Close)
	require.Eventually(t, store.Up, 20*time.Second, time.Millisecond)
	var background sync.WaitGroup
	k := NewKeeper(store, life, 1<<20, func(f func()) { background.Go(f) })
	held := func(key string) bool { return server.MustDo(t, "EXISTS", "{"+key+"}!l") == int64(1) }
	hold := func(ctx context.Context, key string) (h Held, lost, doubted *atomic.Bool) {
		server.MustDo(t, "SET", "{"+key+"}!l", "nonce", "PX", strconv.FormatInt(life.Milliseconds(), 10))
		lost, doubted = new(atomic.Bool), new(atomic.Bool)
		return k.Hold(ctx, []*Lease{{
			Key: key, Nonce: "nonce", LoadTimeout: time.Hour, Lost: func() { lost.Store(true) }, Doubted: func() { doubted.Store(true) },
		}}), lost, doubted
	}

	a, lost, doubted := hold(t.Context(), "items:a")
	for since := time.Now(); time.Since(since) < 2*life; {
		require.True(t, held("items:a"))
		select {
		case <-time.After(10 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
	require.False(t, lost.Load() || doubted.Load())
	server.MustDo(t, "DEL", "{items:a}!l")
	require.Eventually(t, lost.Load, 10*time.Second, time.Millisecond, "it is not held any more")
	close(a.Stored)

	ctx, cancel := context.WithCancel(t.Context())
	b, lost, _ := hold(ctx, "items:b")
	cancel() // nobody waits for the load any more
	require.Eventually(t, func() bool { return !held("items:b") }, 10*time.Second, time.Millisecond)
	require.False(t, lost.Load())
	close(b.Stored)

	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	c, _, doubted := hold(ctx, "items:c")
	close(c.Loaded)
	cancel() // which says nothing of a value that is being encoded
	server.Pause()
	require.Eventually(t, doubted.Load, 10*time.Second, time.Millisecond, "its renewals get no answer")
	server.Resume()
	close(c.Stored)
	background.Wait()
}
