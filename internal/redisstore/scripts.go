package redisstore

import (
	"crypto/sha1"
	"encoding/hex"
	"strconv"
	"strings"
)

// Each script works on one key K and its lease L = {K}!l, which a cluster puts into the same slot. A lease's value is the
// nonce of the one fill that it allows. Nothing is ever stored but by fill, under a lease that is still held; so a value
// whose load began before an invalidation, which removes the lease too, is refused however late it comes.

// acquire looks at K and answers with what the caller can do.
//
//	KEYS  K, L
//	ARGV  nonce, lease in ms, head of a value of K that the caller has rejected, its length ("" for none, else "=" or, where it was
//	      cut, ">" and the bytes that were read), the longest life in ms that a lease can have
//
// The reply is {0, now} while K has a value to be read, {1, now} with the lease granted, or {2, now} while another holds it;
// now is the server's time in µs. A value that the caller rejected, an empty one, or a key that holds no string, counts as absent:
// else nobody could replace it before it expires.
//
// A lease that lives for ever, or for longer than any, was written by somebody else, or the server's clock was set back: nobody
// would come to fill, and everybody would wait. It is taken over; should it have a holder, that one's fill is refused.
var acquire = newScript(`
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local length = redis.pcall('STRLEN', KEYS[1])
if type(length) == 'table' and string.sub(length.err, 1, 9) ~= 'WRONGTYPE' then
	redis.call('STRLEN', KEYS[1]) -- which fails with the words that say where
end
if type(length) == 'number' and length > 0 then
	local how, read = string.sub(ARGV[4], 1, 1), tonumber(string.sub(ARGV[4], 2))
	local rejected = read and #ARGV[3] > 0 and (how == '=' and length == read or how == '>' and length >= read) and
		redis.call('GETRANGE', KEYS[1], 0, #ARGV[3] - 1) == ARGV[3]
	if not rejected then
		return {0, now}
	end
end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then
	return {1, now}
end
local left = redis.call('PTTL', KEYS[2])
if left < 0 or left > tonumber(ARGV[5]) then
	redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
	return {1, now}
end
return {2, now}
`)

// What a script must know of the format of values is behind its own arguments: magic, version, flags, the offsets of the load's
// start and of the nonce, and the flag of a value whose payload is in chunks. formatFrom makes locals of it.
//
// A chunked value that goes takes its chunks with it, but not at once: somebody may be reading them. They are found by the
// value's nonce and their number, which the manifest at its end tells: bytes altogether, and bytes in each.
func formatFrom(arg int) string {
	return strings.NewReplacer("$1", strconv.Itoa(arg), "$2", strconv.Itoa(arg+1), "$3", strconv.Itoa(arg+2),
		"$4", strconv.Itoa(arg+3), "$5", strconv.Itoa(arg+4), "$6", strconv.Itoa(arg+5)).Replace(`
local magic, version, flags = ARGV[$1], tonumber(ARGV[$2]), tonumber(ARGV[$3])
local startAt, nonceAt, chunked = tonumber(ARGV[$4]), tonumber(ARGV[$5]), tonumber(ARGV[$6])
local function headOf(key)
	local head = redis.pcall('GETRANGE', key, 0, nonceAt + 11)
	if magic ~= '' and type(head) == 'string' and #head >= #magic + 2 and string.sub(head, 1, #magic) == magic then
		return head, string.byte(head, #magic + 1, #magic + 2)
	end
end
local function chunkKey(key, nonce, i)
	return '{' .. key .. '}!c:' .. nonce .. ':' .. i
end
local function chunksOf(key)
	local head, itsVersion, itsFlags = headOf(key)
	if not head or #head < nonceAt + 12 or itsVersion > version or itsFlags > flags or math.floor(itsFlags / chunked) % 2 == 0 then
		return '', 0
	end
	local nonce = string.gsub(string.sub(head, nonceAt + 1), '.', function(c) return string.format('%02x', string.byte(c)) end)
	local b = {string.byte(redis.call('GETRANGE', key, -12, -5), 1, 8)}
	local size = b[1] + b[2] * 256 + b[3] * 65536 + b[4] * 16777216
	local each = b[5] + b[6] * 256 + b[7] * 65536 + b[8] * 16777216
	return nonce, math.min(math.ceil(size / each), ` + strconv.Itoa(mostChunks) + `)
end
local function letGo(key, nonce, count)
	for i = 0, count - 1 do
		redis.call('PEXPIRE', chunkKey(key, nonce, i), ` + strconv.Itoa(int(chunkGrace.Milliseconds())) + `)
	end
end
local function drop(key)
	letGo(key, chunksOf(key))
	return redis.call('UNLINK', key)
end
`)
}

// fill stores a value under the caller's lease and gives the lease back.
//
//	KEYS  K, L
//	ARGV  nonce, value, until when K lives (µs, the server's time), number of chunks that were stored before, and the format
//
// The reply is an Outcome. The end of life is absolute, so that a fill that was held up on its way does not live longer
// for it. Chunks live longer than the value. Who seized the lease has not looked at K, so this does: a newer build's value is
// out of date too, but replacing it would have two builds thrash each other's values, so it goes and nothing takes its place.
var fill = newScript(formatFrom(5) + `
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
	return 0
end
redis.call('DEL', KEYS[2])
local time = redis.call('TIME')
local left = math.floor((tonumber(ARGV[3]) - time[1] * 1000000 - time[2]) / 1000)
if left <= 0 then
	if drop(KEYS[1]) == 0 then -- under the lease, what is there can only be older, and so can what others keep in memory` + tellOfMissing + `
	end
	return 2
end
local head, itsVersion, itsFlags = headOf(KEYS[1])
if head and (itsVersion > version or itsFlags > flags) then
	drop(KEYS[1])
	return 0
end
for i = 0, tonumber(ARGV[4]) - 1 do
	if redis.call('PEXPIRE', chunkKey(KEYS[1], ARGV[1], i), left + ` + strconv.Itoa(int(chunkGrace.Milliseconds())) + `) == 0 then
		return redis.error_reply('NOCHUNK a chunk of the value is gone')
	end
end
local nonce, count = chunksOf(KEYS[1])
redis.call('SET', KEYS[1], ARGV[2], 'PX', left)
letGo(KEYS[1], nonce, count)
return 1
`)

// seize takes the lease whoever holds it: a Set or a forced refresh supersedes every load under way.
//
//	KEYS  K, L
//	ARGV  nonce, lease in ms
//
// The reply is {1, now}, as from acquire.
var seize = newScript(`
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
local time = redis.call('TIME')
return {1, time[1] * 1000000 + time[2]}
`)

// renew gives the caller's lease its full life again; the reply is 0 where it is lost.
//
//	KEYS  K, L
//	ARGV  nonce, lease in ms
var renew = newScript(`
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
	return 0
end
return redis.call('PEXPIRE', KEYS[2], ARGV[2])
`)

// The server tells whoever has read a key that it was changed, and all processes that load a value, wait for one, or have one in
// memory that Redis could not take, have read K. Where K is missing, removing it would change nothing and tell nobody. So K is
// written and removed again. Every script that does so has removed something before, or tried to: then the server lets it write
// even though it has no memory left.
const tellOfMissing = `
redis.call('SET', KEYS[1], '', 'PX', 1)
redis.call('DEL', KEYS[1])
`

const tellOfLease = `
redis.call('DEL', KEYS[2])
if redis.call('EXISTS', KEYS[1]) == 0 then` + tellOfMissing + `
end
`

// release gives the caller's lease back without a value, and tells those who wait for one.
//
//	KEYS  K, L
//	ARGV  nonce, "quiet" to tell nobody: they look again by themselves, a little later
var release = newScript(`
if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then
	return 0
end
if ARGV[2] == 'quiet' then
	return redis.call('DEL', KEYS[2])
end` + tellOfLease + `
return 1
`)

// remove invalidates: value and lease go together, whoever has read K is told, also that it was missing, and only a value counts
// as removed.
//
//	KEYS  K, L
//	ARGV  the format
var remove = newScript(formatFrom(1) + `
redis.call('DEL', KEYS[2])
local removed = drop(KEYS[1])
if removed == 0 then` + tellOfMissing + `
end
return removed
`)

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

// discard removes K unless its load began late enough. The lease stays: whoever holds it now will store what is newer.
//
//	KEYS  K
//	ARGV  the earliest start to keep (µs, the server's time), and the format
//
// What this build cannot read, a newer build's value included, is removed: one load too many does no harm. Starts are
// below 2^53 until the year 2255, so Lua's numbers hold them exactly. Where K is missing, those are told who have read that: what
// they keep in memory is older, too.
var discard = newScript(formatFrom(2) + `
local head, itsVersion, itsFlags = headOf(KEYS[1])
if head and #head >= startAt + 8 and itsVersion <= version and itsFlags <= flags then
	local start = 0
	for i = 8, 1, -1 do
		start = start * 256 + string.byte(head, startAt + i)
	end
	if start >= tonumber(ARGV[1]) then
		return 0
	end
end
local removed = drop(KEYS[1])
if removed == 0 then` + tellOfMissing + `
end
return removed
`)

// A script is sent by its SHA-1, as EVALSHA wants it.
type script struct {
	text, sha1 string
	repeatable bool // running it twice is as good as once
}

// scripts are all there are.
var scripts []*script

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text))
	s := &script{text: text, sha1: hex.EncodeToString(sum[:])}
	scripts = append(scripts, s)
	return s
}

func repeatable(s *script) *script {
	s.repeatable = true
	return s
}
