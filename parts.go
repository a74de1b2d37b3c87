package aside

import (
	"cmp"
	"context"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/wire"
)

// The keys of a batch share its round trips and its call of the loader, and nothing else: each is settled as soon as its value is
// known. A large value is in chunks that have to be fetched, and takes long to decode. Those that wait for a small one, to load it
// or only to get it, do not wait for that.

// leadBatch is lead for the keys of a batch.
func (c *Cache) leadBatch(ctx context.Context, slots []*slot, load loadFunc) {
	if len(slots) == 1 {
		c.lead(ctx, slots, load)
		return
	}
	var others sync.WaitGroup
	defer others.Wait()
	apart := func(large []*slot) {
		slots[0].call.Work()
		others.Go(func() {
			defer slots[0].call.Rest()
			for _, s := range large { // one at a time, and each on a goroutine of its own, which a codec may end
				var one sync.WaitGroup
				one.Go(func() { c.leadApart(ctx, s, load) })
				one.Wait()
			}
		})
	}
	for _, s := range slots {
		s.apart = apart
	}
	c.lead(ctx, slots, load)
}

// leadApart is lead for a key that was taken out of a batch. Like a flight, it ends with a result however it ends.
func (c *Cache) leadApart(ctx context.Context, s *slot, load loadFunc) {
	err := flight.ErrGoexit
	defer func() {
		if p := recover(); p != nil {
			err = &flight.PanicError{Value: p, Stack: debug.Stack()}
		}
		s.call.Resolve(outcome{}, err)
	}()
	c.lead(ctx, []*slot{s}, load)
	err = flight.ErrUnresolved
}

// again is the slot as it was before its flight looked anywhere. The other one stays with the batch.
func (s *slot) again() *slot {
	again := &slot{request: s.request, miss: notCached}
	again.call, again.led, again.lateTags, again.unasked = s.call, s.led, s.lateTags, s.unasked
	return again
}

// setApart takes large values out of what a batch has read, and has each led apart, from the beginning: what is read again is
// its manifest. The smaller ones come first, and those without a value in their order. A large value that is out of date by its
// manifest stays, so that it is loaded with the others; its chunks are not fetched.
func (c *Cache) setApart(m *marks, slots []*slot, values []redisstore.Read) ([]*slot, []redisstore.Read) {
	var order, large []int
	sizes := make([]int64, len(slots))
	for i, s := range slots {
		value := values[i].Value
		sizes[i], s.outdated = int64(len(value)), false
		if chunked := !s.supersede && wire.IsChunked(value); chunked {
			if sizes[i], s.outdated = m.manifest(c.named(s.key), value); !s.outdated && s.apart != nil && len(slots) > 1 {
				large = append(large, i)
				continue
			}
		}
		order = append(order, i)
	}
	if len(slots) < 2 {
		return slots, values
	}
	bySize := func(i, j int) int { return cmp.Compare(sizes[i], sizes[j]) }
	slices.SortStableFunc(order, bySize)
	slices.SortStableFunc(large, bySize)
	kept, reads, apart := make([]*slot, len(order)), make([]redisstore.Read, len(order)), make([]*slot, len(large))
	for n, i := range order {
		kept[n], reads[n] = slots[i], values[i]
	}
	for n, i := range large {
		apart[n] = slots[i].again()
	}
	if len(large) > 0 {
		slots[0].apart(apart)
	}
	return kept, reads
}

// manifest tells how long a value is, with its chunks, and whether it carries another generation of a tag than the one that is
// known.
func (m *marks) manifest(key string, value []byte) (size int64, outdated bool) {
	h, size, _, err := wire.Peek(key, value)
	if err != nil {
		return int64(len(value)), false // whoever reads it finds that too
	}
	for _, tag := range h.Tags {
		if k := m.find(tag.Name); k != nil && k.known && k.value != tag.Generation {
			return size, true
		}
	}
	return size, false
}

// smallFirst is the order in which the values of a batch are given to those who wait for them: a large one may take long to encode.
func smallFirst(slots []*slot) []int {
	order, sizes := make([]int, len(slots)), make([]int64, len(slots))
	for i, s := range slots {
		order[i] = i
		if len(slots) > 1 && s.err == nil {
			sizes[i] = near.Size(s.value)
		}
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(sizes[i], sizes[j]) })
	return order
}

// parts are those of slots that are stored together, in their order: a large value by itself, since whoever asks for a key again
// waits until it is stored.
func (c *Cache) parts(slots []*slot) (parts [][]*slot) {
	var small []*slot
	for _, s := range slots {
		if len(slots) > 1 && c.opts.ChunkFrom >= 0 && near.Size(s.out.value) > int64(c.opts.ChunkFrom) {
			parts = append(parts, []*slot{s})
		} else {
			small = append(small, s)
		}
	}
	if len(small) > 0 {
		parts = slices.Insert(parts, 0, small)
	}
	return parts
}
