package redisstore

import (
	"cmp"
	"math"
	"strconv"
	"strings"
)

// A Format is as much of how values are laid out as the scripts must know: they begin with Magic, a byte for the version
// and one for flags. Without a Magic no value is recognized as one.
type Format struct {
	Magic     string
	Version   byte // the newest that this build knows
	Flags     byte // the largest value that this build knows
	LoadStart int  // where an int64, little endian, says when the load began, in µs of the server's time
	Nonce     int  // where the 12 bytes of the nonce are, behind LoadStart
	Chunked   byte // the flag of values in chunks; the last 12 bytes of those are a manifest
	TagsLen   int  // where a uint32, likewise, says how many bytes the tags take
	Longest   int  // bytes that a value has at most, without those in chunks
	Tags      int  // where they begin: their number (2 bytes), then of each the length of its name (2), the name, its generation (8)
}

// A scriptFormat is a Format as the scripts take it.
type scriptFormat struct {
	args    []string // see formatFrom
	tags    []string // the offsets of the length of the tags and of the tags
	longest int
}

func (f Format) forScripts() scriptFormat {
	return scriptFormat{
		args: []string{
			f.Magic, strconv.Itoa(int(f.Version)), strconv.Itoa(int(f.Flags)),
			strconv.Itoa(f.LoadStart), strconv.Itoa(f.Nonce), strconv.Itoa(max(1, int(f.Chunked))),
		},
		tags:    []string{strconv.Itoa(f.TagsLen), strconv.Itoa(f.Tags)},
		longest: cmp.Or(f.Longest, math.MaxInt32),
	}
}

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
