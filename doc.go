// Package aside is a typed, two-level cache-aside library. It stands between a backend and its slow sources, keeps values in the
// memory of the process (L1) and in Redis (L2), and calls a loader only for what is not cached. It also works in memory alone.
//
// # Overview
//
// A [Cache] holds values. A [Policy] says how one kind of value is cached: under which first part of the key, and for how
// long. Policy.Key makes a [Key]. [GetOrLoad] returns the value of a key, from the cache or from the loader that it is given:
//
//	var Products = aside.Policy{Name: "products", Category: "products", TTL: 10 * time.Minute}
//
//	c, err := aside.New(aside.Options{}) // in memory; OptionsFromEnv puts it on Redis
//	defer c.Close()
//
//	p, err := aside.GetOrLoad(ctx, c, Products.Key(id), func(ctx context.Context) (*Product, error) { return db.Product(ctx, id) })
//
//	products := aside.NewLoader(c, Products, db.Product) // bound once, for calls without a closure and a key
//	p, err := products.Get(ctx, id)
//	ps, err := products.GetMany(ctx, ids)
//
// [GetOrLoadMany] and [NewBatchLoader] load many ids with one call. [Get] only looks, [Set] only stores, and [Lookup] is
// GetOrLoad with a [Result] that explains the call.
//
// The directory docs of the repository has a page for each subject; docs/README.md is the index.
//
// # Where values are
//
// With the zero [Options] values are in the memory of this process, as they are: a hit copies and decodes nothing. Memory is
// bounded in entries and in bytes, and keeps the entries that are used most.
//
// With Options.Redis, which [OptionsFromEnv] fills from the environment, values are in Redis, for all processes that name
// the same server. Each process also keeps in its memory what it has read or loaded, decoded once. Redis pushes every change of a key that
// was read (client tracking). An entry that was read on a connection that has broken, or before a flush, is not served from memory any more. A
// Redis Cluster is found by itself, and each of its primaries is connected to. A server without tracking is found out at connect, and shown in
// [Health]: memory then keeps what was read for a second at most. A handler that serves JSON should cache the encoded bytes, as []byte, which
// are stored and returned as they are. Other types are stored as JSON, or by the policy's [Codec].
//
// Values are shared. All callers that hit a value in memory, or wait for the same load, get the same pointers, slices and
// maps: do not change what you got from a cache or gave to it. With Policy.Private each caller gets a copy.
//
// # The load path
//
// A call goes as far as it must:
//
//  1. Memory: a fresh value is returned. In Redis mode an entry is fresh only while Redis would push its changes.
//  2. Flight: a load of the key in this process is joined, or else begun. It runs in a goroutine of its own. A load that began before a change
//     that this process knows of is not joined.
//  3. Redis is read.
//  4. Lease: Redis gives the right to fill a key to one process of the fleet. The other processes wait for a push.
//  5. Load: the loader is called, on a context that carries the first caller's values but not its cancellation. It ends with
//     the policy's LoadTimeout, or when nobody has waited for the load for its LoadGrace.
//  6. Share: every waiting caller gets the value or the error.
//  7. Fill: the value is stored, unless its key was invalidated since the load began. In Redis mode callers do not wait
//     for the fill.
//
// In memory mode steps 3 and 4 fall away, and the value is stored before it is shared.
//
// # Keys
//
// A key is its policy's category and the parts given to Policy.Key, joined by colons, such as sessions:ABC123:list:50:0. A
// part is a string or an integer; bytes with a meaning in keys or in Redis' patterns are percent-escaped, so that no text
// reaches beyond its part. Policies of one category share their keys. Where two policies make the same key, each is given its own values
// only, and the values replace each other. Put user ids into keys as Cache.HashID makes them, a keyed hash.
//
// # Freshness
//
// A TTL runs from the start of the load, not from its end: a served value is never older than its TTL, however long it
// took to load. [WithTTL] changes the TTL for one call. A loader changes the TTL of what it has just loaded with [Loading], or
// keeps the value from being stored. If a loader returns [ErrNotFound], as it is or wrapped, this answer is cached for the policy's NegativeTTL.
// Policy.Jitter keeps values that were stored together from expiring together. [TTL] is a table of policies that come with
// the package.
//
// # Invalidation
//
// Cache.Invalidate removes keys. Cache.InvalidateTags, InvalidateCategory and InvalidateAll make out of date every entry that carries a tag
// ([WithTags], Load.Tag), every entry of a category, or everything, at the same cost for any number of entries. They return a [Receipt].
// Cache.InvalidatePattern removes the keys that match a [Pattern], made by Policy.Match or [ParsePattern], and Cache.Keys lists them. The
// memory of invalidated entries is freed in the background; Receipt.Swept waits for that.
//
// The Receipt says whether Redis has confirmed the invalidation, which in memory mode is always so, and can wait for the confirmation. Until
// then the invalidation is sent again and again, and this process does not read the invalidated keys in Redis. A value whose load began before
// a confirmed invalidation is not stored after it, in this process, in another one or in Redis. Callers that were waiting for that load already
// still get its value. Later callers do not: in the process that invalidated at once, in others when Redis' push has arrived. A call with [Strong]
// reads Redis instead of waiting for a push. [Set] and [Refresh] supersede loads in flight in the same manner.
//
// # Failures
//
// The error of a loader goes, as it is, to all callers that wait for it. The next caller loads again. From the second failure in a
// row on the key is not loaded again for Options.Backoff, doubling with each: callers get an [Error] with [CodeBackoff] that wraps the
// last error. A caller whose own context ends gets that context's error. Everything else is an [Error] with a [Code], or one of [ErrMiss],
// [ErrNotFound] and [ErrClosed]; one code says that Options.MaxLoads run and too many wait. Batches report their failures as one [BatchError].
// errors.Is and errors.As work on all of them. A nil cache fails calls with an Error and never panics.
//
// Redis is never a reason to fail. While Redis is unavailable or answers with errors, memory serves what it has for Options.DegradedTTL, and
// loaders answer for the rest, one load a key at a time in each process; loaded values are kept for the same time. A value in Redis that cannot
// be read counts as a miss and is replaced, unless a newer build of this package wrote it.
//
// # Observability
//
// [Lookup] says for one call whether it was a hit, where the value came from, how old it is and why. Cache.Metrics counts
// hits, misses, loads and errors under the label of each policy. Cache.Health says whether Redis is in use, since when and
// why not. Options.Check compares a small share of the hits with what their loaders return now, and counts those that were wrong
// for longer than an invalidation may take. Package asidehttp serves all of it over HTTP, and invalidation too, and notifies web front ends
// of invalidations.
//
// # Limits
//
// docs/limits.md lists what the package does not do, and where its promises end.
package aside
