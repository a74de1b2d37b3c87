package redisstore

import (
	"context"

	"github.com/gatewayz/aside/internal/stats"
)

// erase removes a value of the format, and the lease in any case, and notifies the clients that have read K. What is not a value
// of the format stays.
//
//	KEYS  K, L
//	ARGV  the format
//
// The reply is how many values were removed.
var erase = newScript(stats.Invalidating, formatFrom(1)+`
local removed = 0
if redis.pcall('GETRANGE', KEYS[1], 0, #magic - 1) == magic then
	removed = drop(KEYS[1])
end
if redis.call('EXISTS', KEYS[2]) == 1 then`+notifyLease+`
end
return removed
`)

// Erase removes the keys that hold a value of the format, and the leases of all keys. removed says for each key whether it had a
// value. Unlike Remove it works in portions. The error is that of any key.
func (s *Store) Erase(ctx context.Context, keys ...string) (removed []bool, err error) {
	calls := make([]call, len(keys))
	for i, key := range keys {
		calls[i] = call{erase, s.pair(key), s.format.args}
	}
	results, _ := s.runInPortions(ctx, calls, portionSize)
	s.eraseSplit(ctx, keys, results)
	s.announce(ctx, keys)
	removed = make([]bool, len(keys))
	for i, r := range results {
		n, e := r.AsInt64()
		if e != nil {
			err = e
		}
		removed[i] = n > 0
	}
	return removed, err
}
