package redisstore

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/stats"
)

// A Tag names the key of a tag, and how long Ensure keeps the key alive at least from now on; 0 is for ever. For Bump only whether
// Life is 0 counts: with another Life, an existing key keeps its remaining time, and a missing key is not created.
type Tag struct {
	Key  string
	Life time.Duration
}

// A Generation is the generation of a tag, or the error of this tag alone.
type Generation struct {
	Value   uint64
	Err     error
	Missing bool // from Bump: the tag had no generation, and has none now
}

// GenerationLen is how many bytes of a tag's key tell whether it holds a generation.
const GenerationLen = 17

// firstUnsafe is 2^53. The scripts count in Lua's numbers, which are not exact from there on.
const firstUnsafe = 1 << 53

var errNoGeneration = errors.New("no generation: it is not a decimal number from 1 to 2^53-1")

// ParseGeneration parses the value of a tag's key, by the same rule as the scripts: see withGeneration.
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

// withGeneration reads a tag's generation: a decimal number from 1 to 2^53-1, without a sign or leading zeros. Lua's numbers are
// exact up to there, which is µs until the year 2255. From 2^53 on, adding 1 changes nothing, so an invalidation would change
// nothing either. Any other content counts as no generation: the value is damaged, or another program has written it.
// ParseGeneration has the same rule. A longer text is no generation, so no more than 17 bytes are read.
const withGeneration = `
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local text = redis.pcall('GETRANGE', KEYS[1], 0, 16)
local generation = 0
if type(text) == 'string' and #text <= 16 and string.match(text, '^[1-9]%d*$') and tonumber(text) < 9007199254740992 then
	generation = tonumber(text)
end
`

// bump gives a tag a generation that it never had before. Even where the key was lost, the server's time is greater than every
// generation that the tag ever had.
//
//	KEYS  the tag's key
//	ARGV  life of the key in ms where the server does not say how long it has left, 0 for ever
//
// The reply is the generation in decimal, with a minus before it where there was no key, and is none now. A key with a limited
// life keeps its remaining time. Where such a key is missing, no entry carries a generation that counts, so no key is left behind.
// But the key is written and removed, which notifies the clients that have read it as missing. The next generation is the server's
// time, unless the last generation is greater, and is below 2^53 in any case.
//
// A server without memory refuses the first write of a script if that takes memory, but not the second one. UNLINK takes none. If
// SET is refused all the same, the last generation is lost, which invalidates as much: an entry that carries it then carries an
// unknown generation.
var bump = repeatable(newScript(stats.Invalidating, withGeneration+`
local life, exists = ARGV[1], redis.call('EXISTS', KEYS[1]) == 1
if life ~= '0' and exists then
	local left = redis.pcall('PTTL', KEYS[1])
	if type(left) == 'number' and left > 0 then
		life = string.format('%.0f', left)
	end
end
local following = math.max(generation + 1, now)
if following >= 9007199254740992 then
	following = now
end
following = string.format('%.0f', following)
redis.call('UNLINK', KEYS[1])
local done
if life == '0' then
	done = redis.pcall('SET', KEYS[1], following)
else
	done = redis.pcall('SET', KEYS[1], following, 'PX', life)
end
if done.err then
	if string.sub(done.err, 1, 3) ~= 'OOM' then
		return done
	end
elseif life ~= '0' and not exists then
	redis.call('UNLINK', KEYS[1])
end
if life ~= '0' and not exists then
	return '-' .. following
end
return following
`))

// ensure answers with a tag's generation, as bump does. A tag without a generation gets one.
//
//	KEYS  the tag's key
//	ARGV  least life of the key in ms, 0 for ever, and its new life where it has less left, or is missing
//
// The new life is longer than the least life, so that the key is seldom changed: a change makes every process drop the entries
// with that tag from memory. Where the user may not ask for the remaining time, keys get a long life instead.
var ensure = repeatable(newScript(stats.Reading, withGeneration+`
local least, life = tonumber(ARGV[1]), ARGV[2]
local left = least > 0 and redis.pcall('PTTL', KEYS[1]) or 0
if generation > 0 then
	if type(left) == 'number' and left >= 0 and left < least then
		redis.call('PEXPIRE', KEYS[1], life)
	end
	return text
end
if type(left) ~= 'number' then
	life = '`+strconv.FormatInt(unknownLife.Milliseconds(), 10)+`'
end
local first = string.format('%.0f', now)
if least == 0 then
	redis.call('SET', KEYS[1], first)
else
	redis.call('SET', KEYS[1], first, 'PX', life)
end
return first
`))

const (
	// unknownLife is the new life of a tag's key whose remaining time the server does not say.
	unknownLife = 30 * 24 * time.Hour
	// lifeFactor is how many times its least life a tag's key gets when its life is renewed. So it is seldom renewed: a change of
	// the key makes every process drop the entries with that tag from memory.
	lifeFactor = 3
	// longestLife replaces any longer life, so that sums do not overflow.
	longestLife = 100 * 365 * 24 * time.Hour / lifeFactor
)

// lifeArgs are a script's arguments for a tag's life.
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

// Ensure reads the generations of tags, the last one after all others, wherever they are: in one round trip of a single server, or
// in two. A tag without a generation gets one.
func (s *Store) Ensure(ctx context.Context, tags ...Tag) []Generation {
	calls := s.ofTags(ensure, tags)
	if last := len(calls) - 1; last > 0 && s.table.Load().only() == nil {
		return generations(append(s.run(ctx, calls[:last]), s.run(ctx, calls[last:])...))
	}
	return generations(s.run(ctx, calls))
}

// Bump gives tags their next generations, the first one before all others, wherever they are: in one round trip of a single
// server, or in two. Where the first fails in a cluster, the others are left unchanged, and have its error.
func (s *Store) Bump(ctx context.Context, tags ...Tag) []Generation {
	generations, _ := s.bumpBeside(ctx, tags, nil)
	return generations
}

// bumpBeside is Bump with other calls in the same round trip, or in the last one. These are made whatever becomes of the tags.
func (s *Store) bumpBeside(ctx context.Context, tags []Tag, others []call) ([]Generation, []rueidis.RedisResult) {
	calls := s.ofTags(bump, tags)
	var results []rueidis.RedisResult
	if len(calls) > 1 && s.table.Load().only() == nil {
		results = s.run(ctx, calls[:1])
		if err := results[0].Error(); err != nil {
			results = append(unsent(results, len(calls), err), s.run(ctx, others)...)
		} else {
			results = append(results, s.run(ctx, append(calls[1:], others...))...)
		}
	} else {
		results = s.run(ctx, append(calls, others...))
	}
	keys := make([]string, len(tags))
	for i, t := range tags {
		keys[i] = t.Key
	}
	s.announce(ctx, keys)
	return generations(results[:len(tags)]), results[len(tags):]
}

func (s *Store) ofTags(script *script, tags []Tag) []call {
	calls := make([]call, len(tags))
	for i, t := range tags {
		calls[i] = call{script, []string{s.namespace.name(t.Key)}, lifeArgs(script, t.Life)}
	}
	return calls
}

func generations(results []rueidis.RedisResult) []Generation {
	out := make([]Generation, len(results))
	for i, r := range results {
		text, err := r.ToString()
		if err == nil {
			text, out[i].Missing = strings.CutPrefix(text, "-")
			out[i].Value, err = ParseGeneration([]byte(text))
		}
		out[i].Err = err
	}
	return out
}
