package aside

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/invalidate"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/nearby"
	"github.com/gatewayz/aside/internal/observe"
	"github.com/gatewayz/aside/internal/outside"
	"github.com/gatewayz/aside/internal/recent"
	"github.com/gatewayz/aside/internal/stats"
)

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
	i.note(t, t.Removed)
	return Receipt{Removed: t.Removed, Confirmed: t.Confirmed, ticket: t}
}

func (i *invalidating) note(t *invalidate.Ticket, removed int64) {
	now := time.Now()
	event := RecentInvalidation{
		At: now, Kind: i.of.String(), Names: recent.Texts(i.names, mostNames, mostOfName), Count: len(i.names),
		Removed: removed, Confirmed: t.Confirmed, Took: now.Sub(i.began), Actor: i.actor,
	}
	i.cache.recent.invalidations.Add(event)
	i.cache.logInvalidation(i.ctx, event)
	i.as = endOfInvalidation(t)
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

// Changes are what one write to the source has changed: see InvalidateChanges.
type Changes struct {
	Keys       []Key    // as for Invalidate
	Tags       []string // as for InvalidateTags
	Categories []string // as for InvalidateCategory: give the Category of a Policy
}

// InvalidateChanges invalidates keys, tags and categories together: with one Receipt, in one round trip to a single Redis server, and in two to a
// cluster. Guarantees, errors and context are as for Invalidate, InvalidateTags and InvalidateCategory. For an invalid key or tag, nothing is
// invalidated; for an unknown category, everything is, and the error names the category. The Removed of the Receipt counts the values of the
// keys, and WaitCleanup all. OnInvalidated is called for the keys, for the tags, and for each category.
func (c *Cache) InvalidateChanges(ctx context.Context, ch Changes) (Receipt, error) {
	if err := c.arrive(ctx); err != nil {
		return Receipt{}, err
	}
	defer c.engine.Calls.Leave()
	change := invalidate.Change{}
	var policies []*engine.Policy
	for _, key := range ch.Keys {
		r, _, err := newRequest[any](ctx, c, key, nil)
		if err != nil {
			return Receipt{}, err
		}
		policies = append(policies, r.Policy)
		change.Keys, change.KeyTags = append(change.Keys, r.Key), append(change.KeyTags, r.Tags...)
	}
	tags, err := tagNames(ch.Tags)
	if err != nil {
		return Receipt{}, err
	}
	if len(tags) > 0 {
		slices.Sort(tags)
		change.Tags = append([]string{keyspace.Sequence}, slices.Compact(tags)...) // as in InvalidateTags
		change.OfTags = append(change.OfTags, invalidate.Event{Tags: slices.Clone(ch.Tags)})
	}
	var unknown error
	for _, category := range ch.Categories {
		if err := checkCategory(category); err != nil {
			return Receipt{}, err
		}
		if tag := keyspace.CategoryTag(category); !slices.Contains(change.Tags, tag) {
			change.Tags = append(change.Tags, tag)
			change.OfTags = append(change.OfTags, invalidate.Event{Category: category})
		}
	}
	names := slices.Concat(change.Keys, change.Tags)
	if len(names) == 0 {
		return Receipt{Confirmed: true}, nil
	}
	caller, end, err := c.admit(ctx, names...)
	if err != nil {
		return Receipt{}, err
	}
	defer end()
	for _, e := range change.OfTags { // checked before Change makes their first generations
		if e.Category != "" && !c.knowsCategory(ctx, e.Category) {
			unknown = errors.Join(unknown, c.unknownCategory(e.Category))
		}
	}
	var under []*invalidating
	begin := func(of stats.Invalidation, p *engine.Policy, names ...string) {
		var i *invalidating
		ctx, i = c.beginInvalidation(ctx, of, p, names...)
		under = append(under, i)
	}
	if len(change.Keys) > 0 {
		begin(stats.OfKeys, policies[0], change.Keys...)
	}
	for _, e := range change.OfTags {
		if e.Category != "" {
			begin(stats.OfCategory, nil, e.Category)
		} else {
			begin(stats.OfTags, nil, e.Tags...)
		}
	}
	defer func() {
		for _, i := range slices.Backward(under) {
			i.end()
		}
	}()
	t, errs := c.engine.Invalidator.Change(ctx, caller, change)
	for i, err := range errs {
		if err != nil {
			policies[i].Counters.RedisErrors.Add(1)
		}
	}
	removed := t.Removed // the values of the keys, which are the first
	for _, i := range under {
		i.note(t, removed)
		removed = 0
	}
	return Receipt{Removed: t.Removed, Confirmed: t.Confirmed, ticket: t}, unknown
}

// InvalidatePolicy invalidates all entries of a policy's category, other policies' entries in it included. Other than with the category's name, a typing
// error does not compile. Cost, guarantees, errors and context are as for InvalidateCategory.
func (c *Cache) InvalidatePolicy(ctx context.Context, p Policy) (Receipt, error) {
	if err := c.usable(); err != nil {
		return Receipt{}, err
	}
	if _, err := c.policies.resolve(&p); err != nil {
		return Receipt{}, err
	}
	return c.InvalidateCategory(ctx, p.Category)
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
	if err := checkCategory(category); err != nil {
		return Receipt{}, err
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

// checkCategory returns an error for what cannot be a category.
func checkCategory(category string) error {
	if category == "" || !keyspace.Plain(category) || category == reservedCategory {
		return invalidArgument("there is no category " + strconv.Quote(category) + ": give the Category of a Policy, or use InvalidateAll")
	}
	return nil
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
