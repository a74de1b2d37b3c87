package engine

import (
	"math/rand/v2"
	"time"
)

// Longest is what a longer duration counts as: the sum of two of them and any time stays within an int64 of nanoseconds.
const Longest = 100 * 365 * 24 * time.Hour

// Bounded is d, or the nearest duration from none to longest.
func Bounded(d time.Duration) time.Duration { return min(max(d, 0), Longest) }

// shortened takes a random share of up to fraction from ttl.
func shortened(ttl time.Duration, fraction float64) time.Duration {
	ttl = min(ttl, Longest)
	return ttl - time.Duration(rand.Float64()*fraction*float64(ttl))
}

// jittered spreads a pause over half to one and a half of itself, so that those who wait for the same thing do not look at
// the same moments.
func jittered(pause time.Duration) time.Duration { return pause/2 + rand.N(pause) }
