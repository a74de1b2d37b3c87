package redisstore

import (
	"errors"
	"strconv"
	"time"
)

// GenerationLen is as many bytes of a tag's key as tell whether it holds a generation.
const GenerationLen = 17

// firstUnsafe is 2^53, from which on the numbers of Lua, in which the scripts count, are not exact.
const firstUnsafe = 1 << 53

var errNoGeneration = errors.New("no generation: it is not a decimal number from 1 to 2^53-1")

// ParseGeneration reads what the key of a tag holds. It has the rule of the scripts: see withGeneration.
func ParseGeneration(text []byte) (uint64, error) {
	if len(text) == 0 || len(text) >= GenerationLen || text[0] == '0' {
		return 0, errNoGeneration
	}
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil || !IsGeneration(n) {
		return 0, errNoGeneration
	}
	return n, nil
}

// IsGeneration reports whether n can be the generation of a tag.
func IsGeneration(n uint64) bool { return n > 0 && n < firstUnsafe }

const (
	// unknownLife is how long the key of a tag lives of which the server does not say how long it has left.
	unknownLife = 30 * 24 * time.Hour
	// lifeFactor is how much longer than it must a tag's key lives from when it has to be changed for that: so that this is
	// seldom, since a change makes every process drop what it has in memory with that tag.
	lifeFactor = 3
	// longestLife stands for any longer one: what it is added to does not overflow.
	longestLife = 100 * 365 * 24 * time.Hour / lifeFactor
)

// lifeArgs are what a script wants to know of a tag's life.
func lifeArgs(script *script, life time.Duration) []string {
	ms := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	switch {
	case life == 0:
		return []string{"0", "0"}
	case script == bump:
		return []string{ms(unknownLife)}
	}
	life = min(life, longestLife)
	return []string{ms(life), ms(lifeFactor * life)}
}
