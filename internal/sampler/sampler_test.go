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
		k := Sampler{below: below(share)}
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
		require.False(t, k.DrawsCheck())
		require.False(t, k.DrawsTold())
	}
}
