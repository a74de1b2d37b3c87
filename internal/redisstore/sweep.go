package redisstore

import (
	"context"
	"slices"
	"strconv"
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

// longestTags is how many bytes of the tags of a value are read: more than any build writes.
const longestTags = 1 << 16

// sweep removes a value that carries an older generation of one of some tags. A value that was stored since, by a load that began
// after the tags were invalidated, stays. So does the lease: its holder's value will be checked by its own generations.
//
//	KEYS  K
//	ARGV  the format, offset of the length of the tags, offset of the tags; then tag, generation, …
//
// The reply is the number of the tag for which the value was removed, 0 where it stays. A value that this build cannot read stays.
// A carried number that is no generation is older than any.
var sweep = newScript(formatFrom(1) + `
local tags = tonumber(ARGV[9])
local head = redis.pcall('GETRANGE', KEYS[1], 0, tags - 1)
if type(head) ~= 'string' or #head < tags or string.sub(head, 1, #magic) ~= magic then
	return 0
end
local itsVersion, itsFlags = string.byte(head, #magic + 1, #magic + 2)
if itsVersion ~= version or itsFlags > flags then
	return 0
end
local function number(text, at, bytes)
	local n = 0
	for i = at + bytes - 1, at, -1 do
		n = n * 256 + string.byte(text, i)
	end
	return n
end
local length = number(head, tonumber(ARGV[8]) + 1, 4)
if length > ` + strconv.Itoa(longestTags) + ` then
	return 0
end
local section = redis.call('GETRANGE', KEYS[1], tags, tags + length - 1)
if #section < length or length < 2 then
	return 0
end
local at = 3
for _ = 1, number(section, 1, 2) do
	if at + 1 > length then
		return 0
	end
	local from = at + 2
	local to = from + number(section, at, 2) - 1
	if to + 8 > length then
		return 0
	end
	local name = string.sub(section, from, to)
	for i = 10, #ARGV, 2 do
		if ARGV[i] == name then
			local carried = number(section, to + 1, 8)
			if carried < tonumber(ARGV[i + 1]) or carried >= 9007199254740992 then
				drop(KEYS[1])
				return (i - 8) / 2
			end
		end
	end
	at = to + 9
end
return 0
`)

// Sweep removes those values that carry an older generation of one of their Outdated's tags. For each it returns the index of that
// tag, -1 where nothing was removed. It works in portions. The error is that of any key, but for keys that the user may not use.
func (s *Store) Sweep(ctx context.Context, list ...Outdated) (removed []int, err error) {
	calls := make([]call, len(list))
	for i, o := range list {
		args := slices.Concat(s.format.args, s.format.tags)
		for _, tag := range o.Tags {
			args = append(args, tag.Tag, strconv.FormatUint(tag.Value, 10))
		}
		calls[i] = call{sweep, []string{s.namespace.name(o.Key)}, args}
	}
	removed = make([]int, len(list))
	for i, r := range s.runInPortions(ctx, calls) {
		n, e := r.AsInt64()
		if e != nil {
			if n = 0; !denied(e) {
				err = e
			}
		}
		removed[i] = int(n) - 1
	}
	return removed, err
}
