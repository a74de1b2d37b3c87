package redisstore

import (
	"context"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/near"
)

// A Get asks for the value of a key.
type Get struct {
	Key string
	// Fence is armed at the position of the reply among the messages of its connection. Without a Fence, the Read has no
	// Validity.
	Fence *near.Fence
	// Head is how many bytes to read from the beginning, 0 for all.
	Head int
}

// A Read answers one Get: the value, nil where the key is missing or empty, or the error of this key alone.
type Read struct {
	Value []byte
	// Cut is whether the value is longer than Format.Longest, and was read only in part.
	Cut bool
	// Validity holds while the server can be trusted to push a change of the key. Nil: it never could.
	Validity *near.Validity
	Err      error
}

// Get reads keys in one round trip.
func (s *Store) Get(ctx context.Context, looks ...Get) []Read {
	under, names := make([]*trackedRead, len(looks)), make([]string, len(looks))
	sole := s.table.Load().sole()
	tracked := sole == nil || sole.Tracked() // a new connection to another server may change this meanwhile
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
			out[i].Value = nil // GETRANGE answers an empty string for a missing key
		}
		out[i].Cut = looks[i].Head == 0 && len(out[i].Value) > s.format.longest
		if tracked {
			out[i].Validity = s.endRead(under[i])
		} else if looks[i].Fence != nil {
			out[i].Validity = s.announcements.validity()
		}
		// A node that no longer has the key pushes no changes of it: see apply.
		if out[i].Err != nil || by[i] != now.of(names[i]) || out[i].Value == nil && now.migrates(names[i]) {
			out[i].Validity = nil
		}
	}
	return out
}

// lastByte is the offset of the last byte to read. Of a value that is too long to be one of ours, one byte more than Longest is
// read.
func (s *Store) lastByte(l Get) int64 {
	if l.Head > 0 {
		return int64(l.Head) - 1
	}
	return int64(s.format.longest)
}
