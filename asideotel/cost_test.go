package asideotel_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/trace"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asideotel"
)

// A traceOf is what calls of a benchmark are a part of.
type traceOf struct {
	name    string
	sampler trace.Sampler // nil: of no trace
	most    float64       // allocations of a Begin with its End
}

var tracesOf = []traceOf{
	{"no trace", nil, 0},
	{"a trace that is not sampled", trace.NeverSample(), 4},
	{"a trace that is sampled", trace.AlwaysSample(), 7},
}

// operation returns a Begin with its End.
func (of traceOf) operation(tb testing.TB) func() {
	sampler := of.sampler
	if sampler == nil {
		sampler = trace.NeverSample()
	}
	provider := trace.NewTracerProvider(trace.WithSampler(sampler))
	tb.Cleanup(func() { require.NoError(tb, provider.Shutdown(context.Background())) })
	o := asideotel.Observer(asideotel.Options{TracerProvider: provider, MeterProvider: metric.NewMeterProvider()})
	ctx := context.Background()
	if of.sampler != nil {
		parent, span := provider.Tracer("program").Start(ctx, "program")
		tb.Cleanup(func() { span.End() })
		ctx = parent
	}
	op := aside.Op{Kind: aside.OpCall, Policy: "models", Label: "models", Key: "models:all", Keys: 1}
	end := aside.End{Took: 1000, Status: aside.StatusMiss, Tier: aside.TierOrigin, Cause: aside.CauseAbsent}
	return func() { o.End(o.Begin(ctx, op), op, end) }
}

func TestTheCostOfASpan(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates too")
	}
	for _, of := range tracesOf {
		n := testing.AllocsPerRun(100, of.operation(t))
		t.Logf("%s: %.0f allocations, at most %.0f", of.name, n, of.most)
		require.LessOrEqual(t, n, of.most, of.name)
	}
}

func BenchmarkSpan(b *testing.B) {
	for _, of := range tracesOf {
		b.Run(of.name, func(b *testing.B) {
			operation := of.operation(b)
			b.ReportAllocs()
			for b.Loop() {
				operation()
			}
		})
	}
}
