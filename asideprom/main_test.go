package asideprom_test

import (
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asideprom"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var models = aside.Policy{Name: "models", Category: "models", TTL: time.Hour}

// open makes a cache that ends with its test.
func open(t testing.TB, o aside.Options) *aside.Cache {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	o.Backoff = -1 // tests repeat a failed load at once
	c, err := aside.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// nowhere is an address where no server is.
const nowhere = "127.0.0.1:1"

// away makes a cache whose Redis cannot be reached.
func away(t testing.TB) *aside.Cache { return open(t, at(nowhere)) }

// registered is a registry with a collector for c. It is pedantic: it compares what is collected with what is described.
func registered(t testing.TB, c *aside.Cache, o asideprom.Options) *prometheus.Registry {
	t.Helper()
	collector, err := asideprom.New(c, o)
	require.NoError(t, err)
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(collector))
	return registry
}

// A scrape is the value of each series, by its name and labels in the text format, without the label "cache" of the default name.
type scrape map[string]float64

func scraped(t testing.TB, registry prometheus.Gatherer) scrape {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	all := scrape{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := func(suffix string, more ...string) string { return series(f.GetName()+suffix, m.Label, more...) }
			switch h := m.Histogram; {
			case h != nil:
				all[name("_count")], all[name("_sum")] = float64(h.GetSampleCount()), h.GetSampleSum()
				for _, b := range h.Bucket {
					all[name("_bucket", fmt.Sprintf("le=%q", fmt.Sprint(b.GetUpperBound())))] = float64(b.GetCumulativeCount())
				}
				all[name("_bucket", `le="+Inf"`)] = float64(h.GetSampleCount())
			case m.Counter != nil:
				all[name("")] = m.Counter.GetValue()
			default:
				all[name("")] = m.Gauge.GetValue()
			}
		}
	}
	return all
}

func series(name string, labels []*dto.LabelPair, more ...string) string {
	var pairs []string
	for _, l := range labels {
		switch pair := fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()); {
		case pair == `cache="default"`:
		case l.GetName() == "node":
			pairs = append(pairs, `node="the server"`) // its port is another one in each run
		case l.GetName() == "label":
			pairs = append([]string{pair}, pairs...) // first, as a reader would write it
		default:
			pairs = append(pairs, pair)
		}
	}
	if pairs = append(pairs, more...); len(pairs) == 0 {
		return name
	}
	return name + "{" + strings.Join(pairs, ",") + "}"
}

// of is the number of series that contain a text.
func (s scrape) of(text string) (n int) {
	for name := range s {
		if strings.Contains(name, text) {
			n++
		}
	}
	return n
}

// counters are the series that must not decrease.
func (s scrape) counters() scrape {
	only := scrape{}
	for name, v := range s {
		base, _, _ := strings.Cut(name, "{")
		for _, suffix := range []string{"_total", "_bucket", "_count", "_sum"} {
			if strings.HasSuffix(base, suffix) {
				only[name] = v
			}
		}
	}
	return only
}

// requireLint requires that the registry gathers without an error, and that promlint has nothing to say.
func requireLint(t testing.TB, registry prometheus.Gatherer) {
	t.Helper()
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	require.Empty(t, problems)
}

// eventually waits for a condition, far longer than it takes.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, time.Minute, 5*time.Millisecond, what)
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-6 }
