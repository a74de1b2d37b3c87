// Package aside is a typed cache-aside library: it stands between a backend and its slow sources, in the process's memory
// or in Redis, and calls a loader only for what is not cached.
//
// # Overview
//
// A [Cache] holds values. A [Policy] says how one kind of value is cached: under which first part of the key, and for how
// long. Policy.Key makes a [Key]. [GetOrLoad] returns the value of a key, from the cache or from the loader it is given:
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
// GetOrLoad with a [Result] that explains itself.
//
// # Where values are
//
// With the zero [Options] values are in this process's memory, as they are: a hit copies and decodes nothing. Memory is
// bounded in entries and in bytes, and keeps what is asked for most.
//
// With Options.Redis, which [OptionsFromEnv] fills from the environment, values are in Redis, for all processes that name
// the same server. Each process also keeps in its memory what it has read or loaded, decoded once. Redis' client tracking tells
// it of every change; what was read by a connection that has broken, or before a flush, is not served from memory any more. A
// Redis Cluster is found by itself, and each of its primaries connected to. A server without tracking is found out at connect, and seen in [Health]: memory then keeps what was read for a second at most. A
// handler that serves JSON does best to cache the encoded bytes, as []byte, which are stored and returned as they are; other
// types are stored as JSON, or by the policy's [Codec].
//
// Values are shared. Everyone who hits a value in memory, or waits for the same load, gets the same pointers, slices and
// maps: do not change what you got from a cache or gave to it. With Policy.Private each caller gets a copy of its own.
//
// # The load path
//
// A call goes as far as it must:
//
//  1. Memory: a fresh value is returned, in Redis mode while Redis would tell if it were out of date.
//  2. Flight: a load of the key that is under way in this process is joined, else begun. It runs in a goroutine of its own. One
//     that began before a change that this process knows of is not joined.
//  3. Redis is read.
//  4. Lease: Redis gives the right to fill a key to one process of the fleet; it wakes the others, who look again.
//  5. Load: the loader is called, on a context that carries the first caller's values but not its cancellation. It ends with
//     the policy's LoadTimeout, or when nobody has waited for the load for its LoadGrace.
//  6. Share: everyone who waits gets the value or the error.
//  7. Fill: the value is stored, unless its key was invalidated since the load began. In Redis mode callers do not wait
//     for that.
//
// In memory mode steps 3 and 4 fall away, and the value is stored before it is shared.
//
// # Keys
//
// A key is its policy's category and the parts given to Policy.Key, joined by colons, such as sessions:ABC123:list:50:0. A
// part is a string or an integer; bytes with a meaning in keys or in Redis' patterns are percent-escaped, so that no text
// reaches beyond its part. Policies of one category share their keys, and where two make the same one, each is given its own values
// alone, though they replace each other's. User ids belong into keys as Cache.HashID makes them, a keyed hash.
//
// # Freshness
//
// A TTL runs from the start of the load, not from its end: what the cache serves is never older than its TTL, however long it
// took to load. [WithTTL] changes the TTL for one call. A loader changes it for what it has just loaded with [Loading], or
// keeps that from being stored. A loader that returns [ErrNotFound], as it is or wrapped, has this answer cached for the policy's NegativeTTL.
// Policy.Jitter keeps values that were stored together from expiring together. [TTL] is a table of policies that come with
// the package.
//
// # Invalidation
//
// Cache.Invalidate removes keys; Cache.InvalidateTags, InvalidateCategory and InvalidateAll make out of date what carries a tag
// ([WithTags], Load.Tag), a category or everything, at the same cost however much that is. They return a [Receipt].
// Cache.InvalidatePattern removes the keys that match a [Pattern], made by Policy.Match or [ParsePattern], and Cache.Keys lists them. The
// memory of what a tag has put out of date is given back in the background, and Receipt.Swept waits for that.
//
// The Receipt tells whether Redis has confirmed it, which in memory mode is always so, and can wait until it has: until then the
// invalidation is sent again and again, and this process does not read in Redis what it is about. A value whose load began before a confirmed invalidation is not stored after
// it, in this process, in another one or in Redis; those who were already waiting for that load still get its value, and nobody
// who comes later does: in the process that invalidated at once, in others when Redis' push has come. [Strong] waits for no push.
// [Set] and [Refresh] supersede loads under way in the same manner.
//
// # Failures
//
// What a loader returns as its error goes, as it is, to all who wait for it. The next caller loads again. From the second failure in a
// row on the key is not loaded again for Options.Backoff, doubling with each: callers get an [Error] with [CodeBackoff] that wraps the
// last one. A caller whose own context
// ends gets that context's error. Everything else is an [Error] with a [Code], or one of the sentinels [ErrMiss],
// [ErrNotFound] and [ErrClosed]; one of them says that Options.MaxLoads run and too many wait. Batches report what failed as one [BatchError]. errors.Is and errors.As work on all of them.
// A nil cache fails calls with an Error and never panics.
//
// Redis is never a reason to fail. While it is away or answers with errors, memory answers for Options.DegradedTTL after Redis'
// word for a value was lost, and loaders answer for the rest, one load a key at a time in each process; what they bring is kept
// for as long. A value in it that cannot be read counts as a miss and is replaced, unless a newer build of
// this package wrote it.
//
// # Observability
//
// [Lookup] tells for one call whether it was a hit, where the value came from, how old it is and why. Cache.Metrics counts
// hits, misses, loads and errors under the label of each policy; Cache.Health tells whether Redis is in use, since when and
// why not. Options.Check has a small share of hits compared with what their loaders return now, and counts those that were wrong
// for longer than an invalidation may take. Package asidehttp serves both over HTTP, and invalidation too, and tells web front ends of what was invalidated.
//
// # Limits
//
// docs/limits.md lists what the package does not do, and where its promises end. docs/README.md is the index of the documents.
package aside
