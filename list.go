package aside

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/gatewayz/aside/internal/guard"
	"github.com/gatewayz/aside/internal/keyspace"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/wire"
)

// A KeyInfo tells of one cached value.
type KeyInfo struct {
	Key      string
	Tier     Tier          // what would answer a call of this process now: its memory, or Redis
	TTL      time.Duration // for how long the value may still be served
	Age      time.Duration // since the start of the load that made it
	Size     int64         // in Redis the bytes that are stored, in memory mode the estimated size of the value
	Codec    string        // that has encoded the value: "json", "cbor", "raw", or the Name of a policy's; "" in memory mode
	Tags     []string      // by which it can be invalidated, beside its category
	Negative bool          // a cached "not found"
}

// Keys goes over what is cached and matches the pattern; the zero Pattern stands for all keys of the
// categories that the cache has a policy for: those of Options.Policies, and of others that were used, rows of TTL included. In Redis mode it reads what
// Redis holds, in small portions, with pauses in which the server answers others, and without the values: a listing of many
// keys takes its time. What was invalidated is not listed, nor is what is no value of a cache.
//
// What is stored or removed meanwhile may or may not be seen, and Redis may show a key twice. The sequence ends when its
// consumer has enough, when ctx ends, or when Redis fails: then its last element is an error, ctx's or an *Error with
// CodeUnavailable. It can be ranged over again, and by many goroutines.
func (c *Cache) Keys(ctx context.Context, pattern Pattern) iter.Seq2[KeyInfo, error] {
	return func(yield func(KeyInfo, error) bool) {
		err := c.usableWith(ctx)
		if err == nil {
			err = pattern.Err()
		}
		switch {
		case err != nil:
			yield(KeyInfo{}, err)
		case c.store == nil:
			c.listMemory(ctx, pattern, yield)
		default:
			c.listRedis(guard.Context(ctx), pattern, yield)
		}
	}
}

func (c *Cache) listMemory(ctx context.Context, pattern Pattern, yield func(KeyInfo, error) bool) {
	for key, e := range c.near.All() {
		if ctx.Err() != nil {
			yield(KeyInfo{}, ctx.Err())
			return
		}
		if !pattern.matches(key) {
			continue
		}
		if !yield(c.infoOf(key, e), nil) {
			return
		}
	}
}

func (c *Cache) infoOf(key string, e *near.Entry) KeyInfo {
	now := c.clock.Now()
	return KeyInfo{
		Key: key, Tier: TierMemory, TTL: time.Duration(max(0, e.FreshUntil-now)), Age: time.Duration(max(0, now-e.LoadedAt)),
		Size: e.Size, Tags: slices.Clone(e.Scope.Tags), Negative: isAbsent(e.Value),
	}
}

func (c *Cache) listRedis(ctx context.Context, pattern Pattern, yield func(KeyInfo, error) bool) {
	c.awaitServers(ctx)
	l := listing{c: c, generations: make(map[string]string)}
	over := false
	match, categories := pattern.text, make(map[string]bool)
	if pattern.all() {
		for _, name := range c.categories() {
			categories[name] = true
		}
		match = keyspace.ScanPattern(categories)
	} else {
		categories[pattern.category()] = true
	}
	err := c.store.Scan(ctx, func(keys []string) error {
		keys = slices.DeleteFunc(keys, func(key string) bool {
			return !keyspace.InOneOf(categories, key) || !pattern.matches(key) || c.journal.holds(key)
		})
		infos, err := l.look(ctx, keys)
		if err != nil {
			return err
		}
		for _, info := range infos {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if !yield(info, nil) {
				over = true
				return context.Canceled
			}
		}
		return nil
	}, match)
	switch {
	case err == nil || over:
	case ctx.Err() != nil:
		yield(KeyInfo{}, ctx.Err())
	case c.closed.Load():
		yield(KeyInfo{}, ErrClosed)
	default:
		yield(KeyInfo{}, &Error{Code: CodeUnavailable, Message: "the keys in Redis cannot be listed: " + redisstore.Describe(err), Err: err})
	}
}

// A listing is one walk over the keys in Redis.
type listing struct {
	c           *Cache
	generations map[string]string // of the tags that were met
}

const mostGenerations = 10_000

// look makes the infos of those keys that have a value which may be served.
func (l *listing) look(ctx context.Context, keys []string) ([]KeyInfo, error) {
	if len(l.generations) > mostGenerations {
		clear(l.generations)
	}
	headers, sizes, err := l.c.headers(ctx, keys)
	if err != nil {
		return nil, err
	}
	var unknown []string
	for _, h := range headers {
		if h == nil {
			continue
		}
		for _, tag := range h.Tags {
			if _, ok := l.generations[tag.Name]; !ok {
				l.generations[tag.Name] = ""
				unknown = append(unknown, tag.Name)
			}
		}
	}
	values, err := l.c.store.Values(ctx, unknown...)
	if err != nil {
		return nil, err
	}
	for i, tag := range unknown {
		l.generations[tag] = values[i]
	}
	var infos []KeyInfo
	for i, h := range headers {
		if h == nil || !l.upToDate(h) {
			continue
		}
		now, _, _ := l.c.store.Now(keys[i])
		ttl := time.Duration(h.FreshUntil-now) * time.Microsecond
		if ttl <= 0 {
			continue
		}
		info := KeyInfo{
			Key: keys[i], Tier: TierRedis, TTL: ttl, Age: time.Duration(max(0, now-h.LoadStart)) * time.Microsecond,
			Size: sizes[i], Codec: l.c.codecOf(h), Tags: keyspace.GivenNames(h.Tags, func(t wire.Tag) string { return t.Name }), Negative: h.Negative,
		}
		if l.c.near.Get(info.Key) != nil {
			info.Tier = TierMemory
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// upToDate reports whether no tag of a value was invalidated since its load, as far as the listing knows.
func (l *listing) upToDate(h *wire.Header) bool {
	for _, tag := range h.Tags {
		g, err := redisstore.ParseGeneration([]byte(l.generations[tag.Name]))
		if err != nil || g != tag.Generation || l.c.journal.holds(tag.Name) {
			return false
		}
	}
	return true
}

// codecOf names the codec that has written a value.
func (c *Cache) codecOf(h *wire.Header) string {
	if h.Negative {
		return ""
	}
	if codec, ok := wire.Builtin(h.Codec); ok {
		return codec.Name()
	}
	for _, pl := range c.plans.all() {
		if own := pl.policy.Codec; own != nil && wire.ID(own) == h.Codec {
			return pl.policy.codecName()
		}
	}
	return "unknown"
}
