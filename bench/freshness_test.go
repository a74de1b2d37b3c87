package bench

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/gatewayz/aside"
)

// BenchmarkFreshness is a hit in memory of a policy that has values loaded anew in the background: of values that are fresh, which must cost what
// it costs without that, and of values past their TTL, each of which is being loaded all the time. The keys are few: popular ones, as a caller looks
// once in a second whether such a load is still under way.
func BenchmarkFreshness(b *testing.B) {
	plain := aside.Policy{Name: "products", Category: "products", TTL: time.Hour, LoadTimeout: time.Hour}
	fresh, stale := plain, plain
	fresh.Stale, fresh.RefreshAhead = time.Hour, 0.1
	stale.Stale, stale.TTL = time.Hour, 50*time.Millisecond
	for _, f := range []struct {
		name   string
		policy aside.Policy
	}{{"no-strategy", plain}, {"fresh", fresh}, {"stale", stale}} {
		b.Run(f.name, func(b *testing.B) {
			ctx := context.Background()
			over := make(chan struct{})
			hang := func(context.Context) (*product, error) { <-over; return template, nil }
			c, err := aside.New(aside.Options{Policies: []aside.Policy{f.policy}, MaxLoads: 1000, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() {
				close(over)
				c.Close()
			})
			keys := make([]aside.Key, 100)
			for i := range keys {
				keys[i] = f.policy.Key(i)
				if err := aside.Set(ctx, c, keys[i], newProduct(i)); err != nil {
					b.Fatal(err)
				}
			}
			if f.policy.TTL < time.Second { // from here on each is past it, and being loaded
				time.Sleep(f.policy.TTL)
				for _, key := range keys {
					if _, err := aside.GetOrLoad(ctx, c, key, hang); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.Run("ready-key", func(b *testing.B) {
				hot(b, len(keys), func(i int) *product {
					p, _ := aside.GetOrLoad(ctx, c, keys[i], hang)
					return p
				})
			})
			b.Run("readme-form", func(b *testing.B) {
				hot(b, len(keys), func(i int) *product {
					p, _ := aside.GetOrLoad(ctx, c, f.policy.Key(i), func(ctx context.Context) (*product, error) { return hang(ctx) })
					return p
				})
			})
			if stale := c.Metrics().Labels["products"].StaleHits > 0; stale != (f.name == "stale") {
				b.Errorf("stale hits: %v", stale)
			}
		})
	}
}

// hot is walk over few keys, which are all as popular.
func hot(b *testing.B, keys int, get func(i int) *product) {
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i = (i + 1) % keys {
			if get(i).ID != i {
				panic("another product")
			}
		}
	})
}
