package aside

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/stats"
)

// Each outcome counts as one call, a hit or a miss, whatever else it counts as.
func TestAnOutcomeIsCountedByItsStatusAndTier(t *testing.T) {
	t.Parallel()
	v := new(int)
	for _, tt := range []struct {
		out  engine.Outcome
		err  error
		want LabelMetrics
	}{
		{engine.Outcome{Value: v, Status: engine.StatusHit, Tier: engine.TierMemory}, nil, LabelMetrics{Hits: 1, MemoryHits: 1}},
		{engine.Outcome{Value: v, Status: engine.StatusHit, Tier: engine.TierRedis}, nil, LabelMetrics{Hits: 1, RedisHits: 1}},
		{engine.Outcome{Value: v, Status: engine.StatusStale, Tier: engine.TierMemory}, nil, LabelMetrics{Hits: 1, MemoryHits: 1, StaleHits: 1}},
		{engine.Outcome{Status: engine.StatusStale, Tier: engine.TierRedis}, nil, LabelMetrics{Hits: 1, RedisHits: 1, StaleHits: 1, NegativeHits: 1}},
		{engine.Outcome{Status: engine.StatusMiss, Tier: engine.TierOrigin}, nil, LabelMetrics{Misses: 1}},
		{engine.Outcome{Value: v, Status: engine.StatusFallback, Tier: engine.TierOrigin}, nil, LabelMetrics{Misses: 1, Fallbacks: 1}},
		{engine.Outcome{}, ErrMiss, LabelMetrics{Misses: 1}},
	} {
		var c stats.Counters
		count(&c, tt.out, tt.err, stats.Absent)
		require.Equal(t, tt.want, snapshot(&c), "%+v", tt.out)
		require.EqualValues(t, 1, c.Calls())
	}
}

// A process that only stores values has their sizes in its metrics, and no label that it has not used.
func TestASetAloneHasALabel(t *testing.T) {
	t.Parallel()
	used, unused := Policy{Name: "used", Category: "used", TTL: time.Hour}, Policy{Name: "unused", Category: "unused", TTL: time.Hour}
	c, err := New(Options{Policies: []Policy{used, unused}})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, Set(t.Context(), c, used.Key("a"), "v"))
	labels := c.Metrics().Labels
	require.Len(t, labels, 1)
	require.EqualValues(t, 1, labels["used"].ValueBytes.Count)
	require.Zero(t, labels["used"].Requests())
}
