package main

import (
	"cmp"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// What a register can be: any version from the last one that nobody may read below to the last one that exists.
type register struct{ low, high uint32 }

type step struct {
	kind    stepKind
	version uint32
}

type stepKind int

const (
	stepRead     stepKind = iota // gives a version
	stepUpdate                   // from now on it can be read
	stepComplete                 // from now on nothing below it
	stepBegin                    // what was before the piece of history that is checked
)

// model is the register that the rule describes, sequentially: see the package's documentation.
var model = porcupine.Model{
	Init: func() any { return register{} },
	Step: func(state, input, output any) (bool, any) {
		r, s := state.(register), input.(step)
		switch s.kind {
		case stepUpdate:
			r.high = max(r.high, s.version)
		case stepComplete:
			if r.high < s.version {
				return false, r
			}
			r.low = max(r.low, s.version)
		case stepBegin:
			r = output.(register)
		default:
			got := output.(uint32)
			return r.low <= got && got <= r.high, r
		}
		return true, r
	},
	Hash: func(state any) uint64 {
		r := state.(register)
		return (uint64(r.high)<<32 | uint64(r.low)) * 0x9e3779b97f4a7c15
	},
	DescribeOperation: func(input, output any) string {
		switch s := input.(step); s.kind {
		case stepUpdate:
			return fmt.Sprintf("update to %d", s.version)
		case stepComplete:
			return fmt.Sprintf("%d invalidated", s.version-1)
		case stepBegin:
			return fmt.Sprintf("begin at %v", output)
		default:
			return fmt.Sprintf("read %d", output)
		}
	},
	DescribeState: func(state any) string {
		r := state.(register)
		return fmt.Sprintf("%d…%d", r.low, r.high)
	},
}

const (
	pieceReads   = 128 // of one piece of history
	pieceTimeout = time.Second
	readTimeout  = 20 * time.Second // of a piece with one read, which cannot be halved
)

// A piece is some of the reads of one process and one key that are held to the same strength, and all the writes that are not
// over before the first of them, nor begin after the last. Reads do not change the register, so that pieces can be judged
// apart.
type piece struct {
	*track
	reads []read // by their call
}

// A track is what the pieces of one key and process have in common.
type track struct {
	key      int
	proc     uint16
	strength strength
	updates  []update
	floors   []write
	stops    []stoppage
}

// A write is an invalidation as a process may see it: below its version nothing is read any more, from then on.
type write struct {
	at      int64
	version uint32
}

// searched is what porcupine has found.
type searched struct {
	pieces, reads int
	illegal       []piece // of one read each
	unknown       int     // pieces of one read that it could not judge in time
}

// search has porcupine look for an order of each piece that the register allows. delta is by how much later, for a read that
// is not Strong, what another process has invalidated is complete, from quiet on.
func search(h *history, delta [measured]time.Duration) searched {
	pieces := make(chan piece)
	var sum searched
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			var own searched
			for p := range pieces {
				own.pieces++
				own.reads += len(p.reads)
				own.judge(p)
			}
			mu.Lock()
			defer mu.Unlock()
			sum.pieces += own.pieces
			sum.reads += own.reads
			sum.unknown += own.unknown
			sum.illegal = append(sum.illegal, own.illegal...)
		})
	}
	cut(h, delta, nil, func(p piece) { pieces <- p })
	close(pieces)
	wg.Wait()
	return sum
}

// judge has porcupine judge a piece. One that it refuses, or has no answer for in time, it is given again in two halves, down
// to single reads: an order that does not exist can take for ever to look for.
func (s *searched) judge(p piece) {
	limit := pieceTimeout
	if len(p.reads) == 1 {
		limit = readTimeout
	}
	switch outcome := porcupine.CheckOperationsTimeout(model, p.operations(), limit); {
	case outcome == porcupine.Ok || len(s.illegal) >= mostViolations:
	case len(p.reads) > 1:
		half := len(p.reads) / 2
		s.judge(piece{p.track, p.reads[:half]})
		s.judge(piece{p.track, p.reads[half:]})
	case outcome == porcupine.Illegal:
		s.illegal = append(s.illegal, p)
	default:
		s.unknown++
	}
}

// smaller reports whether porcupine accepts a delta that is one nanosecond smaller than what a finding has measured, and whether it
// could not tell in time: to find that there is no order can take longer than to find one.
func smaller(h *history, f finding) (accepted, unknown bool) {
	var delta [measured]time.Duration
	delta[f.strength-quiet] = f.excess - 1
	var s searched
	cut(h, delta, &f.read, s.judge)
	return len(s.illegal) == 0 && s.unknown == 0, len(s.illegal) == 0 && s.unknown > 0
}

// cut makes the pieces of a history, or only the one of one read.
func cut(h *history, delta [measured]time.Duration, only *read, each func(piece)) {
	type class struct {
		key      uint8
		proc     uint16
		strength strength
	}
	near, stops := h.surroundings(), h.stoppages()
	byClass := map[class][]read{}
	for _, r := range h.reads {
		if only != nil && *only != r {
			continue
		}
		c := class{r.key, r.proc, byStrong}
		if !r.door.strong() {
			c.strength = near.of(r)
		}
		byClass[c] = append(byClass[c], r)
	}
	for c, reads := range byClass {
		t := &track{key: int(c.key), proc: c.proc, strength: c.strength, updates: h.updates[c.key], stops: stops[c.proc]}
		for n := range h.invalidations {
			i := &h.invalidations[n]
			w := write{version: h.floor(t.key, i)}
			switch {
			case !i.keys.has(t.key) || w.version == 0:
				continue
			case i.proc == t.proc:
				w.at = t.own(i.here())
			case i.confirmed == 0:
				continue // it may take effect at any time or never, so it forbids nothing
			case t.strength == byStrong:
				w.at = t.own(i.confirmed)
			default:
				w.at = t.own(i.confirmed) + int64(delta[t.strength-quiet])
			}
			t.floors = append(t.floors, w)
		}
		slices.SortFunc(t.floors, func(a, b write) int { return cmp.Compare(a.at, b.at) })
		slices.SortFunc(reads, func(a, b read) int { return cmp.Compare(a.call, b.call) })
		for some := range slices.Chunk(reads, pieceReads) {
			each(piece{t, some})
		}
	}
}

// own is a time on the process's own clock.
func (t *track) own(at int64) int64 { return running(t.stops, at) }

// operations writes a piece down for porcupine.
func (p piece) operations() (list []porcupine.Operation) {
	first, last := p.own(p.reads[0].call), int64(math.MinInt64)
	for _, r := range p.reads {
		last = max(last, p.own(r.ret))
	}
	note := func(client int, kind stepKind, version uint32, call, ret int64) {
		list = append(list, porcupine.Operation{ClientId: client, Input: step{kind, version}, Call: call, Return: ret})
	}
	var before register
	for n, u := range p.updates {
		version := uint32(n + 1)
		switch {
		case p.own(u.done) < first:
			before.high = version
		case p.own(u.began) <= last:
			note(0, stepUpdate, version, p.own(u.began), p.own(u.done))
		}
	}
	for _, w := range p.floors {
		switch {
		case w.at < first:
			before.low = max(before.low, w.version)
		case w.at <= last:
			note(1, stepComplete, w.version, w.at, w.at)
		}
	}
	for n, r := range p.reads {
		list = append(list, porcupine.Operation{
			ClientId: 2 + n%64, Input: step{kind: stepRead}, Output: r.version, Call: p.own(r.call), Return: p.own(r.ret),
		})
	}
	// Before everything else, and over before anything else begins.
	for _, o := range list {
		first = min(first, o.Call)
	}
	return append(list, porcupine.Operation{Input: step{kind: stepBegin}, Output: before, Call: first - 2, Return: first - 1})
}
