package engine

import (
	"math/rand/v2"
	"time"
)

// Longest is the longest duration that is used. The sum of two of them and any time fits into an int64 of nanoseconds.
const Longest = 100 * 365 * 24 * time.Hour

// Bounded returns d, or the nearest duration between 0 and Longest.
func Bounded(d time.Duration) time.Duration { return min(max(d, 0), Longest) }

// shortened shortens ttl by a random share of up to fraction.
func shortened(ttl time.Duration, fraction float64) time.Duration {
	ttl = min(ttl, Longest)
	return ttl - time.Duration(rand.Float64()*fraction*float64(ttl))
}

// jittered returns a random pause between half and one and a half of pause, so that processes that wait for the same key do not poll at the
// same time.
func jittered(pause time.Duration) time.Duration { return pause/2 + rand.N(pause) }
