package redisstore

import (
	"strconv"

	"github.com/gatewayz/aside/internal/stats"
)

// An Outdated names a value that is removed if it carries an older generation of one of some tags.
type Outdated struct {
	Key  string
	Tags []Current
}

// A Current is the current generation of a tag.
type Current struct {
	Tag   string
	Value uint64
}

const (
	longestTags = 1 << 16 // how many bytes of the tags of a value are read: more than any build writes
	firstTags   = 128     // how many are read with the head; those of most values are shorter
)

// sweepWork bounds the work of one call of sweep: its other clients wait as long. One step is a tag, or a command to Redis, and takes a
// microsecond or less.
const sweepWork = 1000

// sweep removes those of some values that carry an older generation of one of some tags. A value that was stored since, by a load that
// began after the tags were invalidated, stays. So does the lease: its holder's value will be checked by its own generations.
//
//	KEYS  K, another K, … in a cluster of one slot
//	ARGV  the format, offset of the length of the tags, offset of the tags; then tag, generation, …
//
// The script stops after sweepWork: a value in chunks may take as long as hundreds of small ones. The reply is how many of the values the
// script has looked at, and for each tag for which it has removed values the number of the tag, from 0, and of the values.
//
// Values that were loaded at about the same time carry the same tags. The script parses the same bytes once.
//
// A value that this build cannot read stays. A carried number that is no generation is older than any.
var sweep = newScript(stats.Sweeping, formatFrom(1)+`
local tagsAt, lengthAt, byte, sub = tonumber(ARGV[9]), tonumber(ARGV[8]), string.byte, string.sub
local numbers, verdicts, removed, seen, work = {}, {}, {}, 0, 0
for i = 10, #ARGV, 2 do
	numbers[ARGV[i]] = i
end
local function verdictOn(tags)
	local last, at, count = #tags, 3, byte(tags, 1) + byte(tags, 2) * 256
	for _ = 1, count do
		if at + 1 > last then
			return 0
		end
		local to = at + 1 + byte(tags, at) + byte(tags, at + 1) * 256
		if to + 8 > last then
			return 0
		end
		work = work + 1
		local i = numbers[sub(tags, at + 2, to)]
		if i then
			local carried = 0
			for b = to + 8, to + 1, -1 do
				carried = carried * 256 + byte(tags, b)
			end
			if carried < tonumber(ARGV[i + 1]) or carried >= 9007199254740992 then
				return i
			end
		end
		at = to + 9
	end
	return 0
end
for n, key in ipairs(KEYS) do
	local head = redis.pcall('GETRANGE', key, 0, tagsAt + `+strconv.Itoa(firstTags-1)+`)
	if type(head) == 'string' and #head >= tagsAt + 2 and sub(head, 1, #magic) == magic then
		local itsVersion, itsFlags = byte(head, #magic + 1, #magic + 2)
		local a, b, c, d = byte(head, lengthAt + 1, lengthAt + 4)
		local length = a + b * 256 + c * 65536 + d * 16777216
		if itsVersion == version and itsFlags <= flags and length >= 2 and length <= `+strconv.Itoa(longestTags)+` then
			if #head < tagsAt + length then
				head = redis.call('GETRANGE', key, 0, tagsAt + length - 1)
			end
			local tags = sub(head, tagsAt + 1, tagsAt + length)
			local verdict = 0
			if #tags == length then
				verdict = verdicts[tags] or verdictOn(tags)
				verdicts[tags] = verdict
			end
			if verdict > 0 then
				if math.floor(itsFlags / chunked) % 2 == 1 then
					local nonce, count = chunksOf(key)
					letGo(key, nonce, count)
					work = work + count
				end
				removed[verdict] = (removed[verdict] or 0) + redis.call('UNLINK', key)
			end
		end
	end
	seen, work = n, work + 2
	if work >= `+strconv.Itoa(sweepWork)+` then
		break
	end
end
local reply = {seen}
for i, n in pairs(removed) do
	reply[#reply + 1] = (i - 10) / 2
	reply[#reply + 1] = n
end
return reply
`)
