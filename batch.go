package aside

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/gatewayz/aside/internal/engine"
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
	for i, id := range ids {
		if _, twice := seen[id]; twice {
			continue
		}
		seen[id] = struct{}{}
		r, _, err := newRequest[T](ctx, c, key(id), opts)
		if err == nil {
			err = callError(c.engine.Check(ctx, r.Key), r.Key)
		}
		if err != nil {
			return nil, fmt.Errorf("id %d of the batch: %w", i, err)
		}
		b.requests = append(b.requests, r)
		b.ids = append(b.ids, id) // a copy: the load may outlive the call, and with it the caller's slice
	}
	if len(b.ids) == 0 {
		return b.values, c.usable()
	}
	c.engine.AnswerMany(ctx, b.requests, b.run, func(index int, out engine.Outcome, err error) { b.settle(ctx, c, index, out, err) })
	if len(b.failed) > 0 {
		return b.values, &BatchError[K]{Errors: b.failed, absent: b.absent}
	}
	return b.values, nil
}

// A batch is one call of GetOrLoadMany.
type batch[K comparable, T any] struct {
	ids      []K              // without duplicates
	requests []engine.Request // for each of them
	load     func(context.Context, []K) (map[K]T, error)
	values   map[K]T
	failed   map[K]error
	absent   map[K]struct{} // not found
}

// run is the batch's loader as a flight calls it.
func (b *batch[K, T]) run(ctx context.Context, indexes []int, found func(int, engine.Loaded)) {
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
func (b *batch[K, T]) settle(ctx context.Context, c *Cache, index int, out engine.Outcome, err error) {
	r := b.requests[index]
	err = callError(err, r.Key)
	if c.settle(ctx, r, out, err) {
		alone := &batch[K, T]{ids: b.ids[index : index+1], load: b.load}
		c.sampler.Offer(newSample(ctx, r.Key, r.Policy, r.Type, alone.run, equalByMethod[T]))
	}
	if err == nil && out.Value == nil {
		b.absent[b.ids[index]] = struct{}{}
		return
	}
	result, err := resultOf[T](c, out, err)
	if err == nil {
		b.values[b.ids[index]] = result.Value
		return
	}
	if b.failed == nil {
		b.failed = make(map[K]error)
	}
	b.failed[b.ids[index]] = err
}

// answers are what a batch loader has come back with. What it was given and what it returned stay its own: it may go on changing
// them, so each id is looked up once, by what the cache knows it as, and nothing of theirs is held after that.
type answers[K comparable, T any] struct {
	values  map[K]T
	err     error
	each    *BatchError[K] // err, where it tells ids apart
	absent  map[K]struct{} // ids that another batch has not found, where its answer is handed on as this one's
	settles bool           // it is about this batch: an id that it leaves out is not found
}

// newAnswers is for a call of the loader with ids. An id that the loader has left out is not found only where the loader has got so
// far: a failure that concerns all, or that is another batch's, says nothing of it. What another batch has not found counts where its
// whole answer is handed on: its values and its error, and both about these ids alone. The same id may be another thing there.
func newAnswers[K comparable, T any](ids []K, values map[K]T, err error) answers[K, T] {
	a := answers[K, T]{values: values, err: err, settles: err == nil}
	if a.each, _ = err.(*BatchError[K]); a.each == nil { // inside another error it stands beside something that concerns all ids
		return a
	}
	asked := make(map[K]struct{}, len(ids))
	for _, id := range ids {
		asked[id] = struct{}{}
	}
	if values != nil && within(a.each.Errors, asked) && within(a.each.absent, asked) {
		a.absent, a.settles = a.each.absent, a.each.absent == nil
	}
	a.err = &BatchError[K]{Errors: maps.Clone(a.each.Errors)}
	return a
}

// of is what the loader has said of one id.
func (a answers[K, T]) of(id K) (value T, err error) {
	if v, found := a.values[id]; found {
		return v, nil
	}
	if a.each != nil {
		if own := a.each.Errors[id]; own != nil {
			return value, own
		}
		if _, absent := a.absent[id]; absent {
			return value, ErrNotFound
		}
	}
	if a.settles {
		return value, ErrNotFound
	}
	return value, a.err
}

// within reports whether all ids of a map were asked for.
func within[K comparable, V any](ids map[K]V, asked map[K]struct{}) bool {
	for id := range ids {
		if _, ours := asked[id]; !ours {
			return false
		}
	}
	return true
}
