package asideotel_test

import (
	"context"
	"fmt"
	"log"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asideotel"
)

func Example() {
	spans := tracetest.NewInMemoryExporter()
	traces := trace.NewTracerProvider(trace.WithSyncer(spans)) // a program sets its providers for all by otel.SetTracerProvider
	meters := metric.NewMeterProvider()
	defer func() {
		_ = traces.Shutdown(context.Background())
		_ = meters.Shutdown(context.Background())
	}()

	options := asideotel.Options{TracerProvider: traces, MeterProvider: meters}
	c, err := aside.New(aside.Options{Observer: asideotel.Observer(options)})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	stop, err := asideotel.Metrics(c, options)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = stop() }()

	ctx, request := traces.Tracer("program").Start(context.Background(), "GET /models")
	for range 3 { // two of them are hits in memory, without a span
		_, err := aside.GetOrLoad(ctx, c, aside.TTL.ModelsAll.Key("all"), func(ctx context.Context) (string, error) {
			_, query := traces.Tracer("program").Start(ctx, "SELECT models")
			defer query.End()
			return "a catalogue", nil
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	request.End()

	names := make(map[string]string)
	for _, span := range spans.GetSpans() {
		names[span.SpanContext.SpanID().String()] = span.Name
	}
	for _, span := range spans.GetSpans() {
		fmt.Printf("%s, below %q\n", span.Name, names[span.Parent.SpanID().String()])
	}
	// Output:
	// SELECT models, below "aside.load models"
	// aside.load models, below "aside.call models"
	// aside.call models, below "GET /models"
	// GET /models, below ""
}
