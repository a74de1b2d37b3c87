package redisstore

import (
	"context"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/stats"
)

// A large value is stored in chunks, each under a key of its own that is written once and never changed, and a small value with a
// manifest in place of the whole. Chunks are stored first and the manifest last, by the fill script. So a reader of the manifest
// finds all chunks, unless one was evicted: then the value is a miss.
//
// Chunks have a connection of their own, and are sent a few at a time: on the same connection, a small value behind 20 MB would wait
// until all of that has arrived, and a request behind 80 commands would wait until the server has written their replies.
const (
	// ChunkSize is how long chunks are.
	ChunkSize = 256 << 10

	mostChunks  = 1 << 14          // of one value
	chunkGrace  = 10 * time.Second // how much longer than their value chunks live, for clients that are reading them
	chunkUpload = time.Minute      // how long they live while there is no manifest yet
	chunkWindow = 4                // how many are in transit at a time: a mebibyte
)

// Chunks reads the chunks of the value of key that has this nonce. lengths are the expected lengths of the chunks. ok is false if
// one chunk is missing. A chunk with another length is the last one that is read. Of a longer chunk, one byte more than expected
// is read.
func (s *Store) Chunks(ctx context.Context, key, nonce string, lengths []int) (chunks [][]byte, ok bool, err error) {
	name := s.namespace.name(key)
	chunks = make([][]byte, 0, len(lengths))
	for len(chunks) < len(lengths) {
		from := len(chunks)
		for i, r := range s.eachInBulk(ctx, stats.Reading, name, min(chunkWindow, len(lengths)-from), func(c rueidis.Client, i int) rueidis.Completed {
			return c.B().Getrange().Key(chunkKey(name, nonce, from+i)).Start(0).End(int64(lengths[from+i])).Build()
		}) {
			chunk, err := r.AsBytes()
			if err != nil {
				return nil, false, err
			}
			if len(chunk) == 0 {
				return nil, false, nil
			}
			if chunks = append(chunks, chunk); len(chunk) != lengths[from+i] {
				return chunks, true, nil
			}
		}
	}
	return chunks, true, nil
}

// putChunks stores the chunks of f, for long enough to store the manifest. The lease is checked before the first chunk is sent,
// and again with each few: if it is lost, the fill would be refused, and further chunks would waste memory. It returns whether the
// lease is held, and how many chunks may have been stored.
func (s *Store) putChunks(ctx context.Context, f Filling) (held bool, sent int, err error) {
	name := s.namespace.name(f.Key)
	for of := f.Chunks[:0]; ; of = f.Chunks[sent:min(sent+chunkWindow, len(f.Chunks))] {
		results := s.eachInBulk(ctx, stats.Filling, name, 1+len(of), func(c rueidis.Client, i int) rueidis.Completed {
			if i == 0 {
				return c.B().Get().Key(leaseKey(name)).Build()
			}
			i--
			return c.B().Set().Key(chunkKey(name, f.Nonce, sent+i)).Value(rueidis.BinaryString(of[i])).Px(chunkUpload).Build()
		})
		sent += len(of)
		holder, err := results[0].ToString()
		switch {
		case rueidis.IsRedisNil(err) || err == nil && holder != f.Nonce:
			return false, sent, nil
		case err == nil:
			err = firstError(results[1:])
		}
		if err != nil || sent == len(f.Chunks) {
			return err == nil, sent, err
		}
	}
}

// forgetChunks removes the chunks of values whose manifests were not stored. If a fill was carried out without an answer, its
// chunks stay. A fill that arrives after this finds no chunks, and is refused. Chunks that cannot be removed live for a minute.
func (s *Store) forgetChunks(ctx context.Context, stored map[*Filling]int) {
	if len(stored) == 0 {
		return
	}
	ctx, cancel := s.Budget(context.WithoutCancel(ctx), 0, len(stored))
	defer cancel()
	var calls []call
	for f, n := range stored {
		args := append([]string{f.Nonce, strconv.Itoa(n)}, s.format.args...)
		calls = append(calls, call{forget, []string{s.namespace.name(f.Key)}, args})
	}
	s.run(ctx, calls)
}

// forget removes the chunks of a fill, unless its manifest is there.
//
//	KEYS  K
//	ARGV  nonce, number of chunks, and the format
var forget = newScript(stats.Filling, formatFrom(3)+`
local nonce = chunksOf(KEYS[1])
if nonce == ARGV[1] then
	return 0
end
for i = 0, tonumber(ARGV[2]) - 1 do
	redis.call('UNLINK', chunkKey(KEYS[1], ARGV[1], i))
end
return 1
`)

// A bulk is the second client of a session. It is made when it is first needed, which for most users is never.
type bulk struct {
	session *atomic.Pointer[session]
	wanted  chan struct{} // wakes the goroutine that makes it, with room for one
	gone    chan struct{} // likewise; where the session is itself a second client: its connection has broken
}

func newBulk() bulk {
	return bulk{new(atomic.Pointer[session]), make(chan struct{}, 1), make(chan struct{}, 1)}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// eachInBulk is each for n commands with large values that belong to one name.
func (s *Store) eachInBulk(ctx context.Context, trip stats.Trip, name string, n int, build func(rueidis.Client, int) rueidis.Completed) []rueidis.RedisResult {
	return s.each(ctx, batch{content: content{names: slices.Repeat([]string{name}, n), plain: build, trip: trip}, most: 1 + chunkWindow, bulk: true})
}

// inBulk is the session for large values. Until there is a second client it is the first: no caller waits for a connection to be
// made.
func (s *session) inBulk() *session {
	if second := s.bulk.session.Load(); second != nil && !second.broken.Load() {
		return second
	}
	signal(s.bulk.wanted)
	return s
}

// keepBulk makes the second client of a session when it is needed, and another one when its connection has broken.
func (l *link) keepBulk(ctx context.Context, s *session) {
	b, opt := &s.bulk, l.options
	opt.DisableCache = true
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.wanted:
		}
		second, ok := l.connect(ctx, opt, purpose{beside: s})
		if !ok {
			return
		}
		inUse, over := context.WithCancel(ctx)
		l.background.Go(func() { l.clear(inUse, second) })
		b.session.Store(second)
		select {
		case <-ctx.Done():
		case <-second.bulk.gone:
		}
		b.session.Store(nil)
		over()
		second.client.Close()
	}
}
