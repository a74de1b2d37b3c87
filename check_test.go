package aside_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// A hit differs from what its loader returns. Before the second look its key is removed, and Redis does not say any more what the generation
// of its category is. A value that is gone is consistent.
func TestACheckOfAValueThatIsGoneCountsAsConsistent(t *testing.T) {
	t.Parallel()
	if asidetest.InCluster {
		t.Skip("a connection to a cluster is given up where its user may not write the probe's key")
	}
	s := redistest.Start(t)
	s.MayDeny()
	p := aside.Policy{Category: "gone", TTL: time.Hour}
	o := asidetest.Anonymously(s.Addr())
	o.Namespace, o.Logger, o.Policies = "ns", asidetest.Quiet(), []aside.Policy{p}
	o.ConsistencyCheck = aside.ConsistencyCheck{SampleRate: 1, SettleTime: 4 * time.Second, MaxPerSecond: -1}
	c, err := aside.New(o)
	require.NoError(t, err)
	defer c.Close()
	var n atomic.Int64
	load := func(context.Context) (int64, error) { return n.Add(1), nil }
	require.Eventually(t, func() bool { return c.Health().State == aside.StateConnected }, asidetest.Bound, 5*time.Millisecond)
	key := p.Key(1)
	_, err = aside.GetOrLoad(t.Context(), c, key, load)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		r, err := aside.Lookup(t.Context(), c, key, load)
		require.NoError(t, err)
		return r.Tier == aside.TierMemory
	}, asidetest.Bound, 20*time.Millisecond)
	require.Eventually(t, func() bool { return n.Load() >= 2 }, asidetest.Bound, 5*time.Millisecond)
	var name, tag string
	for _, k := range s.MustDo(t, "KEYS", "*").([]any) {
		k := k.(string)
		if strings.HasSuffix(k, "gone:1") {
			name = k
		}
		if strings.HasSuffix(k, "%c:gone") {
			tag = k
		}
	}
	s.MustDo(t, "INCR", tag)
	s.MustDo(t, "DEL", name)
	s.MustDo(t, "ACL", "SETUSER", "default", "resetkeys", "~"+name, "~*%all", "~*%tags", "~*gone:1*")
	var m aside.LabelMetrics
	require.Eventually(t, func() bool {
		m = c.Metrics().Labels["gone"]
		return m.Checked+m.Unchecked > 0
	}, asidetest.Bound, 5*time.Millisecond)
	require.EqualValues(t, 1, m.Checked)
	require.Zero(t, m.Inconsistent)
	require.Zero(t, m.RedisErrors)
}
