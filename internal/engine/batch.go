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

// The keys of a batch share its round trips and its call of the loader, and nothing else: each key is answered as soon as its value is known.
// A large value is stored in chunks that have to be fetched, and takes long to decode. Callers that wait for a small value do not wait for
// that.

// leadBatch is lead for the keys of a batch.
func (e *Engine) leadBatch(ctx context.Context, attempts []*attempt, load LoadFunc) {
	if len(attempts) == 1 {
		e.lead(ctx, attempts, load)
		return
	}
	var others sync.WaitGroup
	defer others.Wait()
	separately := func(large []*attempt) {
		attempts[0].call.Work()
		others.Go(func() {
			defer attempts[0].call.Rest()
			for _, a := range large { // one at a time, each on a goroutine of its own, since a codec may end it
				var one sync.WaitGroup
				one.Go(func() { e.leadOne(ctx, a, load) })
				one.Wait()
			}
		})
	}
	for _, a := range attempts {
		a.leadSeparately = separately
	}
	e.lead(ctx, attempts, load)
}

// leadOne is lead for a key that was taken out of a batch. However it ends, the key has a result.
func (e *Engine) leadOne(ctx context.Context, a *attempt, load LoadFunc) {
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

// separateLarge takes the keys with large values out of a batch. Each of them goes along the load path again by itself, which reads its
// manifest a second time. The others are returned with the smaller values first, and those without a value in their order. A large value
// whose manifest shows it to be out of date stays in the batch, and is loaded with the others: its chunks are not fetched.
func (e *Engine) separateLarge(m *tags.Snapshot, attempts []*attempt, values []redisstore.Read) ([]*attempt, []redisstore.Read) {
	var order, large []int
	sizes := make([]int64, len(attempts))
	for i, a := range attempts {
		value := values[i].Value
		sizes[i], a.outdated = int64(len(value)), false
		if chunked := !a.Replace && !a.headAlone() && wire.IsChunked(value); chunked {
			if sizes[i], a.outdated = peekManifest(m, e.named(a.Key), value); !a.outdated && a.leadSeparately != nil && len(attempts) > 1 {
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
	kept, reads, separate := make([]*attempt, len(order)), make([]redisstore.Read, len(order)), make([]*attempt, len(large))
	for n, i := range order {
		kept[n], reads[n] = attempts[i], values[i]
	}
	for n, i := range large {
		separate[n] = attempts[i].restarted()
	}
	if len(large) > 0 {
		attempts[0].leadSeparately(separate)
	}
	return kept, reads
}

var onlyFirst = []int{0}

// smallFirst is the order in which the values of a batch are shared, small ones first: a large value may take long to encode.
func smallFirst(attempts []*attempt) []int {
	if len(attempts) == 1 {
		return onlyFirst
	}
	order, sizes := make([]int, len(attempts)), make([]int64, len(attempts))
	for i, a := range attempts {
		order[i] = i
		if a.Err == nil {
			sizes[i] = near.Size(a.Value)
		}
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(sizes[i], sizes[j]) })
	return order
}

// fillParts stores attempts in parts. A large value is a part of its own, and comes last, since a caller that asks for the key again waits until
// the part is stored.
func (e *Engine) fillParts(ctx context.Context, m *tags.Snapshot, attempts []*attempt) {
	small, large := attempts, []*attempt(nil)
	if len(attempts) > 1 && e.opts.ChunkFrom >= 0 {
		small = nil
		for _, a := range attempts {
			if near.Size(a.out.Value) > int64(e.opts.ChunkFrom) {
				large = append(large, a)
			} else {
				small = append(small, a)
			}
		}
	}
	e.fillPart(ctx, m, small)
	for i := range large {
		e.fillPart(ctx, m, large[i:i+1])
	}
}

func (e *Engine) fillPart(ctx context.Context, m *tags.Snapshot, attempts []*attempt) {
	if len(attempts) == 0 {
		return
	}
	if gone := e.fill(ctx, m, attempts); len(gone) > 0 {
		e.fill(ctx, m, gone)
	}
}

// peekManifest returns the size of a value with its chunks, and whether the value carries an older generation of a tag than the known one.
func peekManifest(m *tags.Snapshot, key string, value []byte) (size int64, outdated bool) {
	h, size, _, err := wire.Peek(key, value)
	if err != nil {
		return int64(len(value)), false // openEnvelope finds the same error
	}
	return size, m.Outdated(h.Tags)
}
