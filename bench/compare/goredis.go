package main

import (
	"context"
	"time"

	"github.com/go-redis/cache/v9"
	"github.com/redis/go-redis/v9"
)

var goredisModules = []string{"github.com/go-redis/cache/v9", "github.com/redis/go-redis/v9"}

var goredisLibraries = []library{
	{
		name: "go-redis/cache", modules: goredisModules, form: "`Once`, MessagePack and s2", tiers: inRedis,
		why:      "It keeps nothing in memory and shares loads in one process alone, and a slow load can overwrite a newer value.",
		products: openGoredis[*product](false), catalogue: openGoredis[*catalogue](false),
	},
	{
		name: "go-redis/cache, local", modules: goredisModules, form: "the same with `TinyLFU` as local cache", tiers: inMemory,
		why:      "A process does not see the changes of others.",
		products: openGoredis[*product](true), catalogue: openGoredis[*catalogue](true),
	},
}

func openGoredis[T any](local bool) func(env[T]) (*opened[T], error) {
	return func(e env[T]) (*opened[T], error) {
		client := redis.NewClient(&redis.Options{Addr: e.addr})
		o := &cache.Options{Redis: client}
		if local {
			o.LocalCache = cache.NewTinyLFU(max(e.entries, 1000), max(e.ttl, time.Second))
		}
		c := cache.New(o)
		key := numbered(e.prefix)
		get := func(ctx context.Context, key string, id int) (v T, err error) {
			err = c.Once(&cache.Item{Ctx: ctx, Key: key, Value: &v, TTL: e.ttl, Do: func(item *cache.Item) (any, error) { return e.load(item.Ctx, id) }})
			return v, err
		}
		return &opened[T]{
			get: func(ctx context.Context, id int) (T, error) { return get(ctx, key(id), id) },
			ready: func(ids int) func(context.Context, int) (T, error) {
				names := names(e.prefix, ids)
				return func(ctx context.Context, id int) (T, error) { return get(ctx, names[id], id) }
			},
			set: func(ctx context.Context, id int, v T) error {
				return c.Set(&cache.Item{Ctx: ctx, Key: key(id), Value: v, TTL: e.ttl})
			},
			invalidate: func(ctx context.Context, id int) error { return c.Delete(ctx, key(id)) },
			key:        key,
			close:      func() { client.Close() },
		}, nil
	}
}
