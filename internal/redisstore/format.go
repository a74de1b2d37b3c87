package redisstore

import (
	"cmp"
	"math"
	"strconv"
	"strings"
)

// A Format is what the scripts must know of the layout of values. A value begins with Magic, a byte for the version and a byte for
// flags. With an empty Magic no value is recognized.
type Format struct {
	Magic     string
	Version   byte // the newest version that this build reads
	Flags     byte // the largest flags that this build reads
	LoadStart int  // offset of an int64, little endian: when the load began, in µs of the server's time
	Nonce     int  // offset of the 12 bytes of the nonce, behind LoadStart
	Chunked   byte // the flag of a value in chunks; its last 12 bytes are a manifest
	Extended  byte // the flag of a value whose manifest begins with the nonce of its chunks: 24 bytes
	TagsLen   int  // offset of a uint32, little endian: how many bytes the tags take
	Longest   int  // most bytes of a value, its chunks apart
	Tags      int  // offset of the tags: their number (2 bytes), then for each the length of its name (2), the name, its generation (8)
}

const noFlag = 1 << 8

// A scriptFormat is a Format as the scripts take it.
type scriptFormat struct {
	args    []string // see formatFrom
	tags    []string // the offsets of the length of the tags and of the tags
	longest int
	least   string // a value of this build with a nonce and nothing behind it; "" where no value is recognized
}

func (f Format) forScripts() scriptFormat {
	least := ""
	if f.Magic != "" {
		least = f.Magic + string([]byte{f.Version, 0})
		least += strings.Repeat("\x00", max(0, f.Nonce+12-len(least)))
	}
	return scriptFormat{
		least: least,
		args: []string{
			f.Magic, strconv.Itoa(int(f.Version)), strconv.Itoa(int(f.Flags)),
			strconv.Itoa(f.LoadStart), strconv.Itoa(f.Nonce), strconv.Itoa(max(1, int(f.Chunked))),
			strconv.Itoa(cmp.Or(int(f.Extended), noFlag)),
		},
		tags:    []string{strconv.Itoa(f.TagsLen), strconv.Itoa(f.Tags)},
		longest: cmp.Or(f.Longest, math.MaxInt32),
	}
}

// Scripts take the format of values behind their own arguments: magic, version, flags, the offsets of the load's start and of the
// nonce, and the flags of a value whose payload is in chunks, and of an extended one. formatFrom makes locals of these, from the argument
// with this number on.
//
// When a chunked value is removed, its chunks expire a little later: a reader may still need them. Their names follow from the nonce
// of the fill that has stored them, and their number. That nonce is the value's own, or in an extended value, which may have been
// restamped since, at the beginning of the manifest. The number follows from the end of the manifest, and of the value: all bytes, and
// bytes in each chunk.
func formatFrom(arg int) string {
	return strings.NewReplacer("$1", strconv.Itoa(arg), "$2", strconv.Itoa(arg+1), "$3", strconv.Itoa(arg+2),
		"$4", strconv.Itoa(arg+3), "$5", strconv.Itoa(arg+4), "$6", strconv.Itoa(arg+5), "$7", strconv.Itoa(arg+6)).Replace(`
local magic, version, flags = ARGV[$1], tonumber(ARGV[$2]), tonumber(ARGV[$3])
local startAt, nonceAt, chunked, extended = tonumber(ARGV[$4]), tonumber(ARGV[$5]), tonumber(ARGV[$6]), tonumber(ARGV[$7])
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
	local nonce = string.sub(head, nonceAt + 1)
	if math.floor(itsFlags / extended) % 2 == 1 then
		nonce = redis.call('GETRANGE', key, -24, -13)
	end
	nonce = string.gsub(nonce, '.', function(c) return string.format('%02x', string.byte(c)) end)
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
