//go:build peers

package bench

// These are compared on request only, so that nobody else needs their modules:
//
//	go get github.com/redis/rueidis/rueidisaside github.com/dcbickfo/redcache
//	go test -tags peers -run '^$' -bench 'ColdMiss|RedisHit|LocalHit' .

import (
	"context"
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/dcbickfo/redcache"
	"github.com/redis/rueidis/rueidisaside"
)

func init() {
	ways = append(ways, way{"rueidisaside", throughRueidisaside}, way{"redcache", throughRedcache})
}

func throughRueidisaside(b *testing.B, addr string) cached {
	client, err := rueidisaside.NewClient(rueidisaside.ClientOption{ClientOption: redisAt(addr)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(client.Close)
	typed := rueidisaside.NewTypedCacheAsideClient(client,
		func(p *product) (string, error) { text, err := json.Marshal(p); return string(text), err },
		func(text string) (*product, error) { p := new(product); return p, json.Unmarshal([]byte(text), p) })
	return func(ctx context.Context, id int, load func(int) *product) (*product, error) {
		return typed.Get(ctx, time.Hour, "rueidisaside:"+strconv.Itoa(id), func(context.Context, string) (*product, error) { return load(id), nil })
	}
}

func throughRedcache(b *testing.B, addr string) cached {
	client, err := redcache.NewRedCacheAside(redisAt(addr), redcache.CacheAsideOption{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(client.Close)
	return func(ctx context.Context, id int, load func(int) *product) (*product, error) {
		text, err := client.Get(ctx, time.Hour, "redcache:"+strconv.Itoa(id), func(context.Context, string) (string, error) {
			text, err := json.Marshal(load(id))
			return string(text), err
		})
		if err != nil {
			return nil, err
		}
		p := new(product)
		return p, json.Unmarshal([]byte(text), p)
	}
}
