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
	r := s.newLookup(looks)
	return r.end(s.each(ctx, batch{
		names:    r.names,
		plain:    func(c rueidis.Client, i int) rueidis.Completed { return r.untracked(c.B(), i) },
		cached:   r.tracked,
		answered: func(l *link, _ time.Time, i int, _ rueidis.RedisResult) { r.answered(l, i) },
	}))
}

// A lookup is some reads under way.
type lookup struct {
	s      *Store
	looks  []Get
	names  []string
	tracks bool // the server pushes changes
	reads  []oneRead
}

type oneRead struct {
	trackedRead       // with a fence, where the server pushes changes
	by          *link // who has answered
}

// tracked is nil for a read without a fence.
func (r *oneRead) tracked() *trackedRead {
	if r.fence == nil {
		return nil
	}
	return &r.trackedRead
}

func (s *Store) newLookup(looks []Get) *lookup {
	r := &lookup{s: s, looks: looks, names: make([]string, len(looks)), reads: make([]oneRead, len(looks))}
	sole := s.table.Load().sole()
	r.tracks = sole == nil || sole.Tracked() // a new connection to another server may change this meanwhile
	for i, l := range looks {
		r.names[i] = s.namespace.name(l.Key)
		if r.tracks {
			r.reads[i].fence = l.Fence
		}
	}
	if !r.tracks {
		s.announcements.armAll(looks)
	}
	return r
}

func (r *lookup) untracked(b rueidis.Builder, i int) rueidis.Completed {
	r.s.markUntracked(r.reads[i].tracked())
	return b.Getrange().Key(r.names[i]).Start(0).End(r.s.lastByte(r.looks[i])).Build()
}

func (r *lookup) tracked(to *session, i int) rueidis.Cacheable {
	start := trackedStart(r.s.numberRead(r.reads[i].tracked()))
	return to.client.B().Getrange().Key(r.names[i]).Start(start).End(r.s.lastByte(r.looks[i])).Cache().ToStaticTTL()
}

func (r *lookup) answered(l *link, i int) { r.reads[i].by = l }

// end ends the reads, and returns what they have found.
func (r *lookup) end(results []rueidis.RedisResult) []Read {
	now := r.s.table.Load()
	out := make([]Read, len(r.looks))
	for i, result := range results {
		out[i].Value, out[i].Err = result.AsBytes()
		if len(out[i].Value) == 0 {
			out[i].Value = nil // GETRANGE answers an empty string for a missing key
		}
		out[i].Cut = r.looks[i].Head == 0 && len(out[i].Value) > r.s.format.longest
		if r.tracks {
			out[i].Validity = r.s.endRead(r.reads[i].tracked())
		} else if r.looks[i].Fence != nil {
			out[i].Validity = r.s.announcements.validity()
		}
		// A node that no longer has the key pushes no changes of it: see apply.
		if out[i].Err != nil || r.reads[i].by != now.of(r.names[i]) || out[i].Value == nil && now.migrates(r.names[i]) {
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
