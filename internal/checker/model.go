package main

import (
	"cmp"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
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
	pieceReads   = 256 // of one piece of history
	pieceTimeout = 20 * time.Second
)

// A piece is some of the reads of one process and one key that are held to the same strength, in order, and all the writes
// that are not over before the first of them, nor begin after the last. Reads do not change the register, so that pieces can
// be judged apart.
type piece struct {
	operations []porcupine.Operation
	strength   strength
	key        int
	proc       uint16
}

// searched is what porcupine has found.
type searched struct {
	pieces, reads int
	illegal       []piece
	unknown       int // pieces that it could not judge in time
}

// search has porcupine look for an order of each piece that the register allows. delta is by how much later, for a read that
// is not Strong, what another process has invalidated is complete, of quiet and faulted.
func search(h *history, delta [2]time.Duration) searched {
	pieces := make(chan piece)
	var result searched
	var mu sync.Mutex
	var unknown, count atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for p := range pieces {
				count.Add(1)
				switch porcupine.CheckOperationsTimeout(model, p.operations, pieceTimeout) {
				case porcupine.Illegal:
					mu.Lock()
					result.illegal = append(result.illegal, p)
					mu.Unlock()
				case porcupine.Unknown:
					unknown.Add(1)
				}
			}
		})
	}
	cut(h, delta, nil, func(p piece) {
		for _, o := range p.operations {
			if o.Input.(step).kind == stepRead {
				result.reads++
			}
		}
		pieces <- p
	})
	close(pieces)
	wg.Wait()
	result.pieces, result.unknown = int(count.Load()), int(unknown.Load())
	return result
}

// smaller reports whether porcupine refuses a delta that is one nanosecond smaller than what a finding has measured.
func smaller(h *history, f finding) (refused bool) {
	var delta [2]time.Duration
	delta[f.strength-quiet] = f.excess - 1
	cut(h, delta, &f.read, func(p piece) {
		refused = refused || porcupine.CheckOperationsTimeout(model, p.operations, pieceTimeout) == porcupine.Illegal
	})
	return refused
}

// A write as a process may see it: of a version, it is complete at some time.
type write struct {
	earliest, latest int64
	version          uint32
}

// cut makes the pieces of a history, or only the one of one read.
func cut(h *history, delta [2]time.Duration, only *read, each func(piece)) {
	type class struct {
		key      uint8
		proc     uint16
		strength strength
	}
	near, stops := nearFaults(h), h.stoppages()
	byClass := map[class][]read{}
	for _, r := range h.reads {
		c := class{r.key, r.proc, quiet}
		switch {
		case r.door.strong():
			c.strength = byStrong
		case near.has(r.call):
			c.strength = faulted
		}
		if only == nil || *only == r {
			byClass[c] = append(byClass[c], r)
		}
	}
	for c, reads := range byClass {
		key, own := int(c.key), stops[c.proc]
		at := func(t int64) int64 { return running(own, t) }
		var writes []write
		for n := range h.invalidations {
			i := &h.invalidations[n]
			version := h.floor(key, i)
			switch {
			case !i.keys.has(key) || version == 0:
			case i.proc == c.proc:
				writes = append(writes, write{at(i.call), at(i.ret), version})
			case i.confirmed == 0:
				// It may take effect at any time or never, so it forbids nothing.
			case c.strength == byStrong:
				writes = append(writes, write{at(i.confirmed), at(i.confirmed), version})
			default:
				t := at(i.confirmed) + int64(delta[c.strength-quiet])
				writes = append(writes, write{t, t, version})
			}
		}
		// What is allowed to be latest is what counts: an earlier effect would only forbid more.
		slices.SortFunc(writes, func(a, b write) int { return cmp.Compare(a.latest, b.latest) })
		slices.SortFunc(reads, func(a, b read) int { return cmp.Compare(a.call, b.call) })
		for some := range slices.Chunk(reads, pieceReads) {
			each(piece{pieceOf(h.updates[key], writes, some, at), c.strength, key, c.proc})
		}
	}
}

func pieceOf(updates []update, writes []write, reads []read, at func(int64) int64) []porcupine.Operation {
	first, last := at(reads[0].call), int64(math.MinInt64)
	for _, r := range reads {
		last = max(last, at(r.ret))
	}
	var before register
	var list []porcupine.Operation
	note := func(client int, kind stepKind, version uint32, call, ret int64) {
		list = append(list, porcupine.Operation{ClientId: client, Input: step{kind, version}, Call: call, Return: ret})
	}
	for n, u := range updates {
		version := uint32(n + 1)
		switch {
		case at(u.done) < first:
			before.high = version
		case at(u.began) <= last:
			note(0, stepUpdate, version, at(u.began), at(u.done))
		}
	}
	past, _ := slices.BinarySearchFunc(writes, first, func(w write, t int64) int { return cmp.Compare(w.latest, t) })
	for _, w := range writes[:past] {
		before.low = max(before.low, w.version)
	}
	before.high = max(before.high, before.low)
	for _, w := range writes[past:] {
		if w.earliest <= last && w.version > before.low {
			note(1, stepComplete, w.version, w.earliest, w.latest)
		}
	}
	for n, r := range reads {
		list = append(list, porcupine.Operation{
			ClientId: 2 + n%8, Input: step{kind: stepRead}, Output: r.version, Call: at(r.call), Return: at(r.ret),
		})
	}
	// Before everything else, and over before anything else begins.
	for _, o := range list {
		first = min(first, o.Call)
	}
	return append(list, porcupine.Operation{Input: step{kind: stepBegin}, Output: before, Call: first - 2, Return: first - 1})
}
