package redisstore

import (
	"context"
	"crypto/tls"
	"net"
	"strconv"
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

// chunkKey is where a chunk lies, in the same slot of a cluster as its value.
func chunkKey(key, nonce string, i int) string {
	return "{" + key + "}!c:" + nonce + ":" + strconv.Itoa(i)
}

// Chunks reads n chunks of the value of key that has this nonce. It returns false if one of them is gone.
func (s *Store) Chunks(ctx context.Context, key, nonce string, n int) (chunks [][]byte, ok bool, err error) {
	results := s.eachInBulk(ctx, n, func(c rueidis.Client, i int) rueidis.Completed {
		return c.B().Get().Key(chunkKey(key, nonce, i)).Build()
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
	return firstError(s.eachInBulk(ctx, len(f.Chunks), func(c rueidis.Client, i int) rueidis.Completed {
		return c.B().Set().Key(chunkKey(f.Key, f.Nonce, i)).Value(rueidis.BinaryString(f.Chunks[i])).Px(chunkUpload).Build()
	}))
}

// A bulk is the second client of a session. It is made when it is first wanted, which for most users is never.
type bulk struct {
	client *atomic.Pointer[rueidis.Client]
	wanted chan struct{} // wakes the goroutine that makes it, with room for one
	gone   chan struct{} // likewise: its connection has broken
}

func newBulk() bulk {
	return bulk{new(atomic.Pointer[rueidis.Client]), make(chan struct{}, 1), make(chan struct{}, 1)}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// eachInBulk is each for commands that carry much. Until there is a second client they go by the first one: no caller waits
// for a connection to be made.
func (l *link) eachInBulk(ctx context.Context, n int, build func(rueidis.Client, int) rueidis.Completed) []rueidis.RedisResult {
	return l.ask(ctx, n, chunkWindow, func(s *session, from, to int) []rueidis.RedisResult {
		c := s.bulk.client.Load()
		if c == nil {
			signal(s.bulk.wanted)
			c = &s.client
		}
		return sendAll(ctx, *c, from, to, build)
	})
}

// keepBulk makes the second client when it is wanted, and another one when its connection has broken: rueidis would make
// that in the context of whoever comes next.
func (l *link) keepBulk(ctx context.Context, b *bulk) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.wanted:
		}
		var made atomic.Bool
		opt := l.options
		opt.DisableCache = true
		dial := dialer(opt)
		opt.DialCtxFn = func(dialing context.Context, dst string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
			conn, err := dial(dialing, dst, d, config)
			if err == nil {
				conn = &closing{conn, func() {
					if made.Load() { // else rueidis has only tried it
						b.client.Store(nil)
						signal(b.gone)
					}
				}}
			}
			return conn, err
		}
		select {
		case <-b.gone: // of an earlier one
		default:
		}
		own, ok := l.connect(ctx, opt, func(error) {})
		if !ok {
			return
		}
		made.Store(true)
		b.client.Store(&own.client)
		select {
		case <-ctx.Done():
		case <-b.gone:
		}
		b.client.Store(nil)
		own.client.Close()
	}
}

// A closing connection tells when it is closed.
type closing struct {
	net.Conn
	closed func()
}

func (c *closing) Close() error {
	c.closed()
	return c.Conn.Close()
}
