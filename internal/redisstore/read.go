package redisstore

import (
	"context"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/near"
)

// A Look asks what a key holds.
type Get struct {
	Key string
	// Fence is armed in the place of the reply among the messages of its connection. Without one, nobody vouches for what
	// was read.
	Fence *near.Fence
	// Head asks for so many bytes from the beginning, 0 for all.
	Head int
}

// A Read is the answer to one Look: a value, nil where there is none or an empty one, or the error of this key alone.
type Read struct {
	Value []byte
	// Cut is whether the value goes on behind what was read: it is longer than Format.Longest.
	Cut bool
	// Voucher is good until the server can no longer be trusted to tell of a change of the key. Nil: it never could.
	Voucher *near.Voucher
	Err     error
}

// Look reads keys in one round trip.
func (s *Store) Get(ctx context.Context, looks ...Get) []Read {
	under, names := make([]*trackedRead, len(looks)), make([]string, len(looks))
	sole := s.table.Load().sole()
	tracked := sole == nil || sole.Tracked() // a new connection to another server may change it on the way
	for i, l := range looks {
		names[i] = s.namespace.name(l.Key)
		if tracked {
			under[i] = s.beginRead(l.Fence)
		}
	}
	if !tracked {
		s.announcements.armAll(looks)
	}
	by := make([]*link, len(looks))
	results := s.each(ctx, batch{
		names: names,
		plain: func(c rueidis.Client, i int) rueidis.Completed {
			s.markUntracked(under[i])
			return c.B().Getrange().Key(names[i]).Start(0).End(s.lastByte(looks[i])).Build()
		},
		cached: func(to *session, i int) rueidis.CacheableTTL {
			start := trackedStart(s.numberRead(under[i]))
			return rueidis.CT(to.client.B().Getrange().Key(names[i]).Start(start).End(s.lastByte(looks[i])).Cache().ToStaticTTL(), time.Hour)
		},
		answered: func(l *link, _ time.Time, i int, _ rueidis.RedisResult) { by[i] = l },
	})
	now := s.table.Load()
	out := make([]Read, len(looks))
	for i, r := range results {
		out[i].Value, out[i].Err = r.AsBytes()
		if len(out[i].Value) == 0 {
			out[i].Value = nil // GETRANGE answers so for a key that is missing
		}
		out[i].Cut = looks[i].Head == 0 && len(out[i].Value) > s.format.longest
		if tracked {
			out[i].Voucher = s.endRead(under[i])
		} else if looks[i].Fence != nil {
			out[i].Voucher = s.announcements.voucher()
		}
		// Who does not have the key any more is not told of its changes: see apply.
		if out[i].Err != nil || by[i] != now.of(names[i]) || out[i].Value == nil && now.migrates(names[i]) {
			out[i].Voucher = nil
		}
	}
	return out
}

// lastByte is the place of the last byte to read. A value that is too long to be one of ours is read up to the byte that shows it.
func (s *Store) lastByte(l Get) int64 {
	if l.Head > 0 {
		return int64(l.Head) - 1
	}
	return int64(s.format.longest)
}
