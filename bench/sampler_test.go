package bench

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/asideotel"
	"github.com/gatewayz/aside/asideprom"
)

// BenchmarkSampledHit compares hits in memory with Options.ConsistencyCheck at 1%, and with Options.HotKeys, with hits without them: see turns. The
// loader takes no time; Rate is the default, and what is drawn beyond it is dropped.
func BenchmarkSampledHit(b *testing.B) {
	with := func(o aside.Options) *aside.Cache { return filled(b, o) }
	on, hot := with(aside.Options{ConsistencyCheck: aside.ConsistencyCheck{SampleRate: 0.01}}), with(aside.Options{HotKeys: 100})
	turns(b, with(aside.Options{}), with(aside.Options{}), map[string]*aside.Cache{"on/off": on, "hot/off": hot})
	if len(hot.HotKeys()) == 0 { // which of them are hot takes more hits than one turn has
		b.Fatal("no hit was sampled")
	}
	m := on.Metrics().Labels["products"]
	for ended := time.Now(); m.Checked == 0 && time.Since(ended) < 10*time.Second; m = on.Metrics().Labels["products"] {
		time.Sleep(time.Millisecond) // the first check may be under way
	}
	if m.Checked == 0 || m.Inconsistent > 0 {
		b.Fatalf("%+v", m)
	}
}

// BenchmarkMountedHit compares hits in memory of a cache that everything is mounted at with those of one at which nothing is: an Observer that makes
// traces and is told of no hit in memory, both exports of metrics, each read ten times a second, and the handlers of asidehttp. In one benchmark
// only the Observer is there.
func BenchmarkMountedHit(b *testing.B) {
	spans := trace.NewTracerProvider(trace.WithSyncer(tracetest.NewNoopExporter()))
	observed := func() *aside.Cache {
		return filled(b, aside.Options{Observer: asideotel.Observer(asideotel.Options{TracerProvider: spans})})
	}
	mounted := observed()
	keys := asidehttp.Options{APIKeys: []aside.Secret{aside.NewSecret("a key of the benchmark, which nobody uses")}}
	mux := http.NewServeMux()
	mux.Handle("/invalidate", asidehttp.AdminHandler(mounted, keys))
	mux.Handle("/metrics", asidehttp.Metrics(mounted, keys))
	mux.Handle("/health", asidehttp.Health(mounted, asidehttp.HealthOptions{}))
	collector, err := asideprom.New(mounted, asideprom.Options{})
	if err != nil {
		b.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector)
	reader := metric.NewManualReader()
	stop, err := asideotel.Metrics(mounted, asideotel.Options{MeterProvider: metric.NewMeterProvider(metric.WithReader(reader))})
	if err != nil {
		b.Fatal(err)
	}
	over := make(chan struct{})
	var scrapes sync.WaitGroup
	scrapes.Go(func() {
		for tick := time.NewTicker(100 * time.Millisecond); ; {
			select {
			case <-over:
				return
			case <-tick.C:
			}
			var all metricdata.ResourceMetrics
			if _, err := registry.Gather(); err != nil {
				b.Error(err)
			}
			if err := reader.Collect(context.Background(), &all); err != nil {
				b.Error(err)
			}
		}
	})
	b.Cleanup(func() {
		close(over)
		scrapes.Wait()
		_ = stop()
	})
	turns(b, filled(b, aside.Options{}), filled(b, aside.Options{}), map[string]*aside.Cache{"observer/off": observed(), "mounted/off": mounted})
}

// filled opens a cache in memory mode that holds all products.
func filled(b *testing.B, o aside.Options) *aside.Cache {
	o.Policies, o.Logger = []aside.Policy{products}, slog.New(slog.DiscardHandler)
	c, err := aside.New(o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	for i := range items {
		if err := aside.Set(context.Background(), c, products.Key(i), newProduct(i)); err != nil {
			b.Fatal(err)
		}
	}
	return c
}

// turns compares hits in memory of caches, by all processors at once. On a machine that has other work, whole runs cannot be compared: so each round lets
// the caches take turns within milliseconds, and the medians of the rounds' ratios to off are reported, with that of another cache like off beside
// them, which is the noise.
func turns(b *testing.B, off, again *aside.Cache, others map[string]*aside.Cache) {
	ctx := context.Background()
	keys := make([]aside.Key, items)
	loaders := make([]func(context.Context) (*product, error), items)
	for i := range keys {
		keys[i] = products.Key(i)
		value := newProduct(i)
		loaders[i] = func(context.Context) (*product, error) { return value, nil }
	}
	const hits = 1 << 14 // about a millisecond
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
	names, caches := []string{"", "off/off"}, []*aside.Cache{off, again}
	for _, name := range slices.Sorted(maps.Keys(others)) {
		names, caches = append(names, name), append(caches, others[name])
	}
	var alone []float64
	ratios := make([][]float64, len(caches))
	took := make([]float64, len(caches))
	for n := 0; b.Loop(); n++ {
		for turn := range caches {
			i := (n + turn) % len(caches)
			took[i] = lap(caches[i])
		}
		alone = append(alone, took[0])
		for i := range caches {
			ratios[i] = append(ratios[i], took[i]/took[0])
		}
	}
	b.ReportMetric(median(alone), "ns/hit-off")
	for i, name := range names[1:] {
		b.ReportMetric(median(ratios[i+1]), name)
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
