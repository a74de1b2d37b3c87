package faults_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// Options of the client that New takes, each of which could be in the way of what the cache does with its connections.
func TestAnOptionOfTheClientThatIsTakenBreaksNoPromise(t *testing.T) {
	t.Parallel()
	never := func(int, rueidis.Completed, error) time.Duration { panic("nothing is retried") }
	for name, change := range map[string]func(*rueidis.ClientOption){
		"AlwaysPipelining":            func(r *rueidis.ClientOption) { r.AlwaysPipelining = true },
		"AlwaysRESP2":                 func(r *rueidis.ClientOption) { r.AlwaysRESP2 = true },
		"BlockingPoolCleanup":         func(r *rueidis.ClientOption) { r.BlockingPoolCleanup, r.BlockingPoolMinSize = time.Millisecond, 1 },
		"BlockingPoolSize":            func(r *rueidis.ClientOption) { r.BlockingPoolSize = 1 },
		"CacheSizeEachConn":           func(r *rueidis.ClientOption) { r.CacheSizeEachConn = 1 },
		"ClientName":                  func(r *rueidis.ClientOption) { r.ClientName = "gateway-7" },
		"ClientNoEvict":               func(r *rueidis.ClientOption) { r.ClientNoEvict = true },
		"ClientSetInfo":               func(r *rueidis.ClientOption) { r.ClientSetInfo = []string{"gateway", "1.0"} },
		"ClientSetInfo, refused":      func(r *rueidis.ClientOption) { r.ClientSetInfo = []string{"no spaces in it", "1.0"} },
		"ClientSetInfo, of one":       func(r *rueidis.ClientOption) { r.ClientSetInfo = []string{"gateway"} },
		"DisableRetry":                func(r *rueidis.ClientOption) { r.DisableRetry = true },
		"DisableTCPNoDelay":           func(r *rueidis.ClientOption) { r.DisableTCPNoDelay = true },
		"EnableReplicaAZInfo":         func(r *rueidis.ClientOption) { r.EnableReplicaAZInfo, r.AZFromInfo = true, true },
		"MaxFlushDelay":               func(r *rueidis.ClientOption) { r.MaxFlushDelay = 5 * time.Millisecond },
		"PipelineMultiplex":           func(r *rueidis.ClientOption) { r.PipelineMultiplex = 3 },
		"PipelineMultiplex, negative": func(r *rueidis.ClientOption) { r.PipelineMultiplex = -7 },
		"ReadBufferEachConn":          func(r *rueidis.ClientOption) { r.ReadBufferEachConn = 32 },
		"RetryDelay":                  func(r *rueidis.ClientOption) { r.RetryDelay = never },
		"RingScaleEachConn, small":    func(r *rueidis.ClientOption) { r.RingScaleEachConn = 1 },
		"RingScaleEachConn, large":    func(r *rueidis.ClientOption) { r.RingScaleEachConn = 16 },
		"ShuffleInit":                 func(r *rueidis.ClientOption) { r.ShuffleInit = true },
		"WriteBufferEachConn":         func(r *rueidis.ClientOption) { r.WriteBufferEachConn = 32 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if asidetest.AsUser && (name == "ClientNoEvict" || name == "EnableReplicaAZInfo") {
				t.Skip("these ask for more than the documented user may do")
			}
			server := redistest.Start(t)
			o := asidetest.Anonymously(server.Addr())
			change(&o.Redis)
			c, other := asidetest.Connected(t, o), asidetest.Connected(t, asidetest.Anonymously(server.Addr()))
			h := c.Health()
			require.Equal(t, name != "AlwaysRESP2", h.Tracking, h.Reason)
			for i, size := range []int{5, 1 << 20} { // one in chunks, too
				key := asidetest.Items.Key("a", i)
				old, new := bytes.Repeat([]byte("o"), size), bytes.Repeat([]byte("n"), size)
				get := func(c *aside.Cache, value []byte) aside.Result[[]byte] {
					r, err := aside.Lookup(t.Context(), c, key, func(context.Context) ([]byte, error) { return value, nil })
					require.NoError(t, err)
					return r
				}
				require.Equal(t, old, get(other, old).Value)
				asidetest.Eventually(t, "redis has it", func() bool { return server.MustDo(t, "EXISTS", key.String()) == int64(1) })
				asidetest.Eventually(t, "memory has it", func() bool {
					r := get(c, new)
					require.Equal(t, aside.StatusHit, r.Status, "%v: %s", c.Health(), r.Reason)
					require.True(t, bytes.Equal(old, r.Value))
					return r.Tier == aside.TierMemory || !h.Tracking
				})
				receipt, err := other.Invalidate(t.Context(), key)
				require.NoError(t, err)
				require.True(t, receipt.Confirmed)
				asidetest.Eventually(t, "the invalidation is seen", func() bool { return bytes.Equal(new, get(c, new).Value) })
			}
			receipt, err := c.InvalidateAll(t.Context())
			require.NoError(t, err)
			require.True(t, receipt.Confirmed)
			for i := range 2 {
				_, err := aside.Get[[]byte](t.Context(), c, asidetest.Items.Key("a", i))
				require.ErrorIs(t, err, aside.ErrMiss)
			}
			keys, values := make([]aside.Key, 300), make(map[int]bool)
			got, err := aside.GetOrLoadMany(t.Context(), c, ids(len(keys)), func(i int) aside.Key { return asidetest.Items.Key("many", i) },
				func(_ context.Context, ids []int) (map[int]string, error) {
					m := make(map[int]string)
					for _, i := range ids {
						m[i], values[i] = fmt.Sprint(i), true
					}
					return m, nil
				})
			require.NoError(t, err)
			require.Len(t, got, len(keys))
			require.Len(t, values, len(keys))
			require.Equal(t, aside.StateConnected, c.Health().State)
		})
	}
}

// With a ConnLifetime a connection ends of itself, and with it all that it has vouched for.
func TestAConnectionThatEndsOfItselfIsReplaced(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.Anonymously(server.Addr())
	o.Redis.ConnLifetime = time.Second
	c, other := asidetest.Connected(t, o), asidetest.Connected(t, asidetest.Anonymously(server.Addr()))
	want := "old"
	for gaps := uint64(1); gaps <= 2; gaps++ {
		key := asidetest.Items.Key("a")
		get := func() string {
			v, err := aside.GetOrLoad(t.Context(), c, key, asidetest.Value(want))
			require.NoError(t, err)
			return v
		}
		asidetest.Eventually(t, "the connection ends", func() bool { get(); return c.Metrics().TrackingLost >= gaps })
		want = fmt.Sprint("new ", gaps)
		receipt, err := other.Invalidate(t.Context(), key)
		require.NoError(t, err)
		require.True(t, receipt.Confirmed)
		asidetest.Eventually(t, "what was invalidated is loaded anew", func() bool { return get() == want })
		asidetest.Eventually(t, "the next one is made", func() bool { return c.Health().State == aside.StateConnected })
	}
}

func ids(n int) (list []int) {
	for i := range n {
		list = append(list, i)
	}
	return list
}
