package redisstore

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// A Tag names what has a generation: a key, and how long Ensure has it live at least from now on. Zero is for ever. To Bump, the
// life is only whether there is one: what exists keeps the time that it has left, and what does not is not made.
type Tag struct {
	Key  string
	Life time.Duration
}

// A Generation is that of a tag, or the error of this tag alone.
type Generation struct {
	Value   uint64
	Err     error
	Missing bool // of Bump: the tag had no generation, and has none now
}

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

// withGeneration reads a tag's generation. A generation is what the scripts write: a decimal number from 1 to 2^53-1, without a
// sign or zeros before it. Lua's numbers are exact up to there, which is µs until the year 2255; from 2^53 on, adding 1 changes
// nothing, and an invalidation would change nothing either. Any other content of the key counts as none: a damaged value, or what
// somebody else has written. ParseGeneration has the same rule. A longer text is no generation, so no more than 17 bytes are read.
const withGeneration = `
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local text = redis.pcall('GETRANGE', KEYS[1], 0, 16)
local generation = 0
if type(text) == 'string' and #text <= 16 and string.match(text, '^[1-9]%d*$') and tonumber(text) < 9007199254740992 then
	generation = tonumber(text)
end
`

// bump gives a tag its next generation, one that it never had before: even where the key was lost, the server's time is
// beyond every generation that it ever had.
//
//	KEYS  the tag's key
//	ARGV  life of the key in ms where the server does not say how long it has left, 0 for ever
//
// The reply is the generation in decimal, with a minus before it where there was no key, and is none now. A key that lives for a while keeps the time that it has left. Where there is none, no
// entry carries a generation that counts, so none is left behind; but the key is written and removed, which tells those who have
// read that it is missing. The next generation is the server's time, unless the last one is beyond that, and below 2^53 in any case.
//
// A server without memory refuses the first write of a script if that takes memory, but not the second one. UNLINK takes none.
// Should SET be refused all the same, the last generation is gone, which invalidates as much: an entry that carries it then carries
// one that is not known.
var bump = repeatable(newScript(withGeneration + `
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

// ensure answers with a tag's generation, as bump does, and gives it one where it has none.
//
//	KEYS  the tag's key
//	ARGV  how long the key must live in ms, 0 for ever, and how long it lives that has less left or none
//
// The second life is longer than the first one, so that the key is not changed each time: a change makes every process drop what
// it has in memory with that tag. A user who may not ask for the time left gives keys a long life instead.
var ensure = repeatable(newScript(withGeneration + `
local least, life = tonumber(ARGV[1]), ARGV[2]
local left = least > 0 and redis.pcall('PTTL', KEYS[1]) or 0
if generation > 0 then
	if type(left) == 'number' and left >= 0 and left < least then
		redis.call('PEXPIRE', KEYS[1], life)
	end
	return text
end
if type(left) ~= 'number' then
	life = '` + strconv.FormatInt(unknownLife.Milliseconds(), 10) + `'
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

// Ensure asks for the generations of tags, the last of them after all others, wherever they are: in one round trip of a single
// server, or in two. A tag that has none is given one.
func (s *Store) Ensure(ctx context.Context, tags ...Tag) []Generation {
	calls := s.ofTags(ensure, tags)
	if last := len(calls) - 1; last > 0 && s.table.Load().only() == nil {
		return generations(append(s.run(ctx, calls[:last]), s.run(ctx, calls[last:])...))
	}
	return generations(s.run(ctx, calls))
}

// Bump gives tags their next generations, the first of them before all others, wherever they are: in one round trip of a single
// server, or in two. In a cluster the others are left alone where the first fails, whose error is then theirs.
func (s *Store) Bump(ctx context.Context, tags ...Tag) []Generation {
	calls := s.ofTags(bump, tags)
	var results []rueidis.RedisResult
	if len(calls) > 1 && s.table.Load().only() == nil {
		results = s.run(ctx, calls[:1])
		if err := results[0].Error(); err != nil {
			results = unsent(results, len(calls), err)
		} else {
			results = append(results, s.run(ctx, calls[1:])...)
		}
	} else {
		results = s.run(ctx, calls)
	}
	keys := make([]string, len(tags))
	for i, t := range tags {
		keys[i] = t.Key
	}
	s.announce(ctx, keys)
	return generations(results)
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
