package redisstore

import (
	"context"
	"strconv"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/stats"
)

// A Restamping gives the value of a key a new beginning, under a lease: the source has said that the value is still right. What follows the
// beginning, and the chunks, are not sent and not read.
type Restamping struct {
	Key, Nonce string   // the nonce of the lease
	Previous   [12]byte // the nonce in the value that is to be there
	Head       []byte   // the new beginning; of a value in chunks the whole value
	Replaces   int      // how many bytes of the value it replaces
	Payload    string   // the nonce in the names of the chunks
	Chunks     int      // 0 for a value in one piece
	Until      int64    // end of life in µs of the server's time
}

// restamp replaces the beginning of a value under the caller's lease, and releases the lease.
//
//	KEYS  K, L
//	ARGV  nonce, nonce in the value that is to be there (12 bytes), new beginning, how many bytes that replaces, until when K lives (µs, the
//	      server's time), number of chunks, the nonce in their names, and the format
//
// The reply is an Outcome. An invalidation, a Set and another fill take the lease or remove it, so the value under a lease that is still held is the
// one that the caller has looked at, unless Redis has evicted it, or another program has changed it. The nonce shows both. Then there is
// nothing to prolong, and the lease stays: the caller may fill the value under it. Chunks whose value was evicted are of no use to anybody.
//
// All chunks live longer than the value once more, before the value does. If one of them is missing, the value is of no use to anybody, so it
// is removed.
//
// The length of the beginning rarely changes. Then the value is not copied, and Redis takes it even without memory: PEXPIRE comes first,
// which needs none.
var restamp = newScript(stats.Filling, formatFrom(8)+`
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
	return 0
end
local time = redis.call('TIME')
local left = math.floor((tonumber(ARGV[5]) - time[1] * 1000000 - time[2]) / 1000)
if left <= 0 then
	redis.call('DEL', KEYS[2])
	if drop(KEYS[1]) == 0 then`+notifyMissing+`
	end
	return 2
end
if redis.call('EXISTS', KEYS[1]) == 0 then
	letGo(KEYS[1], ARGV[7], tonumber(ARGV[6]))
	return 3
end
local head, itsVersion, itsFlags = headOf(KEYS[1])
if not head or itsVersion > version or itsFlags > flags or string.sub(head, nonceAt + 1) ~= ARGV[2] then
	return 3
end
for i = 0, tonumber(ARGV[6]) - 1 do
	if redis.call('PEXPIRE', chunkKey(KEYS[1], ARGV[7], i), left + `+strconv.Itoa(int(chunkGrace.Milliseconds()))+`) == 0 then
		drop(KEYS[1])
		return 3
	end
end
if #ARGV[3] == tonumber(ARGV[4]) then
	redis.call('PEXPIRE', KEYS[1], left)
	redis.call('SETRANGE', KEYS[1], 0, ARGV[3])
else
	redis.call('SET', KEYS[1], ARGV[3] .. redis.call('GETRANGE', KEYS[1], ARGV[4], -1), 'PX', left)
end
redis.call('DEL', KEYS[2])
return 1
`)

// Restamp gives values a new beginning under their leases, in one round trip, and releases the leases of those that are not Gone. An outcome
// counts where its error is nil. Where there is an error, the value may have its new beginning or not.
func (s *Store) Restamp(ctx context.Context, stamps ...Restamping) ([]Outcome, []error) {
	outcomes, _, errs := s.RestampAndRead(ctx, stamps, nil)
	return outcomes, errs
}

// RestampAndRead is Restamp and, where there are looks, makes the one with the same index behind each of them.
func (s *Store) RestampAndRead(ctx context.Context, stamps []Restamping, looks []Get) ([]Outcome, []Read, []error) {
	outcomes, errs := make([]Outcome, len(stamps)), make([]error, len(stamps))
	calls, changed := make([]call, len(stamps)), make([]string, len(stamps))
	for i, r := range stamps {
		args := []string{
			r.Nonce, rueidis.BinaryString(r.Previous[:]), rueidis.BinaryString(r.Head), strconv.Itoa(r.Replaces),
			strconv.FormatInt(r.Until, 10), strconv.Itoa(r.Chunks), r.Payload,
		}
		calls[i], changed[i] = call{restamp, s.pair(r.Key), append(args, s.format.args...)}, r.Key
	}
	results, reads := s.runAndRead(ctx, calls, looks)
	for i, r := range results {
		var n int64
		n, errs[i] = r.AsInt64()
		outcomes[i] = Outcome(n)
	}
	s.announce(ctx, changed) // one that is gone may have been removed by the script
	return outcomes, reads, errs
}
