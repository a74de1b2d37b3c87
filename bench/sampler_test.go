package bench

import (
	"context"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gatewayz/aside"
)

// BenchmarkSampledHit compares hits in memory with Options.ConsistencyCheck at 1%, and with Options.HotKeys, with hits without them, by all processors at once. On a
// machine that has other work, whole runs cannot be compared: so each round lets the caches take turns within milliseconds,
// and the medians of the rounds' ratios are reported, with that of two caches without checks beside it, which is the noise. The
// loader takes no time; Rate is the default, and what is drawn beyond it is dropped.
func BenchmarkSampledHit(b *testing.B) {
	ctx := context.Background()
	keys := make([]aside.Key, items)
	values := make([]*product, items)
	loaders := make([]func(context.Context) (*product, error), items)
	for i := range keys {
		keys[i], values[i] = products.Key(i), newProduct(i)
		loaders[i] = func(context.Context) (*product, error) { return values[i], nil }
	}
	open := func(o aside.Options) *aside.Cache {
		o.Policies, o.Logger = []aside.Policy{products}, slog.New(slog.DiscardHandler)
		c, err := aside.New(o)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		for i, key := range keys {
			if err := aside.Set(ctx, c, key, values[i]); err != nil {
				b.Fatal(err)
			}
		}
		return c
	}
	off, again := open(aside.Options{}), open(aside.Options{})
	on, hot := open(aside.Options{ConsistencyCheck: aside.ConsistencyCheck{SampleRate: 0.01}}), open(aside.Options{HotKeys: 100})

	const hits = 1 << 14 // about a millisecond
	var alone []float64
	lap := func(c *aside.Cache) float64 {
		var all sync.WaitGroup
		began := time.Now()
		for range runtime.GOMAXPROCS(0) {
			all.Go(func() {
				for n := range hits {
					if i := skewed[n%len(skewed)]; must(aside.GetOrLoad(ctx, c, keys[i], loaders[i])).ID != i {
						panic("another product")
					}
				}
			})
		}
		all.Wait()
		return float64(time.Since(began).Nanoseconds()) / float64(runtime.GOMAXPROCS(0)*hits)
	}
	var noise, cost, hotCost []float64
	for n := 0; b.Loop(); n++ {
		caches := []*aside.Cache{off, again, on, hot}
		var took [4]float64
		for turn := range caches {
			i := (n + turn) % len(caches)
			took[i] = lap(caches[i])
		}
		alone = append(alone, took[0])
		noise, cost, hotCost = append(noise, took[1]/took[0]), append(cost, took[2]/took[0]), append(hotCost, took[3]/took[0])
	}
	b.ReportMetric(median(alone), "ns/hit-off")
	b.ReportMetric(median(noise), "off/off")
	b.ReportMetric(median(cost), "on/off")
	b.ReportMetric(median(hotCost), "hot/off")
	if top := hot.HotKeys(); len(top) == 0 || top[0].Share < 2*top[0].Within {
		b.Fatalf("no key is hot: %+v", top)
	}
	m := on.Metrics().Labels["products"]
	for ended := time.Now(); m.Checked == 0 && time.Since(ended) < 10*time.Second; m = on.Metrics().Labels["products"] {
		time.Sleep(time.Millisecond) // the first check may be under way
	}
	if m.Checked == 0 || m.Inconsistent > 0 {
		b.Fatalf("%+v", m)
	}
}

func must(p *product, err error) *product {
	if err != nil {
		panic(err)
	}
	return p
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}
