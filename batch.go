package aside

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/sampler"
	"github.com/gatewayz/aside/internal/warm"
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
	if load == nil || key == nil {
		return nil, invalidArgument("the loader or the key function is nil: give both")
	}
	b := batch[K, T]{load: load, values: make(map[K]T, len(ids)), absent: make(map[K]struct{})}
	// All ids are checked before the first step.
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
		b.ids = append(b.ids, id) // a copy, since the load may outlive the call
	}
	if len(b.ids) == 0 {
		return b.values, c.usable()
	}
	b.began = c.engine.Clock.Now()
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
	began    int64          // on the cache's clock
}

// run is the batch's engine.LoadFunc.
func (b *batch[K, T]) run(ctx context.Context, indexes []int, found func(int, engine.Loaded)) {
	ids := make([]K, len(indexes))
	for i, index := range indexes {
		ids[i] = b.ids[index]
	}
	values, err := b.load(ctx, slices.Clone(ids)) // a clone, since load may sort it
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
	if err != nil || out.Tier != engine.TierMemory {
		r.Policy.Counters.CallTimes.Observe(time.Duration(c.engine.Clock.Now() - b.began))
	}
	if c.sampler.Draws(sampler.Counting) {
		c.countKey(r.Key)
	}
	if c.settle(ctx, r, out, err) {
		alone := &batch[K, T]{ids: b.ids[index : index+1], load: b.load}
		c.sampler.Offer(newSample(ctx, r.Key, r.Policy, r.Type, alone.run, equalByMethod[T]))
	}
	if err == nil && out.Value == nil {
		b.absent[b.ids[index]] = struct{}{}
		return
	}
	result, err := resultOf[T](c, &r, out, err)
	if err == nil {
		b.values[b.ids[index]] = result.Value
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

// A Warming says how Warm works. The zero value warms in this process, with the defaults.
type Warming struct {
	// Name lets one process of the fleet warm: while it does, the others return at once, with Warmed.Elsewhere. When Warm has returned, another one
	// can begin. If the process dies, it can after Options.LeaseTTL. At most 200 bytes, without the characters that keys escape. Default: none, each call warms.
	Name string

	// Every is how long after a warming without an error and without failed ids no other one of its Name begins. It needs a Name. Default: 0,
	// the next call warms.
	Every time.Duration

	// Batch is how many ids one call of the loader gets. Default: 100.
	Batch int

	// AtOnce is how many batches run at the same time. Each takes a place of Options.MaxLoads. Default: 4.
	AtOnce int

	// Progress is called after each batch, in the order of the batches, one call at a time. It must return soon, and not panic. Default: none.
	Progress func(Warmed)
}

// Warmed says what became of the ids of a Warm.
type Warmed struct {
	Seen      int           // ids
	Fresh     int           // ids whose value was cached and within its TTL
	Loaded    int           // ids whose value was loaded and stored; also those whose loader or policy prevents that the value is stored
	NotFound  int           // ids whose loader has returned "not found"
	Failed    int           // ids whose value could not be loaded or stored; the metrics count why
	Elsewhere bool          // another process warms under this Name, or has done so less than Every ago
	Took      time.Duration // the time so far
}

// Warm loads the values of ids that are not cached. It reads ids as it goes, so there may be any number of them. Of each batch it first reads
// the beginnings of the values in Redis. Those that are within their TTL cost nothing more. The others are loaded by GetOrLoadMany's rules: one
// load of a key in the fleet, and nothing from before an invalidation is stored. So a Warm that was interrupted is resumed by another one, which
// loads what is missing.
//
// In Redis mode Warm fills Redis, not the memories of the other processes: those fill with calls. While Redis is unavailable, Warm waits. An id
// that fails is counted, and the others go on. A value that is not stored, since it was invalidated during its load or Redis has not taken it, is
// loaded again, twice at most. Warm ends early with ctx's error if ctx ends, with ErrClosed if the cache is closed, and with an *Error for invalid
// arguments, for an id whose key is invalid, and, with CodeUnavailable, if another process may have begun the warming of this Name. A panic of ids,
// key or Progress ends it too, in the caller's goroutine.
func Warm[K comparable, T any](ctx context.Context, c *Cache, ids iter.Seq[K], key func(K) Key, load func(context.Context, []K) (map[K]T, error), w Warming) (Warmed, error) {
	if err := c.usableWith(ctx); err != nil {
		return Warmed{}, err
	}
	if load == nil || key == nil || ids == nil {
		return Warmed{}, invalidArgument("the ids, the loader or the key function is nil: give all three")
	}
	if err := w.validate(); err != nil {
		return Warmed{}, err
	}
	until, end := c.engine.UntilClosed(ctx)
	defer end(nil)
	began := c.engine.Clock.Now()
	report := func(n warm.Counts) Warmed {
		return Warmed{n.Seen, n.Fresh, n.Loaded, n.NotFound, n.Failed, false, time.Duration(c.engine.Clock.Now() - began)}
	}
	var progress func(warm.Counts)
	if w.Progress != nil {
		progress = func(n warm.Counts) { w.Progress(report(n)) }
	}
	var counts warm.Counts
	run := func(ctx context.Context) (complete bool, err error) {
		counts, err = warm.Run(ctx, ids, cmp.Or(w.Batch, 100), cmp.Or(w.AtOnce, 4), func(ctx context.Context, ids []K) warm.Counts {
			n, err := warmBatch(ctx, c, ids, key, load)
			if err != nil {
				end(err)
			}
			return n
		}, progress)
		return counts.Failed == 0, err
	}
	var elsewhere bool
	var err error
	if w.Name == "" {
		_, err = run(until)
	} else {
		elsewhere, err = c.engine.WarmOnce(until, w.Name, w.Every, run)
	}
	if cause := context.Cause(until); err != nil && err == until.Err() && ctx.Err() == nil {
		err = cause // a batch has failed, or the cache was closed
	}
	done := report(counts)
	done.Elsewhere = elsewhere
	return done, callError(err, "")
}

// longestWarmingName bounds Warming.Name, which is part of a key in Redis.
const longestWarmingName = 200

func (w Warming) validate() error {
	switch {
	case len(w.Name) > longestWarmingName || !keyspace.Plain(w.Name):
		return invalidArgument(fmt.Sprintf("Warming.Name is %q: use at most %d bytes, and none of : * ? [ ] \\ { } %% or a control character", w.Name[:min(len(w.Name), longestWarmingName)], longestWarmingName))
	case w.Every < 0 || w.Every > 0 && w.Every < time.Millisecond:
		return invalidArgument("Warming.Every is " + w.Every.String() + ": set at least 1ms, or 0")
	case w.Every > 0 && w.Name == "":
		return invalidArgument("Warming.Every is set, and Name is not: give the warming a Name, by which other processes know it")
	case w.Batch < 0 || w.AtOnce < 0:
		return invalidArgument(fmt.Sprintf("Warming.Batch is %d and AtOnce %d: set positive numbers, or 0 for the defaults", w.Batch, w.AtOnce))
	}
	return nil
}

// warmBatch is Warm for one batch. Its error ends the warming.
func warmBatch[K comparable, T any](ctx context.Context, c *Cache, ids []K, key func(K) Key, load func(context.Context, []K) (map[K]T, error)) (n warm.Counts, err error) {
	n.Seen = len(ids)
	left := batch[K, T]{load: load}
	for _, id := range ids {
		r, _, err := newRequest[T](ctx, c, key(id), []CallOption{Strong()})
		if err == nil {
			err = c.engine.Check(ctx, r.Key)
		}
		if err != nil {
			n.Failed = n.Seen
			return n, err
		}
		left.ids, left.requests = append(left.ids, id), append(left.requests, r)
	}
	for tries := 0; len(left.ids) > 0; tries++ {
		if err := c.engine.AwaitUp(ctx); err != nil {
			n.Failed += len(left.ids)
			return n, err
		}
		var cold, loaded, again batch[K, T]
		for i, fresh := range c.engine.Fresh(ctx, left.requests) {
			if fresh {
				n.Fresh++
			} else {
				cold.add(left, i)
			}
		}
		var absent []bool // of loaded
		var closed error
		cold.load = load
		c.engine.AnswerMany(ctx, cold.requests, cold.run, func(i int, out engine.Outcome, err error) {
			switch {
			case err != nil:
				n.Failed++
				if err == ErrClosed {
					closed = err
				}
			case out.Status == engine.StatusFallback: // loaded without Redis
				again.add(cold, i)
			case out.Status != engine.StatusMiss:
				n.Fresh++
			case out.FreshUntil > out.LoadedAt:
				loaded.add(cold, i)
				absent = append(absent, out.Value == nil)
			default: // not to be stored, by its loader or its policy
				n.Count(out.Value == nil)
			}
		})
		if closed != nil {
			return n, closed
		}
		c.engine.AwaitStored(ctx, loaded.requests)
		for i, stored := range c.engine.Fresh(ctx, loaded.requests) {
			if stored {
				n.Count(absent[i])
			} else if tries < warmTries { // invalidated during the load, or Redis has not taken it
				again.add(loaded, i)
			} else {
				n.Failed++
			}
		}
		if tries == warmTries {
			n.Failed += len(again.ids)
			break
		}
		left = again
	}
	return n, nil
}

// add adds the id with an index in another batch.
func (b *batch[K, T]) add(from batch[K, T], index int) {
	b.ids, b.requests = append(b.ids, from.ids[index]), append(b.requests, from.requests[index])
}

// warmTries is how often the load of an id whose value is not stored is tried again.
const warmTries = 2
