package lease

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/lifetime"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/redistest"
)

// A holder counts what it is told.
type holder struct{ lost, doubted atomic.Int64 }

func (h *holder) LeaseLost()    { h.lost.Add(1) }
func (h *holder) LeaseDoubted() { h.doubted.Add(1) }

// A lease that is renewed is held while its value is encoded, and given back when that does not end.
func TestALeaseIsRenewedUntilItsValueIsStored(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	const life = 3 * time.Second // a busy machine may keep this process waiting for some of it
	store := redisstore.Open(redisstore.Options{Client: rueidis.ClientOption{InitAddress: []string{server.Addr()}}, OpTimeout: time.Second, Lease: life})
	t.Cleanup(store.Close)
	require.Eventually(t, store.Up, time.Minute, time.Millisecond)
	var background lifetime.Group
	k := NewKeeper(store, life, 1<<20, background.Go)
	held := func(key string) bool { return server.MustDo(t, "EXISTS", "{"+key+"}!l") == int64(1) }
	hold := func(key string) (*Held, *holder) {
		server.MustDo(t, "SET", "{"+key+"}!l", "nonce", "PX", strconv.FormatInt(life.Milliseconds(), 10))
		of := new(holder)
		return k.Hold(&Lease{Key: key, Nonce: "nonce", LoadTimeout: time.Hour, Holder: of}), of
	}

	a, of := hold("items:a")
	left := func() int64 { return server.MustDo(t, "PTTL", "{items:a}!l").(int64) }
	for renewals, last := 0, left(); renewals < 4; { // each after a third of its life
		now := left()
		require.Positive(t, now)
		if now > last {
			renewals++
		}
		last = now
		select {
		case <-time.After(10 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
	require.Zero(t, of.lost.Load()+of.doubted.Load())
	server.MustDo(t, "DEL", "{items:a}!l")
	require.Eventually(t, func() bool { return of.lost.Load() > 0 }, time.Minute, time.Millisecond, "it is not held any more")
	a.Stored()

	b, of := hold("items:b")
	b.ContextEnded() // nobody waits for the load any more
	require.Eventually(t, func() bool { return !held("items:b") }, time.Minute, time.Millisecond)
	require.Zero(t, of.lost.Load())
	b.Stored()

	c, of := hold("items:c")
	c.Loaded()
	c.ContextEnded() // which says nothing of a value that is being encoded
	server.Pause()
	require.Eventually(t, func() bool { return of.doubted.Load() > 0 }, time.Minute, time.Millisecond, "its renewals get no answer")
	server.Resume()
	c.Stored()
	require.NoError(t, background.Wait(context.Background()))
}

// dueNow makes all leases due.
func dueNow(k *Keeper) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for e := k.held.Front(); e != nil; e = e.Next() {
		e.Value.(*Held).due = time.Now()
	}
}

func TestTheLeasesThatAreDueAreRenewedInOneRoundTrip(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	const life, loads = time.Hour, 50
	store := redisstore.Open(redisstore.Options{
		Client: rueidis.ClientOption{InitAddress: []string{proxy.Addr()}, ForceSingleClient: true}, OpTimeout: 5 * time.Second, Lease: life,
	})
	t.Cleanup(store.Close)
	require.Eventually(t, store.Up, time.Minute, time.Millisecond)
	k := NewKeeper(store, life, 1<<20, func(f func()) { f() })
	name := func(i int) string { return "{items:" + strconv.Itoa(i) + "}!l" }
	var of holder
	var all []*Held
	for i := range loads {
		server.MustDo(t, "SET", name(i), "nonce", "PX", "60000")
		all = append(all, k.Hold(&Lease{Key: "items:" + strconv.Itoa(i), Nonce: "nonce", Holder: &of}))
	}
	require.Eventually(t, func() bool {
		proxy.ResetCounts()
		dueNow(k)
		k.renewDue()
		return proxy.Requests() == 1 // besides those by which the connection is probed
	}, time.Minute, 10*time.Millisecond)
	for i := range loads {
		require.Greater(t, server.MustDo(t, "PTTL", name(i)), int64(60_000), i)
	}

	server.MustDo(t, "DEL", name(0))
	all[1].Stored()
	server.MustDo(t, "DEL", name(1))
	dueNow(k)
	k.renewDue()
	require.EqualValues(t, 1, of.lost.Load(), "the other one has ended")
	require.Equal(t, loads-2, k.held.Len())
	for _, h := range all {
		h.Stored()
	}
	require.Zero(t, k.held.Len())
}

// A server that hangs holds up the renewals that are sent to it, and no others: a cluster has several.
func TestARenewalDoesNotWaitForTheLastOne(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	const life = 300 * time.Millisecond
	store := redisstore.Open(redisstore.Options{
		Client: rueidis.ClientOption{InitAddress: []string{proxy.Addr()}, ForceSingleClient: true}, OpTimeout: time.Minute, Lease: life,
	})
	t.Cleanup(store.Close)
	require.Eventually(t, store.Up, time.Minute, time.Millisecond)
	var background lifetime.Group
	k := NewKeeper(store, life, 1<<20, background.Go)
	held := proxy.HoldReplies(func(args []string) bool { return args[0] == "EVALSHA" && len(args) > 3 && args[3] == "items:a" })
	a := k.Hold(&Lease{Key: "items:a", Nonce: "nonce", Holder: new(holder)})
	held.Wait(t)
	k.mu.Lock()
	armed := k.armed
	k.mu.Unlock()
	require.True(t, armed)
	held.Release()
	a.Stored()
	require.NoError(t, background.Wait(context.Background()))
}
