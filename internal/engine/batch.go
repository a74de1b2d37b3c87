package engine

import (
	"cmp"
	"context"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// The keys of a batch share its round trips and its call of the loader, and nothing else: each is settled as soon as its value is
// known. A large value is in chunks that have to be fetched, and takes long to decode. Those that wait for a small one, to load it
// or only to get it, do not wait for that.

// leadBatch is lead for the keys of a batch.
func (e *Engine) leadBatch(ctx context.Context, attempts []*attempt, load LoadFunc) {
	if len(attempts) == 1 {
		e.lead(ctx, attempts, load)
		return
	}
	var others sync.WaitGroup
	defer others.Wait()
	apart := func(large []*attempt) {
		attempts[0].call.Work()
		others.Go(func() {
			defer attempts[0].call.Rest()
			for _, a := range large { // one at a time, and each on a goroutine of its own, which a codec may end
				var one sync.WaitGroup
				one.Go(func() { e.leadApart(ctx, a, load) })
				one.Wait()
			}
		})
	}
	for _, a := range attempts {
		a.perID = apart
	}
	e.lead(ctx, attempts, load)
}

// leadApart is lead for a key that was taken out of a batch. Like a flight, it ends with a result however it ends.
func (e *Engine) leadApart(ctx context.Context, a *attempt, load LoadFunc) {
	err := flight.ErrGoexit
	defer func() {
		if p := recover(); p != nil {
			err = &flight.PanicError{Value: p, Stack: debug.Stack()}
		}
		a.call.Resolve(Outcome{}, err)
	}()
	e.lead(ctx, []*attempt{a}, load)
	err = flight.ErrUnresolved
}

// setApart takes large values out of what a batch has read, and has each led apart, from the beginning: what is read again is
// its manifest. The smaller ones come first, and those without a value in their order. A large value that is out of date by its
// manifest stays, so that it is loaded with the others; its chunks are not fetched.
func (e *Engine) setApart(m *tags.Snapshot, attempts []*attempt, values []redisstore.Read) ([]*attempt, []redisstore.Read) {
	var order, large []int
	sizes := make([]int64, len(attempts))
	for i, a := range attempts {
		value := values[i].Value
		sizes[i], a.outdated = int64(len(value)), false
		if chunked := !a.Replace && wire.IsChunked(value); chunked {
			if sizes[i], a.outdated = manifest(m, e.named(a.Key), value); !a.outdated && a.perID != nil && len(attempts) > 1 {
				large = append(large, i)
				continue
			}
		}
		order = append(order, i)
	}
	if len(attempts) < 2 {
		return attempts, values
	}
	bySize := func(i, j int) int { return cmp.Compare(sizes[i], sizes[j]) }
	slices.SortStableFunc(order, bySize)
	slices.SortStableFunc(large, bySize)
	kept, reads, apart := make([]*attempt, len(order)), make([]redisstore.Read, len(order)), make([]*attempt, len(large))
	for n, i := range order {
		kept[n], reads[n] = attempts[i], values[i]
	}
	for n, i := range large {
		apart[n] = attempts[i].restarted()
	}
	if len(large) > 0 {
		attempts[0].perID(apart)
	}
	return kept, reads
}

// smallFirst is the order in which the values of a batch are given to those who wait for them: a large one may take long to encode.
func smallFirst(attempts []*attempt) []int {
	order, sizes := make([]int, len(attempts)), make([]int64, len(attempts))
	for i, a := range attempts {
		order[i] = i
		if len(attempts) > 1 && a.Err == nil {
			sizes[i] = near.Size(a.Value)
		}
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(sizes[i], sizes[j]) })
	return order
}

// parts are those of attempts that are stored together, in their order: a large value by itself, since whoever asks for a key again
// waits until it is stored.
func (e *Engine) parts(attempts []*attempt) (parts [][]*attempt) {
	var small []*attempt
	for _, a := range attempts {
		if len(attempts) > 1 && e.opts.ChunkFrom >= 0 && near.Size(a.out.Value) > int64(e.opts.ChunkFrom) {
			parts = append(parts, []*attempt{a})
		} else {
			small = append(small, a)
		}
	}
	if len(small) > 0 {
		parts = slices.Insert(parts, 0, small)
	}
	return parts
}

// manifest tells how long a value is, with its chunks, and whether it carries another generation of a tag than the one that is
// known.
func manifest(m *tags.Snapshot, key string, value []byte) (size int64, outdated bool) {
	h, size, _, err := wire.Peek(key, value)
	if err != nil {
		return int64(len(value)), false // whoever reads it finds that too
	}
	return size, m.Outdated(h.Tags)
}
