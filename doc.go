// Package aside is a typed, two-level cache-aside library. A call returns the cached value of a key. On a miss it calls a loader, a function that
// reads a slow source, and caches the result. Values are in the memory of the process (L1) and in Redis (L2). Without Redis, values are in memory
// alone.
//
// # Overview
//
// A [Cache] holds values. A [Policy] describes how one kind of value is cached: under which key prefix (the category), and for how long (the
// TTL). A [Loader] binds the two to a function that loads a value by its id. In this example db is your database:
//
//	var Products = aside.Policy{Name: "products", Category: "products", TTL: 10 * time.Minute}
//
//	c, err := aside.New(aside.Options{}) // in memory; OptionsFromEnv puts it on Redis
//	defer c.Close()
//
//	products := aside.NewLoader(c, Products, db.Product) // made once
//	p, err := products.Get(ctx, id)
//	ps, err := products.GetMany(ctx, ids)
//	receipt, err := products.Invalidate(ctx, id) // after the product has changed
//
// [GetOrLoad] is the same for any [Key], which Policy.Key makes, and with the function as an argument of the call:
//
//	p, err = aside.GetOrLoad(ctx, c, Products.Key("eu", id), func(ctx context.Context) (*Product, error) { return db.ProductIn(ctx, "eu", id) })
//
// [NewLoaderBy] takes ids of any type. [GetOrLoadMany] and [NewBatchLoader] load many ids with one call. [Get] reads without loading, [Set]
// stores a value, and [Lookup] is GetOrLoad with a [Result] that explains the call. A [CallOption] changes one call: [WithTTL], [WithStale],
// [WithTags], [Refresh], [Strong] or [MaxStale].
//
// The directory docs of the repository has a page for each subject. docs/README.md is the index, and docs/concepts.md explains all terms.
//
// # Where values are
//
// With the zero [Options] (memory mode), values are in the memory of this process, as Go values: a hit copies and decodes nothing. Memory is bounded
// by Options.MaxEntries and MaxBytes. Beyond these, it evicts the entries that are used least.
//
// With Options.Redis (Redis mode), values are in Redis, shared by all processes that use the same server (the fleet). [OptionsFromEnv] fills it from
// the environment. Each process also keeps values that it has read or loaded in its memory, decoded once (L1). Redis notifies the process of every
// change of a key that the process has read: client tracking, by a message that is called a push. When a connection breaks, or Redis is flushed, the
// L1 entries that were read before are no longer fresh. New detects a Redis Cluster, and connects to each of its primaries. It also detects a server
// without tracking, which [Health] shows: L1 then keeps an entry for at most a second. Strings and bytes are stored unchanged, so a handler that
// serves JSON can cache the encoded bytes. Other types are stored as JSON, or by the policy's [Codec].
//
// Values are shared. All callers that hit a value in memory, or wait for the same load, get the same pointers, slices and
// maps: do not change a value that you got from a cache or gave to it. With Policy.CloneOnRead each caller gets a copy.
//
// # The load path
//
// A call goes through these steps until it has a value:
//
//  1. Memory: a fresh value is returned. In Redis mode an entry is fresh only while Redis would push its changes.
//  2. Flight: the call joins the load of the key that is in flight in this process, or starts a load in a goroutine of its own. It does not join
//     a load that began before a change of which this process knows.
//  3. Redis: the value in Redis is read.
//  4. Lease: the right to load the key, which Redis grants to one process of the fleet. The other processes wait for a push.
//  5. Load: the loader is called, on a context that carries the first caller's values but not its cancellation. The context ends with
//     the policy's LoadTimeout, or when no caller has waited for the load for its LoadGrace.
//  6. Share: every waiting caller gets the value or the error.
//  7. Fill: the value is stored, unless it was invalidated since the load began. In Redis mode callers do not wait for the fill.
//
// In memory mode there are no steps 3 and 4, and the value is stored before it is shared.
//
// # Keys
//
// A key is its policy's category and the parts given to Policy.Key, joined by colons, such as sessions:ABC123:list:50:0. A
// part is a string or an integer. Bytes with a meaning in keys or in Redis' patterns are percent-escaped, so that no text
// can pass for several parts. Policies of one category share their keys. If two policies make the same key, each gets its own values
// only, and the values replace each other. Keys are visible in Redis: replace user ids by Cache.HashID, a keyed hash.
//
// # Freshness
//
// A TTL runs from the start of the load, not from its end: a served value is never older than its TTL, however long it
// took to load. By default the next caller after the TTL waits for a load. If a loader returns [ErrNotFound], plain or wrapped, or an error that
// Options.NotFound names, such as sql.ErrNoRows, this answer is cached for the policy's NegativeTTL (30 s by default). Policy.Jitter spreads the expiry of values that were stored together. [TTL] is a table of ready policies
// for an AI gateway.
//
// A policy can serve old values for a bounded time. With Stale, calls get the old value for a while after its TTL, and one call starts a load in the
// background. With StaleIfError, callers get the old value if the load fails, or takes longer than SoftTimeout. With RefreshAhead, a hit starts the
// load before the TTL ends. No value is served for longer than its TTL and the longer one of Stale and StaleIfError, and an invalidation ends it at
// once. A load in the background runs after the call that started it has returned. So the loader must not hold what ends with a request, such as a
// transaction. docs/freshness.md has the details.
//
// The options [WithTTL] and [WithStale] set these times for the value that one call stores. [MaxStale] asks for a newer value. A loader can set the
// times of the value that it loads, or keep the value from being stored, by the methods of [CurrentLoad].
//
// # Invalidation
//
// Cache.Invalidate removes keys. Cache.InvalidateTags, InvalidateCategory and InvalidateAll invalidate every entry with a tag
// ([WithTags], Load.Tag), every entry of a category, or everything, at the same cost for any number of entries: each tag, each category and the
// whole cache has a version counter, and an entry with an older version is a miss. Cache.InvalidatePattern removes the keys that match a
// [Pattern], made by Policy.Match or [ParsePattern]. Cache.InvalidateChanges takes keys, tags and categories at once. Cache.Keys lists keys. Invalidate
// after the source has changed: after the commit. Cache.Shutdown waits for the invalidations that Redis has not confirmed.
//
// Each invalidation returns a [Receipt]. Receipt.Confirmed reports whether Redis has acknowledged the invalidation, and Receipt.Wait waits for that.
// In memory mode it is always true. Until the confirmation, the invalidation is retried, and this process does not read the invalidated keys in
// Redis. A value whose load began before a confirmed invalidation is not stored after it: not in this process, not in another one, and not in Redis.
// Callers that were already waiting for that load still get its value. Later callers do not: in this process from the return of the call, in others
// from the arrival of Redis' push. A call with [Strong] reads Redis instead of waiting for a push. [Set] and [Refresh] revoke loads in flight in the
// same way. The memory of entries that were invalidated by a version counter is freed in the background; Receipt.WaitCleanup waits for that.
//
// # Failures
//
// The error of a loader is returned unchanged to all callers that wait for the load. The next caller loads again. From the second consecutive
// failure on, the key is in backoff for Options.Backoff (100 ms), doubling with each failure up to MaxBackoff (5 s): calls do not load, and return an
// [Error] with [CodeBackoff] that wraps the last error. A caller whose own context ends gets that context's error. Every other error is an [Error]
// with a [Code], or one of [ErrMiss], [ErrNotFound] and [ErrClosed]. [ErrLoadTimeout], [ErrBackoff], [ErrOverloaded] and [ErrUnavailable] match the Errors that
// callers decide on, and asidehttp.Status has the HTTP status of each. A batch reports its failures as one [BatchError]. errors.Is and errors.As work
// on all of them. Calls on a nil cache return an Error and never panic.
//
// Calls do not fail because Redis does. While Redis is unavailable or returns errors, L1 entries are served for Options.DegradedTTL (30 s), and
// other calls use their loaders, with one load of a key at a time in each process. Loaded values are kept in memory for the same time. A value
// in Redis that cannot be decoded is a miss and is replaced, unless a newer build of this package wrote it.
//
// # Observability
//
// [Lookup] reports for one call whether it was a hit, where the value came from, how old it is, and the reason of a miss. Cache.Metrics counts
// hits, misses, loads and errors under the label of each policy, by default its category. Cache.Health reports whether Redis is in use, since when,
// and why not. Options.ConsistencyCheck compares a small share of the hits with a fresh load, and counts those that stay wrong for longer than an
// invalidation may take. Package asidehttp serves metrics, health, keys, invalidation and cached
// bodies over HTTP, and notifies web front ends of invalidations.
//
// # Limits
//
// docs/limits.md lists what the package does not do, and where its guarantees end.
package aside
