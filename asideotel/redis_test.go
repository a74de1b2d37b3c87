package asideotel_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	otrace "go.opentelemetry.io/otel/trace"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asideotel"
	"github.com/gatewayz/aside/internal/redistest"
)

func openAt(t *testing.T, addr string, o asideotel.Options) *traced {
	t.Helper()
	c := open(t, aside.Options{Redis: rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: true}, OpTimeout: time.Minute}, o)
	eventually(t, "the cache connects", func() bool { return c.Health().State == aside.StateConnected })
	return c
}

func TestSpansOfRoundTripsToRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := openAt(t, server.Addr(), asideotel.Options{RedisSpans: true})
	c.within("program", func(ctx context.Context) {
		_, err := aside.GetOrLoad(ctx, c.Cache, models.Key("a"), value("v"))
		require.NoError(t, err)
	})
	call := c.one(t, "aside.call models-label")
	var below []string
	eventually(t, "the value is stored", func() bool {
		below = nil
		for _, span := range c.spans.Ended() {
			if span.Parent().SpanID() == call.SpanContext().SpanID() && span.SpanKind() == otrace.SpanKindClient {
				below = append(below, span.Name())
			}
		}
		return len(below) >= 3 // it is read, its lease is taken, it is stored
	})
	for _, span := range c.spans.Ended() {
		if span.SpanKind() != otrace.SpanKindClient {
			continue
		}
		got := attributes(span)
		size, batch := got["db.operation.batch.size"]
		require.Equal(t, strings.HasPrefix(span.Name(), "PIPELINE"), batch, span.Name())
		if batch {
			n, err := strconv.Atoi(size)
			require.NoError(t, err)
			require.Greater(t, n, 1)
		}
		delete(got, "db.operation.batch.size")
		require.Equal(t, map[string]string{
			"db.system.name": "redis", "db.operation.name": span.Name(), "server.address": "127.0.0.1", "server.port": strconv.Itoa(server.Port()),
		}, got)
		require.Equal(t, codes.Unset, span.Status().Code)
	}
}

func TestRoundTripsHaveNoSpansByDefault(t *testing.T) {
	t.Parallel()
	c := openAt(t, redistest.Start(t).Addr(), asideotel.Options{})
	c.within("program", func(ctx context.Context) {
		_, err := aside.GetOrLoad(ctx, c.Cache, models.Key("a"), value("v"))
		require.NoError(t, err)
	})
	require.Len(t, c.spans.Started(), 3)
	eventually(t, "the value is stored", func() bool { return c.Metrics().Labels["models-label"].ValueBytes.Count == 1 })
}

// A replay and a sweep begin traces of their own, with links to the invalidations that they are for.
func TestSpansOfReplaysAndSweeps(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := openAt(t, server.Addr(), asideotel.Options{RedisSpans: true})
	require.NoError(t, aside.Set(context.Background(), c.Cache, models.Key("a"), "v"))
	c.within("program", func(ctx context.Context) {
		receipt, err := c.InvalidateCategory(ctx, "models")
		require.NoError(t, err)
		removed, err := receipt.WaitCleanup(ctx)
		require.NoError(t, err)
		require.EqualValues(t, 1, removed)
	})
	sweep := c.one(t, "aside.sweep")
	require.False(t, sweep.Parent().IsValid())
	requireLinks(t, sweep, c.one(t, "aside.invalidate category"))
	require.Equal(t, map[string]string{}, attributes(sweep))

	server.Kill()
	eventually(t, "the cache notices", func() bool { return c.Health().State == aside.StateDegraded })
	c.within("program", func(ctx context.Context) {
		receipt, err := c.Invalidate(ctx, models.Key("a"))
		require.NoError(t, err)
		require.False(t, receipt.Confirmed)
	})
	invalidation := c.one(t, "aside.invalidate keys")
	require.Equal(t, "unavailable", attributes(invalidation)["aside.cause"])
	server.Restart()
	var replay []string
	eventually(t, "it is sent again", func() bool {
		replay = nil
		for _, span := range c.spans.Ended() {
			if span.Name() == "aside.replay" {
				for _, link := range span.Links() {
					if link.SpanContext.SpanID() == invalidation.SpanContext().SpanID() {
						replay = append(replay, span.Name())
					}
				}
			}
		}
		return len(replay) > 0
	})
}

// The duration of each round trip is recorded, with or without spans.
func TestTheDurationsOfRoundTrips(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := openAt(t, server.Addr(), asideotel.Options{})
	_, err := aside.GetOrLoad(context.Background(), c.Cache, models.Key("a"), value("v"))
	require.NoError(t, err)
	eventually(t, "the value is stored", func() bool { return c.Metrics().Redis["fill"].Count > 0 })
	server.Kill()
	eventually(t, "the cache notices", func() bool { return c.Health().State == aside.StateDegraded })
	m := collected(t, c.reader)["db.client.operation.duration"]
	require.Equal(t, "s", m.Unit)
	names := make(map[string]uint64)
	for _, point := range m.Data.(metricdata.Histogram[float64]).DataPoints {
		got := texts(point.Attributes.ToSlice())
		names[got["db.operation.name"]] += point.Count
		delete(got, "db.operation.name")
		if got["error.type"] != "" {
			require.Contains(t, []string{"connection", "NOSCRIPT"}, got["error.type"])
			delete(got, "error.type")
		}
		require.Equal(t, map[string]string{"db.system.name": "redis", "server.address": "127.0.0.1", "server.port": strconv.Itoa(server.Port())}, got)
		require.Equal(t, []float64{0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10}, point.Bounds)
	}
	require.NotZero(t, names["PIPELINE"])
}
