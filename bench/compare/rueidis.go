package main

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidisaside"
)

const rueidisModule = "github.com/redis/rueidis"

var rueidisLibraries = []library{
	{
		name: "rueidis, plain GET", modules: []string{rueidisModule}, form: "GET and encoding/json, SET after a miss; DisableCache", tiers: inRedis,
		why:      "It keeps nothing in memory and shares no loads, and a slow load can overwrite a newer value.",
		products: openPlain[*product], catalogue: openPlain[*catalogue], bytes: openPlain[[]byte],
	},
	{
		name: "rueidis, tracked read", modules: []string{rueidisModule}, form: "`DoCache` and encoding/json, SET after a miss", tiers: inRedis | inMemory,
		why:      "Its memory holds encoded text, it shares no loads, and a slow load can overwrite a newer value.",
		products: openTracked[*product], catalogue: openTracked[*catalogue],
	},
	{
		name: "rueidisaside", modules: []string{"github.com/redis/rueidis/rueidisaside"}, form: "typed client, encoding/json", tiers: inRedis | inMemory,
		why:      "Its memory holds encoded text, a slow load can overwrite a newer value after a delete, and calls fail if Redis does.",
		products: openRueidisaside[product], catalogue: openRueidisaside[catalogue],
	},
}

// encode and decode are JSON, except for bytes, which stay as they are.
func encode[T any](v T) (string, error) {
	if b, ok := any(v).([]byte); ok {
		return rueidis.BinaryString(b), nil
	}
	text, err := json.Marshal(v)
	return rueidis.BinaryString(text), err
}

func decode[T any](text []byte) (v T, err error) {
	if b, ok := any(&v).(*[]byte); ok {
		*b = text
		return v, nil
	}
	return v, json.Unmarshal(text, &v)
}

func rueidisAt(addr string) rueidis.ClientOption {
	return rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: true}
}

// numbered returns the function that makes keys, as a program would make them at each call.
func numbered(prefix string) func(id int) string {
	prefix += ":"
	return func(id int) string { return prefix + strconv.Itoa(id) }
}

// names are keys that are made before.
func names(prefix string, ids int) []string {
	out, key := make([]string, ids), numbered(prefix)
	for id := range out {
		out[id] = key(id)
	}
	return out
}

func openPlain[T any](e env[T]) (*opened[T], error) {
	o := rueidisAt(e.addr)
	o.DisableCache = true
	client, err := rueidis.NewClient(o)
	if err != nil {
		return nil, err
	}
	out := openRueidis(client, e, func(ctx context.Context, key string) rueidis.RedisResult {
		return client.Do(ctx, client.B().Get().Key(key).Build())
	})
	out.many = func(ctx context.Context, ids []int) (int, error) {
		values, err := rueidis.MGet(client, ctx, namesOf(out.key, ids))
		return decodeMany(ctx, client, e, out.key, ids, values, err)
	}
	return out, nil
}

func openTracked[T any](e env[T]) (*opened[T], error) {
	client, err := rueidis.NewClient(rueidisAt(e.addr))
	if err != nil {
		return nil, err
	}
	out := openRueidis(client, e, func(ctx context.Context, key string) rueidis.RedisResult {
		return client.DoCache(ctx, client.B().Get().Key(key).Cache(), e.ttl)
	})
	out.many = func(ctx context.Context, ids []int) (int, error) {
		values, err := rueidis.MGetCache(client, ctx, e.ttl, namesOf(out.key, ids))
		return decodeMany(ctx, client, e, out.key, ids, values, err)
	}
	return out, nil
}

func openRueidis[T any](client rueidis.Client, e env[T], read func(ctx context.Context, key string) rueidis.RedisResult) *opened[T] {
	key := numbered(e.prefix)
	set := func(ctx context.Context, key string, v T) error {
		text, err := encode(v)
		if err != nil {
			return err
		}
		return client.Do(ctx, client.B().Set().Key(key).Value(text).Px(e.ttl).Build()).Error()
	}
	get := func(ctx context.Context, key string, id int) (v T, err error) {
		text, err := read(ctx, key).AsBytes()
		if err == nil {
			return decode[T](text)
		}
		if !rueidis.IsRedisNil(err) {
			return v, err
		}
		if v, err = e.load(ctx, id); err != nil {
			return v, err
		}
		return v, set(ctx, key, v)
	}
	return &opened[T]{
		get: func(ctx context.Context, id int) (T, error) { return get(ctx, key(id), id) },
		ready: func(ids int) func(context.Context, int) (T, error) {
			names := names(e.prefix, ids)
			return func(ctx context.Context, id int) (T, error) { return get(ctx, names[id], id) }
		},
		set: func(ctx context.Context, id int, v T) error { return set(ctx, key(id), v) },
		invalidate: func(ctx context.Context, id int) error {
			return client.Do(ctx, client.B().Del().Key(key(id)).Build()).Error()
		},
		key:   key,
		close: client.Close,
	}
}

func namesOf(key func(int) string, ids []int) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = key(id)
	}
	return out
}

// decodeMany decodes what was read for ids, and loads and stores the rest.
func decodeMany[T any](ctx context.Context, client rueidis.Client, e env[T], key func(int) string, ids []int, read map[string]rueidis.RedisMessage, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	out := make(map[int]T, len(ids))
	var sets rueidis.Commands
	for _, id := range ids {
		message := read[key(id)]
		text, err := message.AsBytes()
		if err == nil {
			out[id], err = decode[T](text)
		} else if rueidis.IsRedisNil(err) {
			if out[id], err = e.load(ctx, id); err == nil {
				var encoded string
				encoded, err = encode(out[id])
				sets = append(sets, client.B().Set().Key(key(id)).Value(encoded).Px(e.ttl).Build())
			}
		}
		if err != nil {
			return 0, err
		}
	}
	for _, result := range client.DoMulti(ctx, sets...) {
		if err := result.Error(); err != nil {
			return 0, err
		}
	}
	return len(out), nil
}

func openRueidisaside[V any](e env[*V]) (*opened[*V], error) {
	client, err := rueidisaside.NewClient(rueidisaside.ClientOption{ClientOption: rueidisAt(e.addr), ClientTTL: 10 * time.Second})
	if err != nil {
		return nil, err
	}
	typed := rueidisaside.NewTypedCacheAsideClient(client,
		func(v *V) (string, error) { return encode(v) },
		func(text string) (*V, error) { return decode[*V]([]byte(text)) })
	key := numbered(e.prefix)
	get := func(ctx context.Context, key string, id int) (*V, error) {
		return typed.Get(ctx, e.ttl, key, func(ctx context.Context, _ string) (*V, error) { return e.load(ctx, id) })
	}
	return &opened[*V]{
		get: func(ctx context.Context, id int) (*V, error) { return get(ctx, key(id), id) },
		ready: func(ids int) func(context.Context, int) (*V, error) {
			names := names(e.prefix, ids)
			return func(ctx context.Context, id int) (*V, error) { return get(ctx, names[id], id) }
		},
		invalidate: func(ctx context.Context, id int) error { return typed.Del(ctx, key(id)) },
		key:        key,
		close:      client.Close,
	}, nil
}
