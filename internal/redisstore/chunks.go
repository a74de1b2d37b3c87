package redisstore

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// A large value is stored in chunks, each under a key of its own that is written once and never changed, and a small value
// with a manifest in the place of the whole. Chunks come first and the manifest last, by the fill script: who reads a manifest
// finds its chunks, or else one of them was evicted, and the value is missed.
//
// They travel on a connection of their own, a few at a time: a small value behind 20 MB on the same connection would wait for
// all of it to arrive, and one that arrives at the server behind 80 commands would wait for their replies to be written.
const (
	// ChunkSize is how long chunks are.
	ChunkSize = 256 << 10

	mostChunks  = 1 << 14          // of one value
	chunkGrace  = 10 * time.Second // how much longer than their value chunks live, for those who are reading them
	chunkUpload = time.Minute      // how long they live while there is no manifest yet
	chunkWindow = 4                // how many are on their way at a time: a mebibyte
)

// Chunks reads n chunks of the value of key that has this nonce. It returns false if one of them is gone.
func (s *Store) Chunks(ctx context.Context, key, nonce string, n int) (chunks [][]byte, ok bool, err error) {
	name := s.namespace.name(key)
	results := s.eachInBulk(ctx, name, n, func(c rueidis.Client, i int) rueidis.Completed {
		return c.B().Get().Key(chunkKey(name, nonce, i)).Build()
	})
	chunks = make([][]byte, n)
	for i, r := range results {
		chunks[i], err = r.AsBytes()
		if rueidis.IsRedisNil(err) {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
	}
	return chunks, true, nil
}

// putChunks stores the chunks of f, for as long as it takes to store the manifest.
func (s *Store) putChunks(ctx context.Context, f Filling) error {
	name := s.namespace.name(f.Key)
	return firstError(s.eachInBulk(ctx, name, len(f.Chunks), func(c rueidis.Client, i int) rueidis.Completed {
		return c.B().Set().Key(chunkKey(name, f.Nonce, i)).Value(rueidis.BinaryString(f.Chunks[i])).Px(chunkUpload).Build()
	}))
}

// A bulk is the second client of a session. It is made when it is first wanted, which for most users is never.
type bulk struct {
	session *atomic.Pointer[session]
	wanted  chan struct{} // wakes the goroutine that makes it, with room for one
	gone    chan struct{} // likewise: of a session that is itself a second one, its connection has broken
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

// eachInBulk is each for n commands that carry much, and belong to one name.
func (s *Store) eachInBulk(ctx context.Context, name string, n int, build func(rueidis.Client, int) rueidis.Completed) []rueidis.RedisResult {
	return s.each(ctx, batch{names: slices.Repeat([]string{name}, n), plain: build, most: chunkWindow, bulk: true})
}

// inBulk is the session for what carries much. Until there is a second one it is the first: no caller waits for a connection to be
// made.
func (s *session) inBulk() *session {
	if second := s.bulk.session.Load(); second != nil && !second.broken.Load() {
		return second
	}
	signal(s.bulk.wanted)
	return s
}

// keepBulk makes the second client when it is wanted, and another one when its connection has broken.
func (l *link) keepBulk(ctx context.Context, b *bulk) {
	opt := l.options
	opt.DisableCache = true
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.wanted:
		}
		second, ok := l.connect(ctx, opt, false)
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
