package bench

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/viccon/sturdyc"

	"github.com/gatewayz/aside"
)

// product is about 1.6 KB as JSON.
type product struct {
	ID          int
	Name        string
	Description string
	Tags        []string
	Prices      map[string]float64
}

func newProduct(id int) *product {
	p := &product{ID: id, Name: "product " + strconv.Itoa(id), Description: strings.Repeat("twelve bytes", 106), Prices: map[string]float64{}}
	for i := range 12 {
		p.Tags = append(p.Tags, "tag-"+strconv.Itoa(i))
		p.Prices["region-"+strconv.Itoa(i)] = float64(i)
	}
	return p
}

// items is a working set that fits into each cache; skewed walks through it as Zipf's law would, from a table, so that the
// walk itself costs nothing.
const items = 10_000

var (
	products = aside.Policy{Name: "products", Category: "products", TTL: time.Hour}
	skewed   = zipf(1 << 14)
)

func newCache(b *testing.B) *aside.Cache {
	c, err := aside.New(aside.Options{Policies: []aside.Policy{products}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

// BenchmarkHit is a hit in memory: otter's own Get is the floor, the others are aside's forms and a peer.
func BenchmarkHit(b *testing.B) {
	ctx := context.Background()

	b.Run("otter", otterHit)

	b.Run("aside/ready-key", func(b *testing.B) {
		c := newCache(b)
		keys := make([]aside.Key, items)
		for i := range keys {
			keys[i] = products.Key(i)
			if err := aside.Set(ctx, c, keys[i], newProduct(i)); err != nil {
				b.Fatal(err)
			}
		}
		load := func(context.Context) (*product, error) { panic("a miss") }
		walk(b, func(i int) *product {
			p, _ := aside.GetOrLoad(ctx, c, keys[i], load)
			return p
		})
	})

	b.Run("aside/readme-form", func(b *testing.B) {
		c := newCache(b)
		fill(b, c)
		walk(b, func(i int) *product {
			p, _ := aside.GetOrLoad(ctx, c, products.Key(i), func(ctx context.Context) (*product, error) { return missed(ctx, i) })
			return p
		})
	})

	b.Run("aside/loader", func(b *testing.B) {
		c := newCache(b)
		fill(b, c)
		loader := aside.NewLoader(c, products, missed)
		walk(b, func(i int) *product {
			p, _ := loader.Get(ctx, i)
			return p
		})
	})

	b.Run("sturdyc", func(b *testing.B) {
		cache := sturdyc.New[*product](100_000, 64, time.Hour, 10)
		names := make([]string, items)
		for i := range names {
			names[i] = "products:" + strconv.Itoa(i)
			cache.Set(names[i], newProduct(i))
		}
		fetch := func(context.Context) (*product, error) { panic("a miss") }
		walk(b, func(i int) *product {
			p, _ := cache.GetOrFetch(ctx, names[i], fetch)
			return p
		})
	})
}

// otterHit is the floor of all hits in memory.
func otterHit(b *testing.B) {
	ctx := context.Background()
	cache := otter.Must(&otter.Options[string, *product]{MaximumSize: 100_000})
	names := make([]string, items)
	for i := range names {
		names[i] = "products:" + strconv.Itoa(i)
		cache.Set(names[i], newProduct(i))
	}
	loader := otter.LoaderFunc[string, *product](func(context.Context, string) (*product, error) { panic("a miss") })
	walk(b, func(i int) *product {
		p, _ := cache.Get(ctx, names[i], loader)
		return p
	})
}

func missed(context.Context, int) (*product, error) { panic("a miss") }

func fill(b *testing.B, c *aside.Cache) {
	for i := range items {
		if err := aside.Set(context.Background(), c, products.Key(i), newProduct(i)); err != nil {
			b.Fatal(err)
		}
	}
}

// walk calls get on as many goroutines as there are processors.
func walk(b *testing.B, get func(i int) *product) {
	b.ReportAllocs()
	b.ResetTimer() // filling the cache is not what is measured
	b.RunParallel(func(pb *testing.PB) {
		for n := 0; pb.Next(); n++ {
			if i := skewed[n%len(skewed)]; get(i).ID != i {
				panic("another product")
			}
		}
	})
}
