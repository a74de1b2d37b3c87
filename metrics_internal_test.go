package aside

import (
	"testing"

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
