package aside

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/stats"
)

// Each outcome counts as one call, a hit or a miss, whatever else it counts as.
func TestAnOutcomeIsCountedByItsStatusAndTier(t *testing.T) {
	t.Parallel()
	v := new(int)
	for _, tt := range []struct {
		out  outcome
		err  error
		want LabelMetrics
	}{
		{outcome{value: v, status: StatusHit, tier: TierMemory}, nil, LabelMetrics{Hits: 1, MemoryHits: 1}},
		{outcome{value: v, status: StatusHit, tier: TierRedis}, nil, LabelMetrics{Hits: 1, RedisHits: 1}},
		{outcome{value: v, status: StatusStale, tier: TierMemory}, nil, LabelMetrics{Hits: 1, MemoryHits: 1, StaleHits: 1}},
		{outcome{absent: ErrNotFound, status: StatusStale, tier: TierRedis}, nil, LabelMetrics{Hits: 1, RedisHits: 1, StaleHits: 1, NegativeHits: 1}},
		{outcome{absent: ErrNotFound, status: StatusMiss, tier: TierOrigin}, nil, LabelMetrics{Misses: 1}},
		{outcome{value: v, status: StatusFallback, tier: TierOrigin}, nil, LabelMetrics{Misses: 1, Fallbacks: 1}},
		{outcome{}, ErrMiss, LabelMetrics{Misses: 1}},
	} {
		var c stats.Counters
		tt.out.count(&c, tt.err)
		require.Equal(t, tt.want, snapshot(&c), "%+v", tt.out)
		require.EqualValues(t, 1, c.Calls())
	}
}
