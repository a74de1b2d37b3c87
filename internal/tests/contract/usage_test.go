package contract_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

func TestMetricsSayHowFullTheMemoryIs(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{MaxEntries: 100, MaxBytes: 1 << 20})
	require.Equal(t, aside.MemoryMetrics{MaxEntries: 100, MaxBytes: 1 << 20}, c.Metrics().InMemory)
	value := string(make([]byte, 1000))
	for i := range 10 {
		require.NoError(t, aside.Set(t.Context(), c, asidetest.Keyed.Key(i), value))
	}
	m := c.Metrics().InMemory
	require.Equal(t, 10, m.Entries)
	require.Greater(t, m.Bytes, int64(10_000))
	require.Less(t, m.Bytes, int64(12_000))
	one := m.Bytes / 10
	_, err := c.Invalidate(t.Context(), asidetest.Keyed.Key(0))
	require.NoError(t, err)
	require.Equal(t, 9*one, c.Metrics().InMemory.Bytes)

	for i := range 1000 {
		require.NoError(t, aside.Set(t.Context(), c, asidetest.Keyed.Key(i), value))
	}
	asidetest.Eventually(t, "values make room", func() bool { return c.Metrics().InMemory.Entries <= 100 })
	m = c.Metrics().InMemory
	require.GreaterOrEqual(t, m.Evictions, uint64(900))
	require.EqualValues(t, m.Evictions*uint64(one), m.EvictedBytes)
	require.EqualValues(t, int64(m.Entries)*one, m.Bytes)
}

func TestMetricsSayWhatIsLoaded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{MaxLoads: 2, MaxQueuedLoads: 7})
		require.Equal(t, aside.LoadingMetrics{Limit: 2, QueueLimit: 7}, c.Metrics().Loading)
		held := asidetest.NewHeld()
		for i := range 5 {
			asidetest.Background(t, c, asidetest.Keyed.Key(i), held.Load("v"))
		}
		synctest.Wait()
		require.Equal(t, aside.LoadingMetrics{Running: 2, Queued: 3, Limit: 2, QueueLimit: 7}, c.Metrics().Loading)
		close(held.Release)
		synctest.Wait()
		require.Equal(t, aside.LoadingMetrics{Limit: 2, QueueLimit: 7}, c.Metrics().Loading)
	})
}

func TestMetricsSayWhichLeasesAreHeldAndUnreturned(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	o := asidetest.At(proxy.Addr())
	o.OpTimeout = 200 * time.Millisecond
	c := asidetest.Connected(t, o)
	loading := func() aside.LoadingMetrics { return c.Metrics().Loading }
	for tries := 0; ; tries++ { // a lease that Redis is too slow to grant is none
		held := asidetest.NewHeld()
		got := asidetest.Background(t, c, asidetest.Keyed.Key("a", tries), held.Load("v"))
		<-held.Began
		leased := loading().LeasesHeld
		if leased == 1 {
			proxy.Blackhole(true) // neither the value nor the release arrives
		}
		close(held.Release)
		require.Equal(t, "v", <-got)
		if leased == 1 {
			break
		}
	}
	asidetest.Eventually(t, "the lease could not be released", func() bool { l := loading(); return l.LeasesHeld == 0 && l.LeasesUnreturned == 1 })
	proxy.Blackhole(false)
	proxy.CloseConnections()
	asidetest.Eventually(t, "the lease is released", func() bool { return loading().LeasesUnreturned == 0 })
}

func TestMetricsSayWhatRedisHasNotConfirmed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	require.Zero(t, c.Metrics().Journal)
	server.Kill()
	asidetest.Eventually(t, "the loss is noticed", func() bool { return c.Health().State == aside.StateDegraded })
	began := time.Now()
	receipt, err := c.Invalidate(t.Context(), asidetest.Keyed.Key("a"), asidetest.Keyed.Key("b"))
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)
	ended, end := context.WithCancel(t.Context())
	end()
	pattern, err := c.InvalidatePattern(ended, asidetest.Keyed.Match("x", aside.Wildcard))
	require.NoError(t, err)
	m := c.Metrics().Journal
	require.Equal(t, 3, m.Unconfirmed)
	require.Equal(t, 1, m.Patterns)
	require.Positive(t, m.Oldest)
	require.LessOrEqual(t, m.Oldest, time.Since(began))
	text, err := json.Marshal(m)
	require.NoError(t, err)
	require.JSONEq(t, fmt.Sprintf(`{"unconfirmed":3,"patterns":1,"oldestSeconds":%v}`, m.Oldest.Seconds()), string(text))

	server.Restart()
	require.NoError(t, receipt.Wait(t.Context()))
	require.NoError(t, pattern.Wait(t.Context()))
	asidetest.Eventually(t, "all is confirmed", func() bool { return c.Metrics().Journal == aside.JournalMetrics{} })
}

func TestMetricsSayWhatWasInvalidated(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{Policies: []aside.Policy{asidetest.Keyed}})
	require.Equal(t, map[string]uint64{"keys": 0, "tags": 0, "category": 0, "pattern": 0, "all": 0}, c.Metrics().Invalidations)
	for n, call := range []func() (aside.Receipt, error){
		func() (aside.Receipt, error) {
			return c.Invalidate(t.Context(), asidetest.Keyed.Key("a"), asidetest.Keyed.Key("b"))
		},
		func() (aside.Receipt, error) { return c.InvalidateTags(t.Context(), "x", "y") },
		func() (aside.Receipt, error) { return c.InvalidateCategory(t.Context(), asidetest.Keyed.Category) },
		func() (aside.Receipt, error) {
			return c.InvalidatePattern(t.Context(), asidetest.Keyed.Match("x", aside.Wildcard))
		},
		func() (aside.Receipt, error) { return c.InvalidateAll(t.Context()) },
	} {
		for range n + 1 {
			_, err := call()
			require.NoError(t, err)
		}
	}
	_, err := c.Invalidate(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]uint64{"keys": 1, "tags": 2, "category": 3, "pattern": 4, "all": 5}, c.Metrics().Invalidations, "a call counts once")
}

func TestMetricsSayWhenAndWhereTheyWereRead(t *testing.T) {
	t.Parallel()
	a, b := asidetest.NewCache(t, aside.Options{}), asidetest.NewCache(t, aside.Options{})
	before := time.Now()
	m := a.Metrics()
	require.False(t, m.At.Before(before))
	require.NotEmpty(t, m.Process)
	require.Equal(t, m.Process, b.Metrics().Process)
	require.Equal(t, m.Process, (*aside.Cache)(nil).Metrics().Process)
}
