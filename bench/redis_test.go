package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// callers is how many calls are under way at the same time, on all processors together.
const callers = 128

// A cached is one way to cache a product in Redis: it returns what is cached under id, or what load returns, and caches that.
type cached func(ctx context.Context, id int, load func(id int) *product) (*product, error)

// A way is one way to cache, on the server at addr.
type way struct {
	name string
	open func(b *testing.B, addr string) cached
}

// ways are compared. bench/compare has other libraries.
var ways = []way{
	{"get-then-set", getThenSet},
	{"aside", func(b *testing.B, addr string) cached { return throughAside(onRedis(b, addr)) }},
}

func redisAt(addr string) rueidis.ClientOption {
	return rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: true}
}

// getThenSet is the floor: nobody is kept from loading, and nothing from being overwritten.
func getThenSet(b *testing.B, addr string) cached {
	o := redisAt(addr)
	o.DisableCache = true
	client, err := rueidis.NewClient(o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(client.Close)
	return func(ctx context.Context, id int, load func(int) *product) (*product, error) {
		key := "plain:" + strconv.Itoa(id)
		text, err := client.Do(ctx, client.B().Get().Key(key).Build()).AsBytes()
		if err == nil {
			p := new(product)
			return p, json.Unmarshal(text, p)
		}
		if !rueidis.IsRedisNil(err) {
			return nil, err
		}
		p := load(id)
		if text, err = json.Marshal(p); err != nil {
			return nil, err
		}
		return p, client.Do(ctx, client.B().Set().Key(key).Value(rueidis.BinaryString(text)).Px(time.Hour).Build()).Error()
	}
}

func onRedis(b *testing.B, addr string) *aside.Cache {
	c, err := aside.New(aside.Options{
		Redis: redisAt(addr), Policies: []aside.Policy{products}, OpTimeout: 5 * time.Second, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	for c.Health().State != aside.StateConnected {
		time.Sleep(time.Millisecond)
	}
	return c
}

func throughAside(c *aside.Cache) cached {
	return func(ctx context.Context, id int, load func(int) *product) (*product, error) {
		return aside.GetOrLoad(ctx, c, products.Key(id), func(context.Context) (*product, error) { return load(id), nil })
	}
}

// newID gives each call of a benchmark an id that no call before it had.
var newID atomic.Int64

// crowd has callers call get at the same time.
func crowd(b *testing.B, get func(ctx context.Context) error) {
	ctx := context.Background()
	b.ReportAllocs()
	b.SetParallelism(callers)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := get(ctx); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkColdMiss is a call for what is cached nowhere, with a loader that takes no time.
func BenchmarkColdMiss(b *testing.B) {
	for _, w := range ways {
		b.Run(w.name, func(b *testing.B) {
			get := w.open(b, redistest.Start(b).Addr())
			crowd(b, func(ctx context.Context) error {
				id := int(newID.Add(1))
				return check(id)(get(ctx, id, loaded))
			})
		})
	}
	// aside stores after its callers have their values. Here the time includes the storing of the last one, too.
	b.Run("aside/until-stored", func(b *testing.B) {
		c := onRedis(b, redistest.Start(b).Addr())
		get := throughAside(c)
		crowd(b, func(ctx context.Context) error {
			id := int(newID.Add(1))
			return check(id)(get(ctx, id, loaded))
		})
		c.Close()
	})
}

func loaded(id int) *product {
	p := *template
	p.ID = id
	return &p
}

var template = newProduct(0)

func check(id int) func(*product, error) error {
	return func(p *product, err error) error {
		if err == nil && p.ID != id {
			err = fmt.Errorf("asked for %d, got %d", id, p.ID)
		}
		return err
	}
}

// BenchmarkRedisHit is a call for what is in Redis and in no memory.
func BenchmarkRedisHit(b *testing.B) {
	for _, w := range ways {
		b.Run(w.name, func(b *testing.B) {
			addr := redistest.Start(b).Addr()
			fill, get := w.open(b, addr), w.open(b, addr)
			first := int(newID.Add(int64(b.N))) - b.N
			next := make(chan int, callers)
			go func() {
				defer close(next)
				for i := range b.N {
					next <- first + i
				}
			}()
			crowd(b, func(ctx context.Context) error {
				id := <-next
				return check(id)(fill(ctx, id, loaded))
			})
			b.StopTimer()
			settle(b, addr, b.N)
			var at atomic.Int64
			b.StartTimer()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					id := first + int(at.Add(1)) - 1
					if err := check(id)(get(context.Background(), id, func(int) *product { panic("a miss") })); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// settle waits until n values are in Redis.
func settle(b *testing.B, addr string, n int) {
	conn := redistest.Raw(b, addr)
	for {
		size, err := conn.Do("DBSIZE")
		if err != nil {
			b.Fatal(err)
		}
		if size.(int64) >= int64(n) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// BenchmarkLocalHit is a hit in memory that Redis keeps right, beside otter's own.
func BenchmarkLocalHit(b *testing.B) {
	ctx := context.Background()
	load := func(context.Context) (*product, error) { panic("a miss") }
	tags := aside.WithTags("a", "b")
	plain, tagged := warmed(b), warmed(b, tags)
	keys := make([]aside.Key, items)
	for i := range keys {
		keys[i] = products.Key(i)
	}
	b.Run("otter", otterHit)
	b.Run("aside/ready-key", func(b *testing.B) {
		walk(b, func(i int) *product {
			p, _ := aside.GetOrLoad(ctx, plain, keys[i], load)
			return p
		})
	})
	b.Run("aside/ready-key-two-tags", func(b *testing.B) {
		walk(b, func(i int) *product {
			p, _ := aside.GetOrLoad(ctx, tagged, keys[i], load, tags)
			return p
		})
	})
	b.Run("aside/readme-form", func(b *testing.B) {
		walk(b, func(i int) *product {
			p, _ := aside.GetOrLoad(ctx, plain, products.Key(i), func(ctx context.Context) (*product, error) { return missed(ctx, i) })
			return p
		})
	})
	loader := aside.NewLoader(plain, products, missed)
	b.Run("aside/loader", func(b *testing.B) {
		walk(b, func(i int) *product {
			p, _ := loader.Get(ctx, i)
			return p
		})
	})
	for _, w := range ways[2:] {
		get := w.open(b, redistest.Start(b).Addr())
		for i := range 2 * items {
			if err := check(i % items)(get(ctx, i%items, loaded)); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(w.name, func(b *testing.B) {
			walk(b, func(i int) *product {
				p, _ := get(ctx, i, func(int) *product { panic("a miss") })
				return p
			})
		})
	}
}

// warmed is a cache on a Redis of its own with all products in memory.
func warmed(b *testing.B, opts ...aside.CallOption) *aside.Cache {
	c := onRedis(b, redistest.Start(b).Addr())
	ids := make([]int, items)
	for i := range ids {
		ids[i] = i
	}
	load := func(_ context.Context, ids []int) (map[int]*product, error) {
		out := make(map[int]*product, len(ids))
		for _, id := range ids {
			out[id] = newProduct(id)
		}
		return out, nil
	}
	for chunk := range slices.Chunk(ids, 500) {
		if _, err := aside.GetOrLoadMany(context.Background(), c, chunk, func(id int) aside.Key { return products.Key(id) }, load, opts...); err != nil {
			b.Fatal(err)
		}
	}
	for _, id := range ids {
		for tier := aside.Tier(""); tier != aside.TierMemory; {
			r, err := aside.Lookup(context.Background(), c, products.Key(id), func(context.Context) (*product, error) { return newProduct(id), nil }, opts...)
			if err != nil {
				b.Fatal(err)
			}
			tier = r.Tier
		}
	}
	return c
}
