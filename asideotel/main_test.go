package asideotel_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	otrace "go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asideotel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// models has a label that is not its category.
var models = aside.Policy{Name: "models-name", Category: "models", Label: "models-label", TTL: time.Hour}

// A traced is a cache whose spans are recorded.
type traced struct {
	*aside.Cache
	spans  *tracetest.SpanRecorder
	tracer otrace.Tracer // of the program
	reader *metric.ManualReader
}

func open(t testing.TB, a aside.Options, o asideotel.Options, sampler ...trace.TracerProviderOption) *traced {
	t.Helper()
	spans, reader := tracetest.NewSpanRecorder(), metric.NewManualReader()
	traces := trace.NewTracerProvider(append(sampler, trace.WithSpanProcessor(spans))...)
	meters := metric.NewMeterProvider(metric.WithReader(reader))
	o.TracerProvider, o.MeterProvider = traces, meters
	a.Observer, a.Backoff = asideotel.Observer(o), -1
	if a.Logger == nil {
		a.Logger = slog.New(slog.DiscardHandler)
	}
	c, err := aside.New(a)
	require.NoError(t, err)
	t.Cleanup(func() {
		c.Close()
		require.NoError(t, traces.Shutdown(context.Background()))
		require.NoError(t, meters.Shutdown(context.Background()))
		for _, span := range spans.Started() {
			require.False(t, span.EndTime().IsZero(), "%s has not ended", span.Name())
		}
		require.Len(t, spans.Ended(), len(spans.Started()))
	})
	return &traced{c, spans, traces.Tracer("program"), reader}
}

// within runs a call as a part of the program's span with this name.
func (c *traced) within(name string, call func(ctx context.Context)) {
	ctx, span := c.tracer.Start(context.Background(), name)
	defer span.End()
	call(ctx)
}

// named waits for so many ended spans with this name.
func (c *traced) named(t testing.TB, name string, n int) []trace.ReadOnlySpan {
	t.Helper()
	var found []trace.ReadOnlySpan
	eventually(t, name, func() bool {
		found = nil
		for _, span := range c.spans.Ended() {
			if span.Name() == name {
				found = append(found, span)
			}
		}
		return len(found) >= n
	})
	require.Len(t, found, n, name)
	return found
}

func (c *traced) one(t testing.TB, name string) trace.ReadOnlySpan {
	t.Helper()
	return c.named(t, name, 1)[0]
}

// attributes are the attributes of a span, as texts.
func attributes(span trace.ReadOnlySpan) map[string]string { return texts(span.Attributes()) }

func texts(list []attribute.KeyValue) map[string]string {
	all := make(map[string]string)
	for _, a := range list {
		all[string(a.Key)] = a.Value.String()
	}
	return all
}

// requireChild requires that a span is a child of another one.
func requireChild(t testing.TB, child, parent trace.ReadOnlySpan) {
	t.Helper()
	require.Equal(t, parent.SpanContext().SpanID(), child.Parent().SpanID(), "the parent of %s", child.Name())
	require.Equal(t, parent.SpanContext().TraceID(), child.SpanContext().TraceID())
}

// requireLinks requires that a span has links to these spans, and no others.
func requireLinks(t testing.TB, span trace.ReadOnlySpan, to ...trace.ReadOnlySpan) {
	t.Helper()
	require.Len(t, span.Links(), len(to), span.Name())
	for i, link := range span.Links() {
		require.Equal(t, to[i].SpanContext().SpanID(), link.SpanContext.SpanID(), span.Name())
	}
}

// eventually waits for a condition, far longer than it takes.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, time.Minute, time.Millisecond, what)
}

// collected are the metrics of this package, by their names.
func collected(t testing.TB, reader metric.Reader) map[string]metricdata.Metrics {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(context.Background(), &all))
	found := make(map[string]metricdata.Metrics)
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			found[m.Name] = m
		}
	}
	return found
}

func value(v string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return v, nil }
}
