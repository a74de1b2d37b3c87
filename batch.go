package aside

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// A BatchError tells which ids of a batch failed, and how. The values of the others are returned beside it. A batch loader
// may return one itself, beside a map that is not nil, to fail some ids and not the others: those that are in neither are not found.
//
// A batch loader may pass on what GetOrLoadMany or Loader.GetMany has returned to it, the map and the error, if that was asked for none
// but its own ids: what was not found there is not found. A map of nil beside the error says that nothing is known of any id but
// those in Errors: the others have failed with it. So have they where the error is about an id that the loader was not given.
type BatchError[K comparable] struct {
	Errors map[K]error

	absent map[K]struct{} // of one that the cache has made, the ids that were not found; not nil then
}

// Error gives the number of failed ids and the error of one of them.
func (e *BatchError[K]) Error() string {
	for _, err := range e.Errors {
		return fmt.Sprintf("aside: %d ids of a batch failed, one of them with: %v", len(e.Errors), err)
	}
	return "aside: no id of a batch failed"
}

// Unwrap returns the errors of all ids, so that errors.Is and errors.As look at each.
func (e *BatchError[K]) Unwrap() []error { return slices.Collect(maps.Values(e.Errors)) }

// GetOrLoadMany is GetOrLoad for many ids at once: key makes the key of each, memory and Redis are asked for all of them
// in one round trip, and load is called once for those that neither has, without duplicates and in the order of ids. It
// shares loads with single callers in both directions. Each id is settled as soon as it is known, without the others: who waits
// for one alone does not wait for a large value beside it. A large value of which a part turns out to be missing is loaded by a call
// of its own.
//
// An id that load leaves out of its map is not found: it is cached as such and missing in the result, without an error.
// Ids that fail, because load did or because ctx ended, come as one *BatchError[K] beside the values that are there. If
// load returns values and an error, the error is that of the ids without a value: see BatchError for one that tells them apart. The time limit is the longest one of the
// keys' policies. The slice that load is given is its own, to sort or to change.
func GetOrLoadMany[K comparable, T any](ctx context.Context, c *Cache, ids []K, key func(K) Key, load func(context.Context, []K) (map[K]T, error), opts ...CallOption) (map[K]T, error) {
	if load == nil || key == nil {
		return nil, invalidArgument("the loader or the key function is nil: give both")
	}
	b := batch[K, T]{load: load, values: make(map[K]T, len(ids)), absent: make(map[K]struct{})}
	// Everything is checked before anything is begun.
	seen := make(map[K]struct{}, len(ids))
	var slots []*slot
	for i, id := range ids {
		if _, twice := seen[id]; twice {
			continue
		}
		seen[id] = struct{}{}
		s, _, err := newSlot[T](ctx, c, key(id), opts)
		if err == nil {
			err = c.reentrant(ctx, s.key)
		}
		if err != nil {
			return nil, fmt.Errorf("id %d of the batch: %w", i, err)
		}
		s.index = len(slots)
		slots = append(slots, s)
		b.ids = append(b.ids, id) // a copy: the load may outlive the call, and with it the caller's slice
	}
	if len(slots) == 0 {
		return b.values, c.usable()
	}

	c.answerMany(ctx, slots, b.run, func(s *slot, out outcome, err error) { b.settle(ctx, c, s, out, err) })
	if len(b.failed) > 0 {
		return b.values, &BatchError[K]{Errors: b.failed, absent: b.absent}
	}
	return b.values, nil
}

// A batch is one call of GetOrLoadMany.
type batch[K comparable, T any] struct {
	ids    []K // without duplicates; a slot's index is its id's place here
	load   func(context.Context, []K) (map[K]T, error)
	values map[K]T
	failed map[K]error
	absent map[K]struct{} // not found
}

// run is the batch's loadFunc.
func (b *batch[K, T]) run(ctx context.Context, indexes []int, found func(int, given)) {
	ids := make([]K, len(indexes))
	for i, index := range indexes {
		ids[i] = b.ids[index]
	}
	values, err := b.load(ctx, slices.Clone(ids)) // which may sort what it is given
	got := newAnswers(ids, values, err)
	for i, index := range indexes {
		if v, err := got.of(ids[i]); err != nil {
			found(index, failed(err))
		} else {
			found(index, give(v, nil))
		}
	}
}

// settle notes the answer for one id.
func (b *batch[K, T]) settle(ctx context.Context, c *Cache, s *slot, out outcome, err error) {
	out.count(s.plan.counts, err)
	if c.sampler.draws(out, err) && c.sampler.hasRoom(ctx, s.plan.counts) {
		alone := &batch[K, T]{ids: b.ids[s.index : s.index+1], load: b.load}
		c.sampler.take(newSample[T](ctx, s.key, s.plan, alone.run))
	}
	if err == nil && out.value == nil {
		b.absent[b.ids[s.index]] = struct{}{}
		return
	}
	r, err := resultOf[T](c, out, err)
	if err == nil {
		b.values[b.ids[s.index]] = r.Value
		return
	}
	if b.failed == nil {
		b.failed = make(map[K]error)
	}
	b.failed[b.ids[s.index]] = err
}
