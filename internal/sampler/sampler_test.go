package sampler

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// A draw of every hundredth hit would meet the same key again and again where calls come in a rhythm, and others never.
func TestEachKeyGetsItsShareOfChecksWhateverRhythmCallsHave(t *testing.T) {
	t.Parallel()
	for _, share := range []float64{0.01, 0.3, 1} {
		var k Sampler
		k.Share(Checking, share)
		for _, keys := range []int{1, 2, 3, 10, 89, 100} {
			const rounds = 20_000
			n := rand.Uint64()
			drawn := make([]int, keys)
			for range rounds {
				for i := range drawn {
					n++
					if k.Drawn(n) {
						drawn[i]++
					}
				}
			}
			for i, d := range drawn {
				require.InDelta(t, share*rounds, d, max(80, 0.05*share*rounds), "key %d of %d, share %v", i, keys, share)
			}
		}
	}
}

func TestNoHitIsDrawnWithoutAShare(t *testing.T) {
	t.Parallel()
	var k Sampler
	for range 1000 {
		require.False(t, k.Drawn(rand.Uint64()))
		for of := range purposes {
			require.False(t, k.Draws(of))
		}
	}
}

// The purpose with the larger share takes all hits that are drawn, and the other one its own share of all hits: not more often where both draw.
func TestEachPurposeTakesItsShareOfTheHits(t *testing.T) {
	t.Parallel()
	const hits = 1_000_000
	for _, c := range []struct{ checking, counting float64 }{{0.3, 0.01}, {0.01, 0.3}, {0.2, 0.2}, {0, 0.1}, {0.1, 0}} {
		var k Sampler
		if c.counting > 0 {
			k.Share(Counting, c.counting)
		}
		if c.checking > 0 {
			k.Share(Checking, c.checking)
		}
		var took [purposes]int
		for n := range uint64(hits) {
			if !k.Drawn(n) {
				continue
			}
			for of := range purposes {
				if k.Takes(of) {
					took[of]++
				}
			}
		}
		require.InDelta(t, c.checking*hits, took[Checking], 3000, c)
		require.InDelta(t, c.counting*hits, took[Counting], 3000, c)
	}
}
