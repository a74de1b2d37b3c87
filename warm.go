package aside

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/warm"
)

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

	// Options are options of the values that Warm stores: WithTags, WithTTL and WithStale. For tags that the id tells, see Loader.Tagged. Default: none.
	Options []CallOption

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
	return warmUp(ctx, c, ids, key, load, nil, w)
}

// warmUp is Warm. also returns a further option for each id; nil: none.
func warmUp[K comparable, T any](ctx context.Context, c *Cache, ids iter.Seq[K], key func(K) Key, load func(context.Context, []K) (map[K]T, error), also func(K) CallOption, w Warming) (Warmed, error) {
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
			n, err := warmBatch(ctx, c, ids, key, load, also, w.Options)
			if err != nil {
				end(err)
			}
			return n
		}, progress)
		if err == nil && c.closed.Load() {
			err = ErrClosed // the context may end a moment later
		}
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
	o, err := gather(w.Options)
	switch {
	case err != nil:
		return err
	case o.refresh || o.strong || o.limits != nil:
		return invalidArgument("Warming.Options takes none of Refresh, Strong and MaxStale: it is about what Warm stores")
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
func warmBatch[K comparable, T any](ctx context.Context, c *Cache, ids []K, key func(K) Key, load func(context.Context, []K) (map[K]T, error), also func(K) CallOption, opts []CallOption) (n warm.Counts, err error) {
	n.Seen = len(ids)
	left := batch[K, T]{load: load}
	for _, id := range ids {
		r, _, err := newRequest[T](ctx, c, key(id), with(append(slices.Clip(opts), Strong()), also, id))
		if err == nil {
			err = c.engine.Check(ctx, r.Key)
		}
		if err == nil && r.Bypass {
			err = bypassError("Warm", r.Policy.Category)
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
		fresh, err := c.engine.Fresh(ctx, left.requests)
		for i, fresh := range fresh {
			if fresh {
				n.Fresh++
			} else {
				cold.add(left, i)
			}
		}
		if err != nil {
			n.Failed += len(cold.ids)
			return n, err
		}
		var absent []bool // of loaded
		var closed error
		cold.load = load
		c.engine.AnswerMany(ctx, cold.requests, 0, cold.run, func(i int, out engine.Outcome, _ bool, err error) {
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
			case out.FreshUntil > out.LoadedAt || out.Overtaken:
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
		stored, _ := c.engine.Fresh(ctx, loaded.requests) // AwaitUp has the error too
		for i, stored := range stored {
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
