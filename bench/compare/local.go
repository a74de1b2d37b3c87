package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/Yiling-J/theine-go"
	"github.com/dgraph-io/ristretto/v2"
	"github.com/eko/gocache/lib/v4/cache"
	"github.com/eko/gocache/lib/v4/store"
	gocachestore "github.com/eko/gocache/store/go_cache/v4"
	"github.com/maypok86/otter/v2"
	gocache "github.com/patrickmn/go-cache"
	"github.com/samber/hot"
	"github.com/viccon/sturdyc"
)

// alone is why a library of this file may be faster.
const alone = "It works in one process alone: no Redis, and no process sees the changes of others."

var memoryLibraries = []library{
	{
		name: "otter", modules: []string{"github.com/maypok86/otter/v2"}, form: "`Get` with a loader made once, text as keys; MaximumSize, ExpiryWriting", tiers: inMemory, why: alone,
		products: func(e env[*product]) (*opened[*product], error) {
			return openOtter(e, numbered(e.prefix), numberIn)
		},
		catalogue: func(e env[*catalogue]) (*opened[*catalogue], error) {
			return openOtter(e, numbered(e.prefix), numberIn)
		},
	},
	{
		name: "otter, int keys", modules: []string{"github.com/maypok86/otter/v2"}, form: "the same with ints as keys", tiers: inMemory, why: alone,
		products: func(e env[*product]) (*opened[*product], error) {
			same := func(id int) int { return id }
			return openOtter(e, same, same)
		},
	},
	{name: "theine", modules: []string{"github.com/Yiling-J/theine-go"}, form: "`LoadingCache`, int keys", tiers: inMemory, why: alone, products: openTheine[*product]},
	{
		name: "ristretto", modules: []string{"github.com/dgraph-io/ristretto/v2"}, form: "`Get`, then `SetWithTTL`; int keys, ten counters an entry, a cost of 1 an entry", tiers: inMemory,
		why: alone + " It shares no loads.", products: openRistretto[*product],
	},
	{
		name: "sturdyc", modules: []string{"github.com/viccon/sturdyc"}, form: "`GetOrFetch`; 64 shards, WithNoContinuousEvictions", tiers: inMemory, why: alone,
		products: openSturdyc[*product],
	},
	{
		name: "hot", modules: []string{"github.com/samber/hot"}, form: "LRU, int keys, `WithLoaders`, one shard (several are not safe for concurrent use in v0.11.0)", tiers: inMemory, why: alone,
		products: openHot[*product],
	},
	{
		name: "gocache", modules: []string{"github.com/eko/gocache/lib/v4", "github.com/patrickmn/go-cache"}, form: "`LoadableCache` on go-cache", tiers: inMemory, why: alone,
		products: openGocache[*product],
	},
}

// numberIn is the inverse of numbered, for loaders that are given keys.
func numberIn(key string) int {
	id, err := strconv.Atoi(key[strings.LastIndexByte(key, ':')+1:])
	if err != nil {
		panic(err)
	}
	return id
}

func openOtter[K comparable, T any](e env[T], key func(int) K, number func(K) int) (*opened[T], error) {
	c, err := otter.New(&otter.Options[K, T]{MaximumSize: 2 * e.entries, ExpiryCalculator: otter.ExpiryWriting[K, T](e.ttl)})
	if err != nil {
		return nil, err
	}
	loader := otter.LoaderFunc[K, T](func(ctx context.Context, key K) (T, error) { return e.load(ctx, number(key)) })
	bulk := otter.BulkLoaderFunc[K, T](func(ctx context.Context, keys []K) (map[K]T, error) { return loadMany(ctx, e, keys, number) })
	return &opened[T]{
		get: func(ctx context.Context, id int) (T, error) { return c.Get(ctx, key(id), loader) },
		ready: func(ids int) func(context.Context, int) (T, error) {
			keys := make([]K, ids)
			for id := range keys {
				keys[id] = key(id)
			}
			return func(ctx context.Context, id int) (T, error) { return c.Get(ctx, keys[id], loader) }
		},
		many: func(ctx context.Context, ids []int) (int, error) {
			keys := make([]K, len(ids))
			for i, id := range ids {
				keys[i] = key(id)
			}
			values, err := c.BulkGet(ctx, keys, bulk)
			return len(values), err
		},
		set:        func(_ context.Context, id int, v T) error { c.Set(key(id), v); return nil },
		invalidate: func(_ context.Context, id int) error { c.Invalidate(key(id)); return nil },
		close:      func() { c.StopAllGoroutines() },
	}, nil
}

func openTheine[T any](e env[T]) (*opened[T], error) {
	c, err := theine.NewBuilder[int, T](int64(2 * e.entries)).BuildWithLoader(func(ctx context.Context, id int) (theine.Loaded[T], error) {
		v, err := e.load(ctx, id)
		return theine.Loaded[T]{Value: v, Cost: 1, TTL: e.ttl}, err
	})
	if err != nil {
		return nil, err
	}
	return &opened[T]{
		get:        c.Get,
		set:        func(_ context.Context, id int, v T) error { c.SetWithTTL(id, v, 1, e.ttl); return nil },
		invalidate: func(_ context.Context, id int) error { c.Delete(id); return nil },
		close:      c.Close,
	}, nil
}

func openRistretto[T any](e env[T]) (*opened[T], error) {
	size := int64(2 * e.entries)
	c, err := ristretto.NewCache(&ristretto.Config[int, T]{NumCounters: 10 * size, MaxCost: size, BufferItems: 64, IgnoreInternalCost: true})
	if err != nil {
		return nil, err
	}
	return &opened[T]{
		get: func(ctx context.Context, id int) (T, error) {
			v, ok := c.Get(id)
			if ok {
				return v, nil
			}
			v, err := e.load(ctx, id)
			if err == nil {
				c.SetWithTTL(id, v, 1, e.ttl)
			}
			return v, err
		},
		set:        func(_ context.Context, id int, v T) error { c.SetWithTTL(id, v, 1, e.ttl); return nil },
		invalidate: func(_ context.Context, id int) error { c.Del(id); return nil },
		close:      c.Close,
	}, nil
}

func openSturdyc[T any](e env[T]) (*opened[T], error) {
	c := sturdyc.New[T](2*e.entries+64*100, 64, e.ttl, 10, sturdyc.WithNoContinuousEvictions())
	key, inBatches := numbered(e.prefix), c.BatchKeyFn(e.prefix)
	return &opened[T]{
		get: func(ctx context.Context, id int) (T, error) {
			return c.GetOrFetch(ctx, key(id), func(ctx context.Context) (T, error) { return e.load(ctx, id) })
		},
		ready: func(ids int) func(context.Context, int) (T, error) {
			names, fetches := names(e.prefix, ids), make([]sturdyc.FetchFn[T], ids)
			for id := range fetches {
				fetches[id] = func(ctx context.Context) (T, error) { return e.load(ctx, id) }
			}
			return func(ctx context.Context, id int) (T, error) { return c.GetOrFetch(ctx, names[id], fetches[id]) }
		},
		many: func(ctx context.Context, ids []int) (int, error) {
			texts := make([]string, len(ids))
			for i, id := range ids {
				texts[i] = strconv.Itoa(id)
			}
			values, err := c.GetOrFetchBatch(ctx, texts, inBatches, func(ctx context.Context, texts []string) (map[string]T, error) {
				return loadMany(ctx, e, texts, numberIn)
			})
			return len(values), err
		},
		set:        func(_ context.Context, id int, v T) error { c.Set(key(id), v); return nil },
		invalidate: func(_ context.Context, id int) error { c.Delete(key(id)); return nil },
		close:      func() {},
	}, nil
}

func openHot[T any](e env[T]) (*opened[T], error) {
	// Without shards: those of v0.11.0 have no locks, and a call in two goroutines ends the process.
	c := hot.NewHotCache[int, T](hot.LRU, 2*e.entries).WithTTL(e.ttl).
		WithLoaders(func(ids []int) (map[int]T, error) {
			return loadMany(context.Background(), e, ids, func(id int) int { return id })
		}).Build()
	return &opened[T]{
		get: func(_ context.Context, id int) (T, error) {
			v, found, err := c.Get(id)
			if err == nil && !found {
				err = fmt.Errorf("hot: %d is not found", id)
			}
			return v, err
		},
		many: func(_ context.Context, ids []int) (int, error) {
			values, _, err := c.GetMany(ids)
			return len(values), err
		},
		set:        func(_ context.Context, id int, v T) error { c.Set(id, v); return nil },
		invalidate: func(_ context.Context, id int) error { c.Delete(id); return nil },
		close:      func() {},
	}, nil
}

func openGocache[T any](e env[T]) (*opened[T], error) {
	expires := store.WithExpiration(e.ttl)
	held := gocachestore.NewGoCache(gocache.New(e.ttl, time.Minute), expires)
	c := cache.NewLoadable(func(ctx context.Context, key any) (T, []store.Option, error) {
		v, err := e.load(ctx, numberIn(key.(string)))
		return v, []store.Option{expires}, err
	}, cache.New[T](held))
	key := numbered(e.prefix)
	return &opened[T]{
		get: func(ctx context.Context, id int) (T, error) { return c.Get(ctx, key(id)) },
		ready: func(ids int) func(context.Context, int) (T, error) {
			keys := make([]any, ids)
			for id, name := range names(e.prefix, ids) {
				keys[id] = name
			}
			return func(ctx context.Context, id int) (T, error) { return c.Get(ctx, keys[id]) }
		},
		set:        func(ctx context.Context, id int, v T) error { return c.Set(ctx, key(id), v) },
		invalidate: func(ctx context.Context, id int) error { return c.Delete(ctx, key(id)) },
		close:      func() { c.Close() },
	}, nil
}
