package asideotel_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asideotel"
	"github.com/gatewayz/aside/internal/redistest"
)

// points are the values of a metric by their attributes but for the name of the cache, as aside.hits{aside.label=models-label,aside.tier=memory}.
func points(t testing.TB, c *traced) map[string]float64 {
	t.Helper()
	all := make(map[string]float64)
	for name, m := range collected(t, c.reader) {
		put := func(set attribute.Set, v float64) {
			var texts []string
			for _, a := range set.ToSlice() {
				if a.Key != "aside.cache" {
					texts = append(texts, string(a.Key)+"="+a.Value.String())
				}
			}
			all[fmt.Sprintf("%s{%s}", name, strings.Join(texts, ","))] = v
		}
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range data.DataPoints {
				put(p.Attributes, float64(p.Value))
			}
		case metricdata.Gauge[int64]:
			for _, p := range data.DataPoints {
				put(p.Attributes, float64(p.Value))
			}
		case metricdata.Gauge[float64]:
			for _, p := range data.DataPoints {
				put(p.Attributes, p.Value)
			}
		case metricdata.Histogram[float64]:
			for _, p := range data.DataPoints {
				put(p.Attributes, float64(p.Count))
			}
		default:
			t.Errorf("%s is a %T", name, data)
		}
	}
	return all
}

func TestTheMetricsAreThoseOfTheCache(t *testing.T) {
	t.Parallel()
	spans := metric.NewManualReader()
	provider := metric.NewMeterProvider(metric.WithReader(spans))
	c, err := aside.New(aside.Options{
		Policies: []aside.Policy{models}, Backoff: -1, MaxEntries: 1000,
		Observer: asideotel.Observer(asideotel.Options{MeterProvider: provider}),
	})
	require.NoError(t, err)
	defer c.Close()
	of := &traced{Cache: c, reader: spans}
	stop, err := asideotel.Metrics(c, asideotel.Options{MeterProvider: provider})
	require.NoError(t, err)
	before := points(t, of)
	require.Contains(t, before, "aside.misses{aside.cause=expired,aside.label=models-label}", "all series are there from the start")
	require.Equal(t, 1.0, before["aside.state{aside.state=memory}"])
	require.Equal(t, 0.0, before["aside.state{aside.state=degraded}"])
	require.Equal(t, 1000.0, before["aside.memory.max_entries{}"])
	require.Positive(t, before["aside.state.since.timestamp{}"])

	for range 3 {
		_, err := aside.GetOrLoad(t.Context(), c, models.Key("a"), value("v"))
		require.NoError(t, err)
	}
	_, err = aside.GetOrLoad(t.Context(), c, models.Key("none"), func(context.Context) (string, error) { return "", aside.ErrNotFound })
	require.ErrorIs(t, err, aside.ErrNotFound)
	_, err = c.InvalidateTags(t.Context(), "x")
	require.NoError(t, err)
	after := points(t, of)
	for name, v := range map[string]float64{
		"aside.hits{aside.label=models-label,aside.tier=memory}":                2,
		"aside.misses{aside.cause=absent,aside.label=models-label}":             2,
		"aside.loads{aside.label=models-label,aside.outcome=ok}":                1,
		"aside.loads{aside.label=models-label,aside.outcome=not_found}":         1,
		"aside.memory.entries{}":                                                2,
		"aside.invalidations{aside.by=tags}":                                    1,
		"aside.load.duration{aside.label=models-label,aside.outcome=ok}":        1,
		"aside.call.duration{aside.label=models-label,aside.status=miss}":       2,
		"aside.load.duration{aside.label=models-label,aside.outcome=not_found}": 1,
	} {
		require.Equal(t, v, after[name], name)
	}
	require.NoError(t, c.Close())
	closed := points(t, of)
	require.Equal(t, 1.0, closed["aside.state{aside.state=degraded}"])
	require.NotContains(t, closed, "aside.state.since.timestamp{}")
	require.Equal(t, 2.0, closed["aside.hits{aside.label=models-label,aside.tier=memory}"], "counters keep their values")
	require.NoError(t, stop())
	require.NotContains(t, points(t, of), "aside.hits{aside.label=models-label,aside.tier=memory}")
}

// Two caches of one provider are told apart by their names. Several readers collect at once.
func TestTwoCachesWithOneProvider(t *testing.T) {
	t.Parallel()
	first, second := metric.NewManualReader(), metric.NewManualReader()
	provider := metric.NewMeterProvider(metric.WithReader(first), metric.WithReader(second))
	for i, name := range []string{"", "sessions"} {
		c, err := aside.New(aside.Options{Policies: []aside.Policy{models}, MaxEntries: 100 + i})
		require.NoError(t, err)
		defer c.Close()
		stop, err := asideotel.Metrics(c, asideotel.Options{Name: name, MeterProvider: provider})
		require.NoError(t, err)
		defer func() { require.NoError(t, stop()) }()
	}
	var readers sync.WaitGroup
	for _, reader := range []metric.Reader{first, second, first, second} {
		readers.Go(func() {
			bounds := make(map[string]int64)
			for _, p := range collected(t, reader)["aside.memory.max_entries"].Data.(metricdata.Sum[int64]).DataPoints {
				bounds[texts(p.Attributes.ToSlice())["aside.cache"]] = p.Value
			}
			require.Equal(t, map[string]int64{"default": 100, "sessions": 101}, bounds)
		})
	}
	readers.Wait()
}

func TestServersAreObserved(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	reader := metric.NewManualReader()
	c, err := aside.New(aside.Options{Redis: rueidis.ClientOption{InitAddress: []string{server.Addr()}, ForceSingleClient: true}, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer c.Close()
	stop, err := asideotel.Metrics(c, asideotel.Options{MeterProvider: metric.NewMeterProvider(metric.WithReader(reader))})
	require.NoError(t, err)
	defer func() { require.NoError(t, stop()) }()
	up := "aside.redis.up{aside.node=" + server.Addr() + "}"
	trips := func(cause string) string {
		return "aside.redis.trips{aside.cause=" + cause + ",aside.node=" + server.Addr() + "}"
	}
	require.Eventually(t, func() bool { return points(t, &traced{reader: reader})[up] == 1 }, time.Minute, 5*time.Millisecond)
	all := points(t, &traced{reader: reader})
	for cause := range c.Nodes()[0].Trips {
		require.Contains(t, all, trips(cause))
	}
	server.Kill()
	require.Eventually(t, func() bool { return points(t, &traced{reader: reader})[trips("broken")] == 1 }, time.Minute, 5*time.Millisecond)
	require.Eventually(t, func() bool { return points(t, &traced{reader: reader})[up] == 0 }, time.Minute, 5*time.Millisecond)
}

func TestANilCacheIsDegraded(t *testing.T) {
	t.Parallel()
	reader := metric.NewManualReader()
	stop, err := asideotel.Metrics(nil, asideotel.Options{MeterProvider: metric.NewMeterProvider(metric.WithReader(reader))})
	require.NoError(t, err)
	require.Equal(t, 1.0, points(t, &traced{reader: reader})["aside.state{aside.state=degraded}"])
	require.NoError(t, stop())
}

func TestWrongOptions(t *testing.T) {
	t.Parallel()
	c, err := aside.New(aside.Options{})
	require.NoError(t, err)
	defer c.Close()
	_, err = asideotel.Metrics(c, asideotel.Options{Name: "\xff"})
	require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidOption})
	require.ErrorContains(t, err, "asideotel.Options.Name")
}

// Labels that are not UTF-8 are shown with U+FFFD, and counted together where they then look the same.
func TestLabelsThatAreNotUTF8(t *testing.T) {
	t.Parallel()
	reader := metric.NewManualReader()
	var policies []aside.Policy
	for _, label := range []string{"\xfe", "\xff"} {
		policies = append(policies, aside.Policy{Name: label, Category: "models", Label: label, TTL: time.Hour})
	}
	c, err := aside.New(aside.Options{Policies: policies})
	require.NoError(t, err)
	defer c.Close()
	for i, p := range policies {
		_, err := aside.GetOrLoad(t.Context(), c, p.Key(i), value("v"))
		require.NoError(t, err)
	}
	stop, err := asideotel.Metrics(c, asideotel.Options{MeterProvider: metric.NewMeterProvider(metric.WithReader(reader))})
	require.NoError(t, err)
	require.Equal(t, 2.0, points(t, &traced{reader: reader})["aside.misses{aside.cause=absent,aside.label=\uFFFD}"])
	require.NoError(t, stop())
}

// The page lists each metric, and each attribute of a span. A name is that of asideprom with dots: an exporter for Prometheus makes the same of it.
func TestThePageHasEachMetricAndAttribute(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile("../docs/observability.md")
	require.NoError(t, err)
	section := func(title string) string {
		_, page, found := strings.Cut(string(file), "\n## "+title+"\n")
		require.True(t, found, title)
		page, _, _ = strings.Cut(page, "\n## ")
		return page
	}
	page := section("OpenTelemetry")
	// firsts are the names in the first column of the tables whose first heading is this one.
	firsts := func(page, heading string) (all []string) {
		for _, table := range strings.Split(page, "\n\n") {
			if !strings.HasPrefix(table, "| "+heading+" |") {
				continue
			}
			for _, row := range strings.Split(strings.TrimSpace(table), "\n")[2:] {
				for _, name := range regexp.MustCompile("`([\\w.]+)`").FindAllStringSubmatch(strings.Split(row, "|")[1], -1) {
					all = append(all, name[1])
				}
			}
		}
		return all
	}
	reader := metric.NewManualReader()
	provider := metric.NewMeterProvider(metric.WithReader(reader))
	c, err := aside.New(aside.Options{
		Policies: []aside.Policy{models}, Observer: asideotel.Observer(asideotel.Options{MeterProvider: provider}), Logger: slog.New(slog.DiscardHandler),
		Redis: rueidis.ClientOption{InitAddress: []string{"127.0.0.1:1"}, ForceSingleClient: true}, // a server that is away has metrics
	})
	require.NoError(t, err)
	defer c.Close()
	_, err = aside.GetOrLoad(t.Context(), c, models.Key("a"), value("v"))
	require.NoError(t, err)
	stop, err := asideotel.Metrics(c, asideotel.Options{MeterProvider: provider})
	require.NoError(t, err)
	defer func() { require.NoError(t, stop()) }()
	var described, exported []string
	for name, m := range collected(t, reader) {
		described = append(described, name)
		exported = append(exported, inPrometheus(name, m))
	}
	require.ElementsMatch(t, described, firsts(page, "metric"))
	own := []string{"aside_info", "aside_value_bytes", "aside_redis_duration_seconds", "aside_tracking"} // that one of them has alone
	of := func(all []string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(name string) bool { return slices.Contains(own, name) })
	}
	require.ElementsMatch(t, of(firsts(section("Prometheus"), "metric")), of(exported))

	var attributes []string
	for _, name := range []string{"spans.go", "redis.go"} {
		source, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`attribute\.\w+\("([\w.]+)"`).FindAllStringSubmatch(string(source), -1) {
			attributes = append(attributes, m[1])
		}
	}
	slices.Sort(attributes)
	require.ElementsMatch(t, slices.Compact(attributes), firsts(page, "attribute"))

	example, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	program := regexp.MustCompile("(?s)```go\n(.*?)```").FindStringSubmatch(page)
	require.NotNil(t, program)
	require.Contains(t, string(example), "\t"+strings.ReplaceAll(strings.TrimSuffix(program[1], "\n"), "\n", "\n\t"))
}

// inPrometheus is the name that exporters make.
func inPrometheus(name string, m metricdata.Metrics) string {
	name = strings.ReplaceAll(name, ".", "_")
	if m.Unit == "s" {
		name += "_seconds"
	}
	if sum, ok := m.Data.(metricdata.Sum[int64]); ok && sum.IsMonotonic {
		name += "_total"
	}
	return name
}
