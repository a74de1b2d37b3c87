package aside

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/sampler"
)

// A BatchError has the errors of the failed ids of a batch. The values of the other ids are returned with it. A batch loader may return a
// BatchError itself, with a map that is not nil, to fail some ids: an id that is neither in the map nor in Errors is not found.
//
// A batch loader may return the map and the error of GetOrLoadMany or Loader.GetMany, if it called them with its own ids alone: an id that was
// not found there is not found here. With a nil map, ids that are not in Errors fail with the BatchError. They also do if Errors has an id that
// the loader was not called with.
type BatchError[K comparable] struct {
	Errors map[K]error

	absent map[K]struct{} // the ids that were not found; nil unless the cache has made the error
}

// Error returns the number of failed ids, and the error of one of them.
func (e *BatchError[K]) Error() string {
	for _, err := range e.Errors {
		if len(e.Errors) == 1 {
			return fmt.Sprintf("aside: an id of a batch failed: %v", err)
		}
		return fmt.Sprintf("aside: %d ids of a batch failed, one of them with: %v", len(e.Errors), err)
	}
	return "aside: no id of a batch failed"
}

// Unwrap returns the errors of all ids, for errors.Is and errors.As.
func (e *BatchError[K]) Unwrap() []error { return slices.Collect(maps.Values(e.Errors)) }

// GetOrLoadMany is GetOrLoad for many ids at once. key makes the key of each id. All keys are read in memory, then in Redis in one round trip,
// and load is called once for the missing ids, without duplicates and in the order of ids. Batches and single callers share loads. Each id is
// answered as soon as its value is known: a single caller of one id does not wait for a large value in the same batch. A large value with a
// missing part is loaded by a call of its own.
//
// An id that is missing in load's map is not found: that is cached, and the id is missing in the result, without an error. Ids that fail,
// because load failed or because ctx ended, are in one *BatchError[K], which is returned with the values of the others. If load returns values
// and an error, the error is for the ids without a value; to fail ids with different errors, return a BatchError. The time limit is the longest
// LoadTimeout of the keys' policies. load may change the slice that it gets.
func GetOrLoadMany[K comparable, T any](ctx context.Context, c *Cache, ids []K, key func(K) Key, load func(context.Context, []K) (map[K]T, error), opts ...CallOption) (map[K]T, error) {
	return getMany(ctx, c, ids, key, load, nil, opts)
}

// getMany is GetOrLoadMany. also returns a further option for each id; nil: none.
func getMany[K comparable, T any](ctx context.Context, c *Cache, ids []K, key func(K) Key, load func(context.Context, []K) (map[K]T, error), also func(K) CallOption, opts []CallOption) (map[K]T, error) {
	values := make(map[K]T, len(ids))
	b := batch[K, T]{load: load, also: also, answered: func(id K, r Result[T]) {
		if !r.Negative {
			values[id] = r.Value
		}
	}}
	if passive(opts) {
		b.inMemory = func(id K, key Key) (limit time.Duration, ok bool) {
			if _, twice := values[id]; twice {
				return 0, true
			}
			v, owner := hit[T](c, &key)
			if v == nil {
				return 0, false
			}
			if values[id] = *v; c.drawn(owner.Counters.MemoryHits.Add()) {
				sampleHit(ctx, c, key, owner.Counters, func(ctx context.Context) (T, error) { return loadAlone(ctx, id, load) })
			}
			return owner.LoadTimeout, true
		}
	}
	if err := b.get(ctx, c, ids, key, opts); err != nil {
		if _, failed := err.(*BatchError[K]); !failed {
			return nil, err
		}
		return values, err
	}
	return values, nil
}

// LookupMany is GetOrLoadMany with a Result for each id. An id that is not found is in the map, with Result.Negative.
func LookupMany[K comparable, T any](ctx context.Context, c *Cache, ids []K, key func(K) Key, load func(context.Context, []K) (map[K]T, error), opts ...CallOption) (map[K]Result[T], error) {
	return lookupMany(ctx, c, ids, key, load, nil, opts)
}

func lookupMany[K comparable, T any](ctx context.Context, c *Cache, ids []K, key func(K) Key, load func(context.Context, []K) (map[K]T, error), also func(K) CallOption, opts []CallOption) (map[K]Result[T], error) {
	results := make(map[K]Result[T], len(ids))
	b := batch[K, T]{load: load, also: also, answered: func(id K, r Result[T]) { results[id] = r }}
	if err := b.get(ctx, c, ids, key, opts); err != nil {
		if _, failed := err.(*BatchError[K]); !failed {
			return nil, err
		}
		return results, err
	}
	return results, nil
}

// parallelSets is how many values SetMany stores at the same time.
const parallelSets = 64

// SetMany is Set for many values at once: key makes the key of each id. Up to 64 values are stored at the same time. Ids that fail are in one
// *BatchError[K]; the others are stored. With an invalid key or option, nothing is stored.
func SetMany[K comparable, T any](ctx context.Context, c *Cache, values map[K]T, key func(K) Key, opts ...CallOption) error {
	return setMany(ctx, c, values, key, nil, opts)
}

func setMany[K comparable, T any](ctx context.Context, c *Cache, values map[K]T, key func(K) Key, also func(K) CallOption, opts []CallOption) error {
	if key == nil {
		return invalidArgument("the key function is nil: give the function that makes the key of an id")
	}
	keys, options := make(map[K]Key, len(values)), make(map[K][]CallOption, len(values))
	for id := range values {
		keys[id] = key(id)
		options[id] = with(opts, also, id)
		if _, _, err := newRequest[T](ctx, c, keys[id], options[id]); err != nil {
			return fmt.Errorf("an id of the batch: %w", err)
		}
	}
	var (
		mu     sync.Mutex
		failed map[K]error
		wg     sync.WaitGroup
		places = make(chan struct{}, parallelSets)
	)
	for id, value := range values {
		places <- struct{}{}
		wg.Go(func() {
			err := callError(flight.ErrGoexit, keys[id].String()) // for a codec that ends the goroutine
			defer func() {
				if err != nil {
					mu.Lock()
					defer mu.Unlock()
					if failed == nil {
						failed = make(map[K]error)
					}
					failed[id] = err
				}
				<-places
			}()
			err = Set(ctx, c, keys[id], value, options[id]...)
		})
	}
	wg.Wait()
	if len(failed) > 0 {
		return &BatchError[K]{Errors: failed}
	}
	return c.usable()
}

// with returns the options of one id.
func with[K comparable](opts []CallOption, also func(K) CallOption, id K) []CallOption {
	if also == nil {
		return opts
	}
	return append(slices.Clip(opts), also(id))
}

// A batch is one call for many ids.
type batch[K comparable, T any] struct {
	ids      []K              // without duplicates
	requests []engine.Request // for each of them
	load     func(context.Context, []K) (map[K]T, error)
	also     func(K) CallOption                          // a further option of each id; nil: none
	inMemory func(K, Key) (limit time.Duration, ok bool) // answers an id from memory, with the LoadTimeout of its policy; nil: not before the engine does
	answered func(K, Result[T])                          // takes the result of each other id that has not failed
	failed   map[K]error
	absent   map[K]struct{} // not found
	began    int64          // on the cache's clock
}

// get answers ids. The error is a BatchError if the call itself was valid.
func (b *batch[K, T]) get(ctx context.Context, c *Cache, ids []K, key func(K) Key, opts []CallOption) error {
	if b.load == nil || key == nil {
		return invalidArgument("the loader or the key function is nil: give both")
	}
	var limit time.Duration // the longest LoadTimeout of the ids in memory
	var seen map[K]struct{} // the other ids
	// All ids are looked up and checked before the first step that takes long.
	for i, id := range ids {
		if _, twice := seen[id]; twice {
			continue
		}
		k := key(id)
		if b.inMemory != nil {
			if of, ok := b.inMemory(id, k); ok {
				limit = max(limit, of)
				continue
			}
		}
		r, _, err := newRequest[T](ctx, c, k, with(opts, b.also, id))
		if err == nil {
			err = callError(c.engine.Check(ctx, r.Key), r.Key)
		}
		if err != nil {
			return fmt.Errorf("id %d of the batch: %w", i, err)
		}
		if seen == nil {
			seen, b.absent = make(map[K]struct{}, len(ids)-i), make(map[K]struct{})
		}
		seen[id] = struct{}{}
		b.requests = append(b.requests, r)
		b.ids = append(b.ids, id) // a copy, since the load may outlive the call
	}
	if len(b.ids) == 0 {
		return c.usable()
	}
	b.began = c.engine.Clock.Now()
	c.engine.AnswerMany(ctx, b.requests, limit, b.run, func(index int, out engine.Outcome, here bool, err error) { b.settle(ctx, c, index, out, here, err) })
	if len(b.failed) > 0 {
		return &BatchError[K]{Errors: b.failed, absent: b.absent}
	}
	return nil
}

// run is the batch's engine.LoadFunc. It calls the loader with at most MaxBatch ids at a time.
func (b *batch[K, T]) run(ctx context.Context, indexes []int, found func(int, engine.Loaded)) {
	most := len(indexes)
	for _, index := range indexes {
		if n := b.requests[index].Policy.MaxBatch; n > 0 {
			most = min(most, n)
		}
	}
	for from := 0; from < len(indexes); from += most {
		to := min(from+most, len(indexes))
		if err := ctx.Err(); from > 0 && err != nil { // the first call is made in any case: a loader may ignore its context
			for _, index := range indexes[from:to] {
				found(index, failed(err, nil))
			}
			continue
		}
		b.runPortion(engine.InPortion(ctx, from, to), indexes[from:to], found)
	}
}

func (b *batch[K, T]) runPortion(ctx context.Context, indexes []int, found func(int, engine.Loaded)) {
	ids := make([]K, len(indexes))
	for i, index := range indexes {
		ids[i] = b.ids[index]
	}
	values, err := b.load(ctx, slices.Clone(ids)) // a clone, since load may sort it
	got := newAnswers(ids, values, err)
	for i, index := range indexes {
		if v, err := got.of(ids[i]); err != nil {
			found(index, failed(err, b.requests[index].Policy.NotFound))
		} else {
			found(index, give(v, nil, nil))
		}
	}
}

// settle notes the answer for one id. here reports whether memory had it at once.
func (b *batch[K, T]) settle(ctx context.Context, c *Cache, index int, out engine.Outcome, here bool, err error) {
	r := b.requests[index]
	err = callError(err, r.Key)
	if !here {
		r.Policy.Counters.CallTimes.Observe(time.Duration(c.engine.Clock.Now() - b.began))
	}
	if here && c.sampler.Draws(sampler.Telling) {
		c.engine.ObserveHit(ctx, r.Key, r.Policy, out)
	}
	if c.sampler.Draws(sampler.Counting) {
		c.countKey(r.Key)
	}
	if c.settle(ctx, r, out, err) {
		alone := &batch[K, T]{ids: b.ids[index : index+1], requests: b.requests[index : index+1], load: b.load}
		c.sampler.Offer(newSample(ctx, r.Key, r.Policy, r.Place, r.Type, alone.run, equalByMethod[T]))
	}
	absent := err == nil && out.Value == nil
	if absent {
		b.absent[b.ids[index]] = struct{}{}
	}
	result, err := resultOf[T](c, &r, out, err)
	if err == nil || absent {
		b.answered(b.ids[index], result)
		return
	}
	if b.failed == nil {
		b.failed = make(map[K]error)
	}
	b.failed[b.ids[index]] = err
}

// answers are the results of a batch loader. The loader may still change its slice and its map. So each id is looked up once, by the cache's own
// copy of the ids, and the map is not kept.
type answers[K comparable, T any] struct {
	values  map[K]T
	err     error
	each    *BatchError[K] // err, if it is a BatchError
	absent  map[K]struct{} // ids that an inner batch has not found, if the loader returned the inner batch's results
	settles bool           // an id that is missing in values is not found
}

// newAnswers makes the answers of a call of the loader with ids. An id that is missing in values is not found only if the loader succeeded, or
// returned a BatchError of its own. A failure for all ids, or the error of another batch, says nothing about that id. The results of an inner
// batch count only if the loader returned both its values and its error, and both are about ids of this batch alone: the same id may mean
// something else in another batch.
func newAnswers[K comparable, T any](ids []K, values map[K]T, err error) answers[K, T] {
	a := answers[K, T]{values: values, err: err, settles: err == nil}
	if a.each, _ = err.(*BatchError[K]); a.each == nil { // a BatchError that another error wraps: that error is about all ids
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

// of returns the result for one id.
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

// within reports whether all ids of a map are in asked.
func within[K comparable, V any](ids map[K]V, asked map[K]struct{}) bool {
	for id := range ids {
		if _, ours := asked[id]; !ours {
			return false
		}
	}
	return true
}
