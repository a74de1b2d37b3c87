package aside

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What is stale or "not found" is inside the hits wherever it came from.
func TestStaleAndNegativeHitsAreHits(t *testing.T) {
	t.Parallel()
	var c counters
	v := new(int)
	c.count(outcome{value: v, status: StatusHit, tier: TierMemory}, nil)
	c.count(outcome{value: v, status: StatusStale, tier: TierMemory}, nil)
	c.count(outcome{value: v, status: StatusStale, tier: TierRedis}, nil)
	c.count(outcome{absent: ErrNotFound, status: StatusStale, tier: TierRedis}, nil)
	c.count(outcome{absent: ErrNotFound, status: StatusMiss, tier: TierOrigin}, nil)
	c.count(outcome{value: v, status: StatusFallback, tier: TierOrigin}, nil)
	c.count(outcome{}, ErrMiss)
	require.Equal(t, LabelMetrics{Hits: 4, MemoryHits: 2, RedisHits: 2, StaleHits: 3, NegativeHits: 1, Misses: 3, Fallbacks: 1}, c.snapshot())
}

func TestEveryCallIsCountedAsOne(t *testing.T) {
	t.Parallel()
	var m metrics
	v := new(int)
	for _, o := range []outcome{
		{value: v, status: StatusHit, tier: TierMemory},
		{value: v, status: StatusStale, tier: TierRedis},
		{value: v, status: StatusMiss, tier: TierOrigin},
		{value: v, status: StatusFallback, tier: TierOrigin},
	} {
		before := m.calls()
		m.label("a", true).count(o, nil)
		m.label("b", true).count(o, nil)
		require.Equal(t, before+2, m.calls(), "%v", o)
	}
	before := m.calls()
	m.label("a", true).count(outcome{}, ErrMiss)
	require.Equal(t, before+1, m.calls())
}
