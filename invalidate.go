package aside

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/guard"
	"github.com/gatewayz/aside/internal/invalidate"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/nearby"
	"github.com/gatewayz/aside/internal/observe"
	"github.com/gatewayz/aside/internal/outside"
	"github.com/gatewayz/aside/internal/recent"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/stats"
)

// An Invalidation describes a confirmed invalidation, for Options.OnInvalidated. One of Keys, Category, Pattern, Tags and All is set.
type Invalidation struct {
	Keys     []string  // as in Key.String
	Category string    // a whole category
	Pattern  string    // as in Pattern.String
	Tags     []string  // as given to InvalidateTags
	All      bool      // everything
	At       time.Time // when it was confirmed
}

// A Receipt is the result of an invalidation at its return, with methods that wait for the rest.
type Receipt struct {
	// Removed is how many values were removed before the call returned: from Redis, or in memory mode from memory. The values that
	// InvalidateCategory, InvalidateTags and InvalidateAll invalidate are removed later: see WaitCleanup.
	Removed int64
	// Confirmed says whether Redis has acknowledged the invalidation for all keys. In memory mode it is always true. If it is false, the
	// invalidation holds in this process, and is retried until Redis confirms it: see Wait.
	Confirmed bool

	ticket *invalidate.Ticket // nil if there was nothing to invalidate
}

// An invalidating is an invalidation under way.
type invalidating struct {
	cache *Cache
	of    stats.Invalidation
	names []string
	actor string
	began time.Time
	ctx   context.Context // of the call, with what the Observer has added
	op    observe.Operation
	as    observe.End
}

// beginInvalidation counts an invalidation that begins now, and tells the Observer. The context that it returns is for the invalidation.
func (c *Cache) beginInvalidation(ctx context.Context, of stats.Invalidation, policy *engine.Policy, names ...string) (context.Context, *invalidating) {
	c.metrics.Invalidations[of].Add(1)
	i := &invalidating{cache: c, of: of, names: names, actor: actorOf(ctx), began: time.Now()}
	if o := c.engine.Observer(); o != nil {
		ctx, i.op = o.Begin(ctx, c.opOfInvalidation(of, policy, names))
		i.as.Err = errUnended // until done
	}
	i.ctx = ctx
	return ctx, i
}

// done notes an invalidation for Recent, and returns its receipt.
func (i *invalidating) done(t *invalidate.Ticket) Receipt {
	now := time.Now()
	event := RecentInvalidation{
		At: now, Kind: i.of.String(), Names: recent.Texts(i.names, mostNames, mostOfName), Count: len(i.names),
		Removed: t.Removed, Confirmed: t.Confirmed, Took: now.Sub(i.began), Actor: i.actor,
	}
	i.cache.recent.invalidations.Add(event)
	i.cache.logInvalidation(i.ctx, event)
	i.as = endOfInvalidation(t)
	return Receipt{Removed: t.Removed, Confirmed: t.Confirmed, ticket: t}
}

// end tells the Observer that the invalidation has ended.
func (i *invalidating) end() { i.op.End(i.as) }

// logInvalidation logs an invalidation, if the program wants to see each of them.
func (c *Cache) logInvalidation(ctx context.Context, e RecentInvalidation) {
	if c.opts.Logger.Enabled(ctx, slog.LevelDebug) {
		c.opts.Logger.LogAttrs(ctx, slog.LevelDebug, "aside: invalidated", slog.String("by", e.Kind), slog.Any("names", e.Names), slog.Int("count", e.Count),
			slog.Int64("removed", e.Removed), slog.Bool("confirmed", e.Confirmed), slog.Duration("took", e.Took), slog.String("actor", e.Actor))
	}
}

type actorKey struct{}

// WithActor returns a context for invalidations by somebody: Cache.Recent has the name with each of them, shortened to 128 bytes. Calls with the context
// are the same otherwise. The admin API sets the Name of its key.
func WithActor(ctx context.Context, name string) context.Context {
	const most = 128
	return context.WithValue(ctx, actorKey{}, recent.Text(name, most))
}

// actorOf returns the name of WithActor. The program's own context may panic.
func actorOf(ctx context.Context) (name string) {
	defer func() { _ = recover() }()
	name, _ = ctx.Value(actorKey{}).(string)
	return name
}

// Wait waits until Redis has confirmed the invalidation. It returns nil then, ctx's error if ctx ends first, and ErrClosed if
// the cache is closed first: an invalidation that is not confirmed by then is lost.
func (r Receipt) Wait(ctx context.Context) error {
	if r.ticket == nil {
		return nil
	}
	return r.ticket.Wait(ctx)
}

// Replicated waits until Redis has confirmed the invalidation, and then until the given number of replicas of each primary have it. A failover
// to such a replica does not bring back the old value. Without Replicated a failover can bring it back for a moment, until the process that has
// invalidated it finds the new primary and sends the invalidation again.
//
// Redis replicates asynchronously. Replicated protects against one failover, and is no proof of durability: see the documentation of WAIT. It
// makes a connection of its own to each primary, so it takes some milliseconds more than a round trip.
//
// It returns nil in memory mode, ctx's error if ctx ends first (as it does if a primary has fewer replicas), and ErrClosed if the cache is
// closed first. It returns an *Error with CodeUnavailable if a connection to Redis was lost, or slots of a cluster have moved, since the
// invalidation was confirmed: it is not known then whether the replicas have it. Invalidate again in that case.
func (r Receipt) Replicated(ctx context.Context, replicas int) error {
	if replicas < 0 {
		return invalidArgument("Replicated: " + strconv.Itoa(replicas) + " replicas: give 0 or more")
	}
	if err := r.Wait(ctx); err != nil || r.ticket == nil {
		return err
	}
	err := r.ticket.Replicated(guard.Context(ctx), replicas)
	if unknown, ok := err.(*invalidate.UnknownError); ok {
		return &Error{Code: CodeUnavailable, Message: "it is not known whether replicas have the invalidation: " + redisstore.Describe(unknown.Err), Err: unknown.Err}
	}
	return err
}

// WaitCleanup waits until the memory of the invalidated values is freed, and returns how many values were removed. Invalidate and InvalidatePattern
// remove values themselves, so after them WaitCleanup waits no longer than Wait. InvalidateCategory, InvalidateTags and InvalidateAll invalidate
// values at once, and a background cleanup removes them. Values that have expired or were replaced before are not counted, nor are values that
// Invalidate could remove only after an outage. Concurrent invalidations of one tag, or of one pattern, can share one count; in memory
// mode a value counts for the first of them.
//
// While 65,536 tags wait for the cleanup, the values of further tags are left to expire, and are not counted.
//
// If ctx ends first, WaitCleanup returns the number so far and ctx's error; if the cache is closed first, ErrClosed.
func (r Receipt) WaitCleanup(ctx context.Context) (removed int64, err error) {
	if r.ticket == nil {
		return r.Removed, nil
	}
	return r.ticket.WaitCleanup(ctx)
}

// Invalidate removes keys from the cache. When it returns, this process no longer serves older values. When the receipt is confirmed, no load
// that was in flight can be stored, in this process or in any other. Callers that were waiting for such a load already still get its value.
//
// It fails for an invalid key, and then invalidates nothing, and for a nil or closed cache. If Redis is unavailable, it does not fail: the
// receipt is not confirmed, and the invalidation is retried until it is. Other processes may serve older values until then. An invalidation
// is carried out even if ctx has ended, since the source has changed. It takes no longer than Options.OpTimeout.
func (c *Cache) Invalidate(ctx context.Context, keys ...Key) (Receipt, error) {
	if err := c.arrive(ctx); err != nil {
		return Receipt{}, err
	}
	defer c.engine.Calls.Leave()
	names := make([]string, len(keys))
	policies := make([]*engine.Policy, len(keys))
	var tags []string
	for i, key := range keys {
		r, _, err := newRequest[any](ctx, c, key, nil)
		if err != nil {
			return Receipt{}, err
		}
		names[i], policies[i], tags = r.Key, r.Policy, append(tags, r.Tags...)
	}
	if len(keys) == 0 {
		return Receipt{Confirmed: true}, nil
	}
	caller, end, err := c.admit(ctx, names...)
	if err != nil {
		return Receipt{}, err
	}
	defer end()
	ctx, i := c.beginInvalidation(ctx, stats.OfKeys, policies[0], names...)
	defer i.end()
	t, errs := c.engine.Invalidator.Remove(ctx, caller, names, tags)
	for i, err := range errs {
		if err != nil {
			policies[i].Counters.RedisErrors.Add(1)
		}
	}
	return i.done(t), nil
}

// InvalidateCategory invalidates all entries of a category, at the same cost for any number of entries. Guarantees, errors and context are as
// for Invalidate. An unknown category is an error too, since it may be misspelt; the error names the known ones. A category is known if this
// process has a policy for it, in Options.Policies or since its first use, if Redis has had a value of it, or if Redis does not answer. An
// unknown category is still invalidated: another process may have just begun to use it.
func (c *Cache) InvalidateCategory(ctx context.Context, category string) (Receipt, error) {
	if err := c.arrive(ctx); err != nil {
		return Receipt{}, err
	}
	defer c.engine.Calls.Leave()
	if category == "" || !keyspace.Plain(category) || category == reservedCategory {
		return Receipt{}, invalidArgument("there is no category " + strconv.Quote(category) + ": give the Category of a Policy, or use InvalidateAll")
	}
	tag := keyspace.CategoryTag(category)
	caller, end, err := c.admit(ctx, tag)
	if err != nil {
		return Receipt{}, err
	}
	defer end()
	if !c.knowsCategory(ctx, category) { // checked before Retire makes its first generation
		err = c.unknownCategory(category)
	}
	ctx, i := c.beginInvalidation(ctx, stats.OfCategory, nil, category)
	defer i.end()
	t := c.engine.Invalidator.Retire(ctx, caller, invalidate.Event{Category: category}, tag)
	return i.done(t), err
}

// InvalidateTags invalidates all entries that carry one of tags, by WithTags or by Load.Tag. Cost, guarantees, errors and context are as for
// InvalidateCategory.
func (c *Cache) InvalidateTags(ctx context.Context, tags ...string) (Receipt, error) {
	if err := c.arrive(ctx); err != nil {
		return Receipt{}, err
	}
	defer c.engine.Calls.Leave()
	names, err := tagNames(tags)
	if err != nil {
		return Receipt{}, err
	}
	if len(names) == 0 {
		return Receipt{Confirmed: true}, nil
	}
	slices.Sort(names)
	names = slices.Compact(names)                         // so that a removed value counts once
	names = append([]string{keyspace.Sequence}, names...) // the sequence changes first: see tags.Snapshot.AddLate
	caller, end, err := c.admit(ctx, names...)
	if err != nil {
		return Receipt{}, err
	}
	defer end()
	ctx, i := c.beginInvalidation(ctx, stats.OfTags, nil, tags...)
	defer i.end()
	t := c.engine.Invalidator.Retire(ctx, caller, invalidate.Event{Tags: slices.Clone(tags)}, names...)
	return i.done(t), nil
}

// InvalidateAll invalidates all entries. Cost, guarantees, errors and context are as for InvalidateCategory.
func (c *Cache) InvalidateAll(ctx context.Context) (Receipt, error) {
	if err := c.arrive(ctx); err != nil {
		return Receipt{}, err
	}
	defer c.engine.Calls.Leave()
	caller, end, err := c.admit(ctx, keyspace.All)
	if err != nil {
		return Receipt{}, err
	}
	defer end()
	ctx, i := c.beginInvalidation(ctx, stats.OfAll, nil)
	defer i.end()
	return i.done(c.engine.Invalidator.Retire(ctx, caller, invalidate.Event{All: true}, keyspace.All)), nil
}

// InvalidatePattern removes every value whose key matches the pattern. Guarantees and errors are as for Invalidate. An invalid Pattern is an
// error too, and so is the zero Pattern: use InvalidateAll to invalidate everything.
//
// Redis has no index of keys, so all of its keys are scanned, twice, in small portions: prefer InvalidateCategory and InvalidateTags for
// frequent invalidations. InvalidatePattern returns when the scans are done, when ctx ends, or when Redis fails. In the last two cases the
// receipt is not confirmed, and the scans go on in the background. Until they are done, this process does not read matching keys in Redis.
func (c *Cache) InvalidatePattern(ctx context.Context, pattern Pattern) (Receipt, error) {
	if err := c.arrive(ctx); err != nil {
		return Receipt{}, err
	}
	defer c.engine.Calls.Leave()
	if err := pattern.Err(); err != nil {
		return Receipt{}, err
	}
	if pattern.all() {
		return Receipt{}, &Error{Code: CodeInvalidPattern, Message: "the zero Pattern: use InvalidateAll to invalidate everything"}
	}
	caller, end, err := c.admit(ctx, keyspace.PatternPrefix+pattern.text)
	if err != nil {
		return Receipt{}, err
	}
	defer end()
	ctx, i := c.beginInvalidation(ctx, stats.OfPattern, nil, pattern.text)
	defer i.end()
	return i.done(c.engine.Invalidator.Match(ctx, caller, pattern.text, pattern.glob, end)), nil
}

// admit returns for which key of the admin API names are to be invalidated, "" for the program itself, and reserves room until end is called.
func (c *Cache) admit(ctx context.Context, names ...string) (caller string, end func(), err error) {
	if caller = outside.Caller(ctx); caller == "" {
		return "", func() {}, nil
	}
	end, ok := c.engine.Invalidator.Reserve(caller, names...)
	if !ok {
		const wait = 2 * time.Second
		return "", nil, &Error{
			Code: CodeOverloaded, RetryAfter: wait,
			Message: "too many invalidations are pending: nothing was invalidated; send the request again later, or fewer names at once",
		}
	}
	return caller, end, nil
}

// knowsCategory reports whether a category may have entries: this process has a policy for it, or Redis has a generation of it or does not
// answer. The first load of a category makes its generation.
func (c *Cache) knowsCategory(ctx context.Context, category string) bool {
	if slices.Contains(c.policies.categories(), category) {
		return true
	}
	return c.engine.MayHave(ctx, keyspace.CategoryTag(category))
}

// unknownCategory is the error for a category that is not known.
func (c *Cache) unknownCategory(category string) error {
	known, what := c.policies.categories(), "this cache has used none yet"
	if len(known) > 0 {
		what = "the categories are " + nearby.Names(category, known)
	}
	return invalidArgument("there is no category " + strconv.Quote(category[:min(len(category), 64)]) + ": " + what +
		"; list the Policy of another one in Options.Policies")
}
