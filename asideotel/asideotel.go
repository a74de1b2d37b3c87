// Package asideotel makes OpenTelemetry traces and metrics of what an aside.Cache does:
//
//	c, err := aside.New(aside.Options{Observer: asideotel.Observer(asideotel.Options{})})
//	if err != nil {
//		log.Fatal(err)
//	}
//	stop, err := asideotel.Metrics(c, asideotel.Options{})
//
// Observer makes spans, and records the durations of calls, of loads and of requests to Redis. Metrics reads the counters of the cache at each collection.
// docs/observability.md lists spans, attributes and metrics.
package asideotel

import (
	"context"
	"runtime/debug"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/gatewayz/aside"
)

// Options are those of Observer and of Metrics. The zero value is ready.
type Options struct {
	// Name is the attribute aside.cache of every metric. Two caches with one MeterProvider need two names, or their figures are added up. Default: "default".
	Name string

	// TracerProvider and MeterProvider are where spans and metrics go. Default: the global ones of package otel.
	TracerProvider trace.TracerProvider
	MeterProvider  metric.MeterProvider

	// MemoryHits is the share, from 0 to 1, of hits in memory that have a span: see aside.Observer. Default: 0, none.
	MemoryHits float64

	// Keys returns what a span may tell of a key, of a pattern, tag or category that is invalidated: the attribute aside.key; nothing, if it returns an empty text. Keys can
	// name users: see aside.Cache.HashID. It must return soon, and may be called by many goroutines at once. Default: nothing.
	Keys func(key string) string

	// RedisSpans makes a client span for each round trip to Redis that belongs to a trace. Default: false.
	RedisSpans bool

	// RootSpans lets calls begin a trace that are not part of one. By default they have no spans. Work in the background, which are refreshes, checks, replays and sweeps,
	// always begins a trace of its own, with a link to the call that has led to it.
	RootSpans bool
}

// scope names this package to the providers.
const scope = "github.com/gatewayz/aside/asideotel"

func (o Options) withDefaults() Options {
	if o.Name == "" {
		o.Name = "default"
	}
	if o.TracerProvider == nil {
		o.TracerProvider = otel.GetTracerProvider()
	}
	if o.MeterProvider == nil {
		o.MeterProvider = otel.GetMeterProvider()
	}
	return o
}

func (o Options) meter() metric.Meter {
	return o.MeterProvider.Meter(scope, metric.WithInstrumentationVersion(version()))
}

// Observer makes an Observer for aside.Options. It has no errors: aside.New refuses a MemoryHits that is no share.
//
// The global providers are looked up at this time. They pass on to those that a program sets later.
func Observer(o Options) aside.Observer {
	o = o.withDefaults()
	t := &tracer{
		tracer: o.TracerProvider.Tracer(scope, trace.WithInstrumentationVersion(version())),
		keys:   o.Keys, redis: o.RedisSpans, roots: o.RootSpans,
	}
	times, err := newTimes(o)
	if err != nil {
		otel.Handle(err) // a provider that refuses an instrument gives one that records nothing, or that is not as it was asked for
	}
	return aside.Observer{
		MemoryHits: o.MemoryHits,
		Begin:      t.begin,
		End: func(ctx context.Context, op aside.Op, end aside.End) {
			t.end(ctx, op, end)
			times.record(ctx, op, end)
		},
	}
}

const module = "github.com/gatewayz/aside"

// version is the version of the library that the program was built with, empty if the build does not have it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		if m.Path != module {
			continue
		}
		for m.Replace != nil {
			m = m.Replace
		}
		if m.Version != "(devel)" {
			return m.Version
		}
	}
	return ""
}
