package redisstore

import (
	"context"
	"strconv"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/stats"
)

// remove invalidates K: it removes value and lease together, and notifies all clients that have read K, as missing too. Only a
// value counts as removed.
//
//	KEYS  K, L
//	ARGV  the format
var remove = newScript(stats.Invalidating, formatFrom(1)+`
redis.call('DEL', KEYS[2])
local removed = drop(KEYS[1])
if removed == 0 then`+notifyMissing+`
end
return removed
`)

// discard removes K unless its load began late enough. The lease stays: its present holder will store a newer value.
//
//	KEYS  K
//	ARGV  the earliest start to keep (µs, the server's time), and the format
//
// A value that this build cannot read is removed, a newer build's included: one load too many does no harm. Starts are below 2^53
// until the year 2255, so Lua's numbers hold them exactly. Where K is missing, the clients that have read it as missing are
// notified: what they keep in memory is older, too.
var discard = newScript(stats.Invalidating, formatFrom(2)+`
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
if removed == 0 then`+notifyMissing+`
end
return removed
`)

// Remove invalidates keys in one round trip: their values and their leases. It returns how many keys had a value, and the error of
// each key, or nil if none failed.
func (s *Store) Remove(ctx context.Context, keys ...string) (removed int64, errs []error) {
	return s.removed(ctx, keys, s.run(ctx, s.removals(keys)))
}

// Change is Remove and Bump at once, in one round trip of a single server.
func (s *Store) Change(ctx context.Context, keys []string, tags []Tag) (removed int64, errs []error, generations []Generation) {
	generations, results := s.bumpBeside(ctx, tags, s.removals(keys))
	removed, errs = s.removed(ctx, keys, results)
	return removed, errs, generations
}

func (s *Store) removals(keys []string) []call {
	calls := make([]call, len(keys))
	for i, key := range keys {
		calls[i] = call{remove, s.pair(key), s.format.args}
	}
	return calls
}

// removed takes the results of removals.
func (s *Store) removed(ctx context.Context, keys []string, results []rueidis.RedisResult) (removed int64, errs []error) {
	s.removeSplit(ctx, keys, results)
	s.announce(ctx, keys)
	for _, r := range results {
		n, _ := r.AsInt64()
		removed += n
	}
	return removed, errorsOf(results)
}

// Discard removes the value of key, unless its load began at before, in µs of the server's time, or later. It is for a Set whose
// fill was refused: an older value must not survive that Set, and the value of a later Set must.
func (s *Store) Discard(ctx context.Context, key string, before int64) error {
	err := firstError(s.run(ctx, []call{{discard, []string{s.namespace.name(key)}, append([]string{strconv.FormatInt(before, 10)}, s.format.args...)}}))
	s.announce(ctx, []string{key})
	return err
}
