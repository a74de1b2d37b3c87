package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidecodec"
)

const asideModule = "github.com/gatewayz/aside"

var asideModules = []string{asideModule, rueidisModule}

// asideForm has the options that are not the defaults. A long OpTimeout keeps a busy machine from being taken for a Redis that is away.
const asideForm = "OpTimeout 5 s, MaxEntries and MaxBytes that hold all values"

var asideLibraries = []library{
	{
		name: "aside", modules: asideModules, form: "`GetOrLoad`, JSON; " + asideForm, tiers: inMemory | inRedis,
		products:  func(e env[*product]) (*opened[*product], error) { return openAside(e, asideOptions{redis: true}) },
		catalogue: func(e env[*catalogue]) (*opened[*catalogue], error) { return openAside(e, asideOptions{redis: true}) },
		bytes:     func(e env[[]byte]) (*opened[[]byte], error) { return openAside(e, asideOptions{redis: true}) },
	},
	{
		name: "aside, CBOR", modules: asideModules, form: "the same with the codec `CBOR`", tiers: inRedis,
		products: func(e env[*product]) (*opened[*product], error) {
			return openAside(e, asideOptions{redis: true, codec: aside.CBOR})
		},
		catalogue: func(e env[*catalogue]) (*opened[*catalogue], error) {
			return openAside(e, asideOptions{redis: true, codec: aside.CBOR})
		},
	},
	{
		name: "aside, sonic", modules: append([]string{"github.com/bytedance/sonic"}, asideModules...), form: "the same with `Options.JSON` of asidecodec", tiers: inRedis,
		products: func(e env[*product]) (*opened[*product], error) {
			return openAside(e, asideOptions{redis: true, json: asidecodec.Sonic()})
		},
		catalogue: func(e env[*catalogue]) (*opened[*catalogue], error) {
			return openAside(e, asideOptions{redis: true, json: asidecodec.Sonic()})
		},
	},
	{
		name: "aside, Strong", modules: asideModules, form: "`GetOrLoad` with `Strong`, JSON", tiers: firstHit,
		products: func(e env[*product]) (*opened[*product], error) {
			return openAside(e, asideOptions{redis: true, calls: []aside.CallOption{aside.Strong()}})
		},
	},
	{
		name: "aside, Loader", modules: asideModules, form: "`Loader`, JSON; " + asideForm, tiers: inMemory | inRedis,
		products: func(e env[*product]) (*opened[*product], error) {
			return openAside(e, asideOptions{redis: true, loader: true})
		},
	},
	{
		name: "aside, memory mode", modules: asideModules, form: "`Loader` without Redis", tiers: inMemory,
		products: func(e env[*product]) (*opened[*product], error) {
			return openAside(e, asideOptions{loader: true})
		},
	},
}

type asideOptions struct {
	redis  bool
	loader bool // calls go through a Loader
	codec  aside.Codec
	json   aside.JSONFunctions
	calls  []aside.CallOption
}

func openAside[T any](e env[T], o asideOptions) (*opened[T], error) {
	policy := &aside.Policy{Name: e.prefix, Category: e.prefix, TTL: e.ttl, Codec: o.codec}
	options := aside.Options{
		Policies: []aside.Policy{*policy}, OpTimeout: 5 * time.Second, MaxEntries: 2 * e.entries, MaxBytes: 4 << 30, JSON: o.json,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if o.redis {
		options.Redis = rueidis.ClientOption{InitAddress: []string{e.addr}, ForceSingleClient: true}
	}
	c, err := aside.New(options)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(time.Minute); o.redis && c.Health().State != aside.StateConnected; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			c.Close()
			return nil, errors.New("aside does not connect: " + c.Health().Reason)
		}
	}
	out := &opened[T]{
		set: func(ctx context.Context, id int, v T) error { return aside.Set(ctx, c, policy.Key(id), v) },
		key: func(id int) string { return e.prefix + ":" + strconv.Itoa(id) },
		invalidate: func(ctx context.Context, id int) error {
			r, err := c.Invalidate(ctx, policy.Key(id))
			if err == nil && !r.Confirmed {
				err = errors.New("aside: an invalidation is not confirmed")
			}
			return err
		},
		close: func() { c.Close() },
	}
	if o.loader {
		withLoader(out, aside.NewLoader(c, *policy, e.load))
	} else {
		withCalls(out, c, policy, e, o.calls)
	}
	return out, nil
}

func withLoader[T any](out *opened[T], loader *aside.Loader[int, T]) {
	out.get = func(ctx context.Context, id int) (T, error) { return loader.Get(ctx, id) }
	out.many = func(ctx context.Context, ids []int) (int, error) {
		values, err := loader.GetMany(ctx, ids)
		return len(values), err
	}
}

func withCalls[T any](out *opened[T], c *aside.Cache, policy *aside.Policy, e env[T], calls []aside.CallOption) {
	out.get = func(ctx context.Context, id int) (T, error) {
		return aside.GetOrLoad(ctx, c, policy.Key(id), func(ctx context.Context) (T, error) { return e.load(ctx, id) }, calls...)
	}
	out.ready = func(ids int) func(context.Context, int) (T, error) {
		keys, loads := make([]aside.Key, ids), make([]func(context.Context) (T, error), ids)
		for id := range ids {
			keys[id], loads[id] = policy.Key(id), func(ctx context.Context) (T, error) { return e.load(ctx, id) }
		}
		return func(ctx context.Context, id int) (T, error) {
			return aside.GetOrLoad(ctx, c, keys[id], loads[id], calls...)
		}
	}
	out.many = func(ctx context.Context, ids []int) (int, error) {
		values, err := aside.GetOrLoadMany(ctx, c, ids, func(id int) aside.Key { return policy.Key(id) },
			func(ctx context.Context, ids []int) (map[int]T, error) {
				return loadMany(ctx, e, ids, func(id int) int { return id })
			}, calls...)
		return len(values), err
	}
}
