package aside

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/guard"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/scan"
)

// A KeyInfo describes one cached value.
type KeyInfo struct {
	Key      string
	Tier     Tier          // where a call of this process would find the value now: memory or Redis
	TTL      time.Duration // until the end of its TTL; 0 after that
	Stale    bool          // its TTL is over; it is kept for Policy.Stale and Policy.StaleIfError
	KeptFor  time.Duration // until it is removed: after its TTL, and the times of Policy.Stale and Policy.StaleIfError
	Age      time.Duration // since the start of the load that made it
	Size     int64         // in Redis the stored bytes, in memory mode the estimated size of the value
	Codec    string        // name of the codec that encoded the value: "json", "cbor", "raw", or a Codec's Name; "" in memory mode
	Tags     []string      // for InvalidateTags
	Negative bool          // a cached "not found"
}

// Keys lists the cached keys that match a pattern. The zero Pattern stands for all keys of the categories that the cache has a policy for:
// those of Options.Policies, and those of policies that were used. In Redis mode Keys scans Redis in small portions, with pauses between them,
// and does not read the values: a listing of many keys takes its time. Invalidated entries are not listed, nor are keys of other programs.
//
// A key that is stored or removed during the listing may or may not be listed, and Redis may list a key twice. The sequence ends early if ctx
// ends or if Redis fails. Its last element is then an error: ctx's error, or an *Error with CodeUnavailable. It can be ranged over again, and
// by many goroutines.
func (c *Cache) Keys(ctx context.Context, pattern Pattern) iter.Seq2[KeyInfo, error] {
	return func(yield func(KeyInfo, error) bool) {
		err := c.usableWith(ctx)
		if err == nil {
			err = pattern.Err()
		}
		switch {
		case err != nil:
			yield(KeyInfo{}, err)
		case c.engine.Store == nil:
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
	now, times := c.engine.Clock.Now(), e.Times()
	return KeyInfo{
		Key: key, Tier: TierMemory, TTL: time.Duration(max(0, times.FreshUntil-now)), Age: time.Duration(max(0, now-e.LoadedAt)),
		Stale: now >= times.FreshUntil, KeptFor: time.Duration(max(0, times.DeadUntil-now)),
		Size: e.Size, Tags: slices.Clone(e.Scope.Tags), Negative: engine.IsAbsent(e.Value),
	}
}

func (c *Cache) listRedis(ctx context.Context, pattern Pattern, yield func(KeyInfo, error) bool) {
	c.engine.AwaitServers(ctx)
	keys := scan.Selection{Category: pattern.category(), Match: pattern.text, Matches: pattern.matches}
	err := c.engine.Scanner.List(ctx, keys, func(i scan.Info) bool { return yield(c.infoOfStored(i), nil) })
	switch {
	case err == nil:
	case ctx.Err() != nil:
		yield(KeyInfo{}, ctx.Err())
	case c.closed.Load():
		yield(KeyInfo{}, ErrClosed)
	default:
		yield(KeyInfo{}, &Error{Code: CodeUnavailable, Message: "listing the keys in Redis failed: " + redisstore.Describe(err), Err: err})
	}
}

func (c *Cache) infoOfStored(i scan.Info) KeyInfo {
	info := KeyInfo{
		Key: i.Key, Tier: TierRedis, TTL: max(0, i.TTL), Age: i.Age, Stale: i.TTL <= 0, KeptFor: i.KeptFor, Size: i.Size, Tags: i.Tags, Negative: i.Negative,
	}
	if !i.Negative {
		info.Codec = c.policies.codecName(i.Codec)
	}
	if e, _ := c.near.Old(i.Key); e != nil && e.Scope.Valid() {
		info.Tier = TierMemory
	}
	return info
}
