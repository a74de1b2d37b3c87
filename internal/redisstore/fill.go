package redisstore

import (
	"context"
	"strconv"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/stats"
)

// A Filling stores one value under its lease.
type Filling struct {
	Key    string
	Nonce  string
	Value  []byte
	Chunks [][]byte // of a value whose payload is not in Value: stored first, under names that contain the nonce
	Until  int64    // end of life in µs of the server's time
	Empty  bool     // the lease was granted while the key had no value: see Grant.Empty
}

// Size is how many bytes are sent.
func (f Filling) Size() int64 {
	n := int64(len(f.Value))
	for _, c := range f.Chunks {
		n += int64(len(c))
	}
	return n
}

// An Outcome is the result of a Filling or of a Restamping.
type Outcome int

// The outcomes.
const (
	// Refused: the lease was lost to an invalidation, a Set or another fill in between. Or there was a value of a newer build,
	// which has been removed.
	Refused Outcome = iota
	Stored
	Expired // its life had ended before it arrived
	Gone    // only of a Restamping: the value, or a chunk of it, is not there any more; the caller still has the lease
)

// fill stores a value under the caller's lease and releases the lease.
//
//	KEYS  K, L
//	ARGV  nonce, value, until when K lives (µs, the server's time), number of chunks that were stored before, and the format
//
// The reply is an Outcome. The end of life is absolute, so that a delayed fill does not live longer. Chunks live longer than the
// value. A caller that has seized the lease has not looked at K, so this script does. A newer build's value is out of date too.
// But to replace it would make two builds overwrite each other's values in turn, so it is removed and not replaced.
var fill = newScript(stats.Filling, formatFrom(5)+`
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
	return 0
end
redis.call('DEL', KEYS[2])
local time = redis.call('TIME')
local left = math.floor((tonumber(ARGV[3]) - time[1] * 1000000 - time[2]) / 1000)
if left <= 0 then
	if drop(KEYS[1]) == 0 then -- under the lease, a value that is there can only be older, and so can copies in other processes`+notifyMissing+`
	end
	return 2
end
local head, itsVersion, itsFlags = headOf(KEYS[1])
if head and (itsVersion > version or itsFlags > flags) then
	drop(KEYS[1])
	return 0
end
for i = 0, tonumber(ARGV[4]) - 1 do
	if redis.call('PEXPIRE', chunkKey(KEYS[1], ARGV[1], i), left + `+strconv.Itoa(int(chunkGrace.Milliseconds()))+`) == 0 then
		return redis.error_reply('NOCHUNK a chunk of the value is gone')
	end
end
local nonce, count = chunksOf(KEYS[1])
redis.call('SET', KEYS[1], ARGV[2], 'PX', left)
letGo(KEYS[1], nonce, count)
return 1
`)

// fillEmpty is fill for a value in one piece, under a lease that was granted while K had no value. Whatever is stored since then takes the
// lease away. So there is nothing to look at, and nothing that has to go. It takes half the time of fill.
//
//	KEYS  K, L
//	ARGV  nonce, value, until when K lives (ms, the server's time)
//
// A value that arrives after its life is stored and is missing at once.
var fillEmpty = newScript(stats.Filling, `
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
	return 0
end
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
return 1
`)

func (s *Store) filling(f Filling) call {
	value := rueidis.BinaryString(f.Value)
	if l := s.table.Load().of(s.namespace.name(f.Key)); f.Empty && len(f.Chunks) == 0 && l != nil && !l.noPXAT.Load() {
		return s.onPair(fillEmpty, f.Key, f.Nonce, value, strconv.FormatInt(f.Until/1000, 10))
	}
	k := s.onPair(fill, f.Key, f.Nonce, value, strconv.FormatInt(f.Until, 10), strconv.Itoa(len(f.Chunks)))
	k.args = append(k.args, s.format.args...)
	return k
}

// Fill stores values under their leases and releases the leases, in one round trip for values without chunks. An outcome counts
// where its error is nil.
func (s *Store) Fill(ctx context.Context, fills ...Filling) ([]Outcome, []error) {
	outcomes, _, errs := s.FillAndRead(ctx, fills, nil)
	return outcomes, errs
}

// A fillRoom has room for what FillAndRead needs for one value, in one allocation.
type fillRoom struct {
	outcomes [1]Outcome
	reads    [1]Read
	errs     [1]error
	changed  [1]string
	calls    [1]call
	filling  [1]int
	back     [1]Get
}

// sized is a slice of n elements: room, where that is as long.
func sized[T any](room []T, n int) []T {
	if n == len(room) {
		return room
	}
	return make([]T, n)
}

// FillAndRead is Fill and, where there are looks, makes the one with the same index behind each fill: see runAndRead.
func (s *Store) FillAndRead(ctx context.Context, fills []Filling, looks []Get) ([]Outcome, []Read, []error) {
	room := new(fillRoom)
	outcomes, reads, errs := sized(room.outcomes[:], len(fills)), sized(room.reads[:], len(fills)), sized(room.errs[:], len(fills))
	changed := room.changed[:0]
	var chunks map[*Filling]int                 // how many are in Redis without a manifest, by their fills
	for _, large := range []bool{false, true} { // values without chunks do not wait for the chunks of others
		calls, filling, back := room.calls[:0], room.filling[:0], room.back[:0]
		for i, f := range fills {
			if large != (len(f.Chunks) > 0) {
				continue
			}
			if large {
				var held bool
				var sent int
				if held, sent, errs[i] = s.putChunks(ctx, f); sent > 0 {
					if chunks == nil {
						chunks = make(map[*Filling]int)
					}
					chunks[&fills[i]] = sent
				}
				if !held {
					continue
				}
			}
			calls = append(calls, s.filling(f))
			filling, changed = append(filling, i), append(changed, f.Key)
			if looks != nil {
				back = append(back, looks[i])
			}
		}
		if len(calls) == 0 {
			continue
		}
		results, heads := s.runAndRead(ctx, calls, back)
		for j, r := range results {
			i := filling[j]
			var n int64
			n, errs[i] = r.AsInt64()
			if outcomes[i] = Outcome(n); errs[i] == nil && outcomes[i] == Stored {
				delete(chunks, &fills[i])
			}
			if heads != nil {
				reads[i] = heads[j]
			}
		}
	}
	s.announce(ctx, changed) // a refused fill may have removed a value too
	s.forgetChunks(ctx, chunks)
	return outcomes, reads, errs
}
