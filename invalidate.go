package aside

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/guard"
	"github.com/gatewayz/aside/internal/invalidate"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/nearby"
	"github.com/gatewayz/aside/internal/outside"

	"github.com/gatewayz/aside/internal/redisstore"
)

// An Invalidation tells Options.OnInvalidated what was invalidated: keys, or one of the others.
type Invalidation struct {
	Keys     []string  // as Key.String gives them
	Category string    // that was invalidated as a whole
	Pattern  string    // as Pattern.String gives it
	Tags     []string  // as they were given to InvalidateTags
	All      bool      // everything
	At       time.Time // when it was confirmed
}

// A Receipt tells what an invalidation did.
type Receipt struct {
	// Removed is how many values were removed before the call returned: those in memory, or those in Redis where a cache has one.
	// What InvalidateCategory, InvalidateTags and InvalidateAll put out of date is removed after that: see Swept.
	Removed int64
	// Confirmed is whether Redis has carried it out for all keys. It is always true in memory mode. Where it is not, the
	// invalidation holds in this process all the same, and is sent again until Redis confirms it: see Wait.
	Confirmed bool

	ticket *invalidate.Ticket // nil where nothing was to be invalidated
}

func receiptOf(t *invalidate.Ticket) Receipt {
	return Receipt{Removed: t.Removed, Confirmed: t.Confirmed, ticket: t}
}

// Wait waits until Redis has confirmed the invalidation. It returns nil then, ctx's error if that ends first, and ErrClosed if
// the cache was closed before: what was not confirmed by then is lost.
func (r Receipt) Wait(ctx context.Context) error {
	if r.ticket == nil {
		return nil
	}
	return r.ticket.Wait(ctx)
}

// Replicated waits until Redis has confirmed the invalidation, and then until as many replicas of each primary have it: one that
// takes the place of its primary does not bring back what was invalidated. Without it that is possible for a moment, until the
// process that has invalidated it finds the other primary and sends it again.
//
// Redis replicates in the background, and a primary that waits does not stop: this is about one failover, not a proof of
// durability (see the documentation of WAIT). It makes a connection of its own to each primary, for this call alone, so it takes
// some milliseconds more than a round trip. It returns nil in memory mode, ctx's error if that ends first (as it must where a
// primary has fewer replicas), ErrClosed, and an *Error with CodeUnavailable if a connection to Redis was lost, or slots of a
// cluster have changed hands, since the invalidation was confirmed: whether the replicas have it is not known then, and it can be made again.
func (r Receipt) Replicated(ctx context.Context, replicas int) error {
	if replicas < 0 {
		return invalidArgument("Replicated was given " + strconv.Itoa(replicas) + " replicas: give a number that is not negative")
	}
	if err := r.Wait(ctx); err != nil || r.ticket == nil {
		return err
	}
	err := r.ticket.Replicated(guard.Context(ctx), replicas)
	if unknown, ok := err.(*invalidate.UnknownError); ok {
		return &Error{Code: CodeUnavailable, Message: "whether replicas have the invalidation is not known: " + redisstore.Describe(unknown.Err), Err: unknown.Err}
	}
	return err
}

// Swept waits until the memory is given back of all that was invalidated, and returns how many values were removed for it. What
// Invalidate and InvalidatePattern are about is removed by themselves, and Swept waits no longer than Wait. After
// InvalidateCategory, InvalidateTags and InvalidateAll, whose values are out of date at once, they are removed in the background;
// those that have expired or were replaced before are not counted. Several invalidations of one tag at the same time can share one
// count, and so can those of one pattern; in memory mode a value counts for the first of them.
//
// Where 65,536 tags wait to be swept, what further ones have put out of date is left to expire, and not counted.
//
// When ctx ends first, Swept returns how many there were so far and ctx's error, and when the cache is closed first, ErrClosed.
// What Invalidate could remove only after an outage is not counted.
func (r Receipt) Swept(ctx context.Context) (removed int64, err error) {
	if r.ticket == nil {
		return r.Removed, nil
	}
	return r.ticket.Swept(ctx)
}

// Invalidate removes keys from the cache. Once it has returned a confirmed receipt, this process reads no older value, and the
// loads that were under way when it was called are not stored, here or in any other process; those who were already waiting
// for such a load still get its value.
//
// The error is for an invalid key, in which case nothing is invalidated, and for a nil or closed cache. Redis being away is
// not an error: the receipt is then not confirmed. This process reads no older value all the same; other processes may, until
// Redis is back and the invalidation, which is sent again until it is confirmed, has got there. An invalidation is carried out even if ctx has ended, since what it is about has changed all the same; it is bounded by Options.OpTimeout.
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
	t, errs := c.engine.Invalidator.Remove(ctx, caller, names, tags)
	for i, err := range errs {
		if err != nil {
			policies[i].Counters.RedisErrors.Add(1)
		}
	}
	return receiptOf(t), nil
}

// InvalidateCategory makes everything in a category out of date, at once and at the same cost however much there is.
// Promises and context are those of Invalidate, and so is the error. A category that nobody knows is an error too, which names those that
// are known: it may be misspelt. One is known where this process has a policy for it, in Options.Policies or since its first use, where
// Redis has had a value of it, or where Redis does not say. It is invalidated all the same: another process may have just begun to use it.
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
	if !c.knowsCategory(ctx, category) { // before it is given its first generation
		err = c.unknownCategory(category)
	}
	return receiptOf(c.engine.Invalidator.Retire(ctx, caller, invalidate.Event{Category: category}, tag)), err
}

// InvalidateTags makes everything out of date that carries one of tags, by WithTags or by Load.Tag. Cost, promises, error
// and context are those of InvalidateCategory.
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
	names = slices.Compact(names)                         // what is removed for one of them counts once
	names = append([]string{keyspace.Sequence}, names...) // which comes first: see tags.Snapshot.AddLate
	caller, end, err := c.admit(ctx, names...)
	if err != nil {
		return Receipt{}, err
	}
	defer end()
	return receiptOf(c.engine.Invalidator.Retire(ctx, caller, invalidate.Event{Tags: slices.Clone(tags)}, names...)), nil
}

// InvalidateAll makes everything out of date. Cost, promises, error and context are those of InvalidateCategory.
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
	return receiptOf(c.engine.Invalidator.Retire(ctx, caller, invalidate.Event{All: true}, keyspace.All)), nil
}

// InvalidatePattern removes every value whose key matches the pattern. Promises and errors are those of Invalidate; an invalid
// Pattern is an error too, and so is the zero one: InvalidateAll invalidates everything.
//
// Redis has no index of keys, so it goes through all of them, twice, in small portions: prefer InvalidateCategory and
// InvalidateTags for what is invalidated often. It returns when that is done, when ctx ends, or when Redis fails; in the last two
// cases the receipt is not confirmed, and the work goes on in the background. Until it is done, this process reads nothing in
// Redis that matches.
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
	return receiptOf(c.engine.Invalidator.Match(ctx, caller, pattern.text, pattern.glob, end)), nil
}

// admit returns on whose behalf names are to be invalidated, and sets room aside until end is called.
func (c *Cache) admit(ctx context.Context, names ...string) (caller string, end func(), err error) {
	if caller = outside.Caller(ctx); caller == "" {
		return "", func() {}, nil
	}
	end, ok := c.engine.Invalidator.Reserve(caller, names...)
	if !ok {
		const wait = 2 * time.Second
		return "", nil, &Error{
			Code: CodeOverloaded, RetryAfter: wait,
			Message: "there is no room for this, while earlier invalidations are being carried out: nothing was invalidated; send it again a little later, or less of it at once",
		}
	}
	return caller, end, nil
}

// knowsCategory reports whether there is something in a category, or may be: this process has a policy for it, or Redis has a
// generation of it, which it has from the first load on that could be stored. Where Redis does not say, there may be something.
func (c *Cache) knowsCategory(ctx context.Context, category string) bool {
	if slices.Contains(c.policies.categories(), category) {
		return true
	}
	return c.engine.MayHave(ctx, keyspace.CategoryTag(category))
}

// unknownCategory is the error of a category that is nobody's.
func (c *Cache) unknownCategory(category string) error {
	known, what := c.policies.categories(), "this cache has used none yet"
	if len(known) > 0 {
		what = "the categories are " + nearby.Names(category, known)
	}
	return invalidArgument("there is no category " + strconv.Quote(category[:min(len(category), 64)]) + ": " + what +
		"; list the Policy of another one in Options.Policies")
}
