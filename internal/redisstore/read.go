package redisstore

import (
	"context"

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
	g := s.newReads(looks)
	for i, r := range s.each(ctx, batch{content: content{reads: g}}) {
		g.end(i, r)
	}
	return g.out
}

// fewReads are as many as one key and its tags mostly need: these are one allocation.
const fewReads = 4

// reads are reads under way. They are one allocation where there is one key.
type reads struct {
	store   *Store
	tracked bool // the server pushes changes
	asked   []asked
	names   []string // of the keys in Redis
	out     []Read
	alone   struct {
		asked [1]asked
		names [1]string
		out   [1]Read
		reply [1]rueidis.RedisResult
	}
}

// An asked is one of them.
type asked struct {
	head   int
	fenced bool
	read   trackedRead // unless it is not fenced, or not tracked
	by     *link       // which has answered
}

func (s *Store) newReads(looks []Get) *reads {
	g := &reads{store: s}
	sole := s.table.Load().sole()
	g.tracked = sole == nil || sole.Tracked() // a new connection to another server may change this meanwhile
	switch n := len(looks); {
	case n == 1:
		g.asked, g.names, g.out = g.alone.asked[:], g.alone.names[:], g.alone.out[:]
	case n <= fewReads:
		few := new(struct {
			asked [fewReads]asked
			names [fewReads]string
			out   [fewReads]Read
		})
		g.asked, g.names, g.out = few.asked[:n], few.names[:n], few.out[:n]
	default:
		g.asked, g.names, g.out = make([]asked, n), make([]string, n), make([]Read, n)
	}
	for i, l := range looks {
		g.names[i] = s.namespace.name(l.Key)
		g.asked[i] = asked{head: l.Head, fenced: l.Fence != nil}
		if g.tracked {
			g.asked[i].read.fence = l.Fence
		}
	}
	if !g.tracked {
		s.announcements.armAll(looks)
	}
	return g
}

// under is the tracked read, nil for one without a fence, which needs nothing.
func (a *asked) under() *trackedRead {
	if a.read.fence == nil {
		return nil
	}
	return &a.read
}

// untracked builds a read for a node that does not track it.
func (g *reads) untracked(b rueidis.Builder, i int) rueidis.Completed {
	g.store.markUntracked(g.asked[i].under())
	return b.Getrange().Key(g.names[i]).Start(0).End(g.store.lastByte(g.asked[i].head)).Build()
}

// build builds a tracked read.
func (g *reads) build(to *session, i int) rueidis.Cacheable {
	start := trackedStart(g.store.numberRead(g.asked[i].under()))
	return to.client.B().Getrange().Key(g.names[i]).Start(start).End(g.store.lastByte(g.asked[i].head)).Cache().ToStaticTTL()
}

// answered notes which node has answered a read.
func (g *reads) answered(l *link, i int) { g.asked[i].by = l }

// end ends read i, and notes what it has found.
func (g *reads) end(i int, r rueidis.RedisResult) {
	now := g.store.table.Load()
	asked, out := &g.asked[i], &g.out[i]
	out.Value, out.Err = r.AsBytes()
	if len(out.Value) == 0 {
		out.Value = nil // GETRANGE answers an empty string for a missing key
	}
	out.Cut = asked.head == 0 && len(out.Value) > g.store.format.longest
	if g.tracked {
		out.Validity = g.store.endRead(asked.under())
	} else if asked.fenced {
		out.Validity = g.store.announcements.validity()
	}
	// A node that no longer has the key pushes no changes of it: see apply.
	if out.Err != nil || asked.by != now.of(g.names[i]) || out.Value == nil && now.migrates(g.names[i]) {
		out.Validity = nil
	}
}

// lastByte is the offset of the last byte to read. Of a value that is too long to be one of ours, one byte more than Longest is
// read.
func (s *Store) lastByte(head int) int64 {
	if head > 0 {
		return int64(head) - 1
	}
	return int64(s.format.longest)
}
