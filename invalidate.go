package aside

import (
	"context"
	"slices"
	"strconv"

	"github.com/gatewayz/aside/internal/guard"
	"github.com/gatewayz/aside/internal/journal"
	"github.com/gatewayz/aside/internal/keyspace"

	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/redisstore"
)

// A Receipt tells what an invalidation did.
type Receipt struct {
	// Removed is how many values were removed before the call returned: those in memory, or those in Redis where a cache has one.
	// What InvalidateCategory, InvalidateTags and InvalidateAll put out of date is removed after that: see Swept.
	Removed int64
	// Confirmed is whether Redis has carried it out for all keys. It is always true in memory mode. Where it is not, the
	// invalidation holds in this process all the same, and is sent again until Redis confirms it: see Wait.
	Confirmed bool

	pending []*journal.Pending
	tallies []*journal.Count // of what is removed in the background; nil where that is nothing
	closes  <-chan struct{}
	copied  func(ctx context.Context, replicas int) error // see copiedSince; nil in memory mode
}

func (c *Cache) receipt(removed int64, list []*journal.Pending) Receipt {
	r := Receipt{Removed: removed, Confirmed: list == nil, pending: list}
	if c.store != nil {
		r.closes, r.copied = c.closes, c.copiedSince(r.Confirmed)
	}
	for _, w := range list {
		if w.Count() != nil {
			r.tallies = append(r.tallies, w.Count())
		}
	}
	return r
}

// copiedSince returns what waits for replicas. A server that was lost since it has confirmed the invalidation may be another one
// now, and its replicas say nothing of what that one knew. It is a function, since a receipt may be printed, and a cache not.
func (c *Cache) copiedSince(confirmed bool) func(ctx context.Context, replicas int) error {
	before := c.journal.Epoch()
	return func(ctx context.Context, replicas int) error {
		before := before
		if !confirmed {
			before = c.journal.Epoch() // it is by now, and has been sent again after every loss until then
		}
		err := c.store.Replicated(ctx, replicas)
		if err == nil && c.journal.Epoch() != before {
			err = redisstore.ErrLost
		}
		return err
	}
}

// Wait waits until Redis has confirmed the invalidation. It returns nil then, ctx's error if that ends first, and ErrClosed if
// the cache was closed before: what was not confirmed by then is lost.
func (r Receipt) Wait(ctx context.Context) error {
	for _, w := range r.pending {
		if err := r.await(ctx, w.Confirmed()); err != nil {
			return err
		}
	}
	return nil
}

func (r Receipt) await(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	default:
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return flight.EndOf(ctx)
	case <-r.closes:
		return ErrClosed
	}
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
	if err := r.Wait(ctx); err != nil || r.copied == nil || replicas == 0 {
		return err
	}
	ctx, cancel := context.WithCancelCause(guard.Context(ctx))
	defer cancel(nil)
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-r.closes:
			cancel(ErrClosed)
		case <-over:
		}
	}()
	err := r.copied(ctx, replicas)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return &Error{Code: CodeUnavailable, Message: "whether replicas have the invalidation is not known: " + redisstore.Describe(err), Err: err}
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
	err = r.Wait(ctx)
	for _, t := range r.tallies {
		if err == nil {
			err = r.await(ctx, t.Done)
		}
		removed += t.Removed.Load()
	}
	if r.tallies == nil {
		removed = r.Removed
	}
	return removed, err
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
	defer c.background.Leave()
	slots := make([]*slot, len(keys))
	for i, key := range keys {
		s, _, err := newSlot[any](ctx, c, key, nil)
		if err != nil {
			return Receipt{}, err
		}
		slots[i] = s
	}
	if len(keys) == 0 {
		return Receipt{Confirmed: true}, nil
	}
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = key.text
	}
	caller, end, err := c.admit(ctx, names...)
	if err != nil {
		return Receipt{}, err
	}
	defer end()
	removed, pending := c.remove(ctx, caller, slots)
	if pending == nil {
		c.tell(caller, Invalidation{Keys: names})
	}
	return c.receipt(removed, pending), nil
}

// InvalidateCategory makes everything in a category out of date, at once and at the same cost however much there is.
// Promises and context are those of Invalidate, and so is the error. A category that nobody knows is an error too, which names those that
// are known: it may be misspelt. One is known where this process has a policy for it, in Options.Policies or since its first use, where
// Redis has had a value of it, or where Redis does not say. It is invalidated all the same: another process may have just begun to use it.
func (c *Cache) InvalidateCategory(ctx context.Context, category string) (Receipt, error) {
	if err := c.arrive(ctx); err != nil {
		return Receipt{}, err
	}
	defer c.background.Leave()
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
	return c.retire(ctx, caller, Invalidation{Category: category}, tag), err
}

// InvalidateTags makes everything out of date that carries one of tags, by WithTags or by Load.Tag. Cost, promises, error
// and context are those of InvalidateCategory.
func (c *Cache) InvalidateTags(ctx context.Context, tags ...string) (Receipt, error) {
	if err := c.arrive(ctx); err != nil {
		return Receipt{}, err
	}
	defer c.background.Leave()
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
	return c.retire(ctx, caller, Invalidation{Tags: slices.Clone(tags)}, names...), nil
}

// InvalidateAll makes everything out of date. Cost, promises, error and context are those of InvalidateCategory.
func (c *Cache) InvalidateAll(ctx context.Context) (Receipt, error) {
	if err := c.arrive(ctx); err != nil {
		return Receipt{}, err
	}
	defer c.background.Leave()
	caller, end, err := c.admit(ctx, keyspace.All)
	if err != nil {
		return Receipt{}, err
	}
	defer end()
	return c.retire(ctx, caller, Invalidation{All: true}, keyspace.All), nil
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
	defer c.background.Leave()
	if err := pattern.Err(); err != nil {
		return Receipt{}, err
	}
	if pattern.all() {
		return Receipt{}, &Error{Code: CodeInvalidPattern, Message: "the zero Pattern: use InvalidateAll to invalidate everything"}
	}
	name := keyspace.PatternPrefix + pattern.text
	caller, admitted, err := c.admit(ctx, name)
	if err != nil {
		return Receipt{}, err
	}
	defer admitted()
	if c.store == nil {
		removed := c.deleteMatching(pattern)
		c.tell(caller, Invalidation{Pattern: pattern.text})
		return Receipt{Removed: removed, Confirmed: true}, nil
	}
	c.awaitServers(ctx)
	w := c.journal.Enter(caller, name)[0]
	admitted() // it has its room as an entry from now on, and the search may take long
	// After that: what was read before is dropped, a read under way is not kept, and one that begins now does not ask Redis.
	c.deleteMatching(pattern)
	confirmed := false
	if w.Failed() == nil { // there are too many, and all is to be invalidated
		return c.receipt(0, []*journal.Pending{w}), nil
	}
	select {
	case <-w.Confirmed():
		confirmed = true
	case <-w.Failed():
		c.metrics.RedisErrors.Add(1)
	case <-ctx.Done():
	case <-c.closes:
	}
	r := c.receipt(w.Count().Removed.Load(), []*journal.Pending{w})
	r.Confirmed = confirmed
	return r, nil
}

// deleteMatching removes what matches from memory, and has no load under way stored. It reports how many values there were.
func (c *Cache) deleteMatching(pattern Pattern) (removed int64) {
	removed = c.near.DeleteMatching(pattern.matches)
	c.failures.ForgetMatching(pattern.matches)
	return removed
}

// retire gives tags their next generations. Before and after: what is read in between may still carry the last ones.
func (c *Cache) retire(ctx context.Context, caller string, what Invalidation, tags ...string) Receipt {
	if c.store == nil {
		t := journal.NewCount()
		c.tags.RetireAll(tags, &t.Removed, t.Done)
		c.tell(caller, what)
		return Receipt{Confirmed: true, tallies: []*journal.Count{t}, closes: c.closes}
	}
	c.tags.Retire(tags)
	defer c.tags.Retire(tags)
	c.awaitServers(ctx, tags...)
	before := c.journal.Now(caller)
	budget, cancel := c.store.Budget(context.WithoutCancel(ctx), 0, len(tags))
	defer cancel()
	confirmed := true
	generations := c.tags.Bump(budget, tags...)
	for _, g := range generations {
		if g.Err != nil {
			confirmed = false
			c.metrics.RedisErrors.Add(1)
		}
	}
	if !confirmed {
		return c.receipt(0, c.journal.Enter(caller, tags...))
	}
	var own []*journal.Count
	var doubted []*journal.Pending
	for i, tag := range tags {
		tallies, again := c.journal.Confirm(before, tag)
		if doubted = append(doubted, again...); again == nil && tag != keyspace.Sequence {
			own = append(own, c.sweeper.Begin(caller, tag, generations[i], tallies...)...)
		}
	}
	receipt := c.receipt(0, doubted)
	receipt.tallies = append(receipt.tallies, own...)
	c.tell(caller, what)
	return receipt
}

// pushed is told by Redis that somebody has changed a key, or the generation of a tag.
func (c *Cache) pushed(key string) {
	c.metrics.Pushes.Add(1)
	c.tags.Pushed(key)
	c.near.Push(key)
}

// gap is told that Redis may not have told of something.
func (c *Cache) gap() {
	c.metrics.Gaps.Add(1)
	c.tags.Gap()
	c.journal.ConnectionLost()
}

// remove takes keys out of wherever values are kept, and out of reach of those who come later. It returns what is closed when
// Redis has confirmed it, nil where it has.
func (c *Cache) remove(ctx context.Context, caller string, slots []*slot) (removed int64, unconfirmed []*journal.Pending) {
	keys := make([]string, len(slots))
	for i, s := range slots {
		keys[i] = s.key
		c.failures.Forget(s.key)
		if c.near.Delete(s.key) {
			removed++
		}
	}
	if c.store == nil {
		return removed, nil
	}
	c.awaitFirst(ctx, slots...)
	before := c.journal.Now(caller)
	budget, cancel := c.store.Budget(context.WithoutCancel(ctx), 0, len(keys))
	defer cancel()
	removed, errs := c.store.Remove(budget, keys...)
	if errs == nil {
		_, unconfirmed = c.journal.Confirm(before, keys...)
	} else {
		unconfirmed = c.journal.Enter(caller, keys...)
	}
	for i, s := range slots {
		// Again: a read may have found the old value meanwhile. Redis tells of the change, but perhaps only after this
		// call has returned.
		c.near.Delete(s.key)
		if errs != nil && errs[i] != nil {
			s.plan.counts.RedisErrors.Add(1)
		}
	}
	return removed, unconfirmed
}
