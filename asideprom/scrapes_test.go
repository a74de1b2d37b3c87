package asideprom_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asideprom"
	"github.com/gatewayz/aside/internal/redistest"
)

// A process that only stores values, such as one that imports them, has its sizes in the scrape.
func TestASetAloneIsCounted(t *testing.T) {
	t.Parallel()
	c := open(t, aside.Options{Policies: []aside.Policy{models}})
	registry := registered(t, c, asideprom.Options{})
	require.NoError(t, aside.Set(t.Context(), c, models.Key("a"), "v"))
	unlisted := aside.Policy{Name: "unlisted", Category: "unlisted", TTL: time.Hour}
	require.NoError(t, aside.Set(t.Context(), c, unlisted.Key("a"), "v"))
	all := scraped(t, registry)
	require.EqualValues(t, 1, all[`aside_value_bytes_count{label="models"}`])
	require.EqualValues(t, 1, all[`aside_value_bytes_count{label="unlisted"}`])
}

// Labels that are shown as one are added in one order: sums of fractions differ by the order, and a sum that decreases is a restart for rate.
func TestASumOfSeveralLabelsDoesNotDecrease(t *testing.T) {
	t.Parallel()
	c := open(t, aside.Options{})
	for i := range 8 {
		p := aside.Policy{Name: fmt.Sprint(i), Category: "k", Label: string([]byte{0xf8 + byte(i)}), TTL: time.Hour}
		for n := range 3 * (i + 1) {
			_, err := aside.GetOrLoad(t.Context(), c, p.Key(n), value("v"))
			require.NoError(t, err)
		}
	}
	registry := registered(t, c, asideprom.Options{})
	var sum float64
	eventually(t, "the loads are counted", func() bool {
		all := scraped(t, registry)
		sum = all["aside_load_duration_seconds_sum{label=\"\uFFFD\"}"]
		return all["aside_call_duration_seconds_count{label=\"\uFFFD\"}"] == 3*36 && all["aside_load_duration_seconds_count{label=\"\uFFFD\"}"] == 3*36
	})
	for range 200 {
		require.Equal(t, sum, scraped(t, registry)["aside_load_duration_seconds_sum{label=\"\uFFFD\"}"])
	}
}

// Scrapes in each format succeed while caches are made, used, closed and unregistered.
func TestScrapesWhileCachesComeAndGo(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	handler := promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
	var all sync.WaitGroup
	for i := range 3 {
		all.Go(func() {
			for n := range 10 {
				c, err := aside.New(aside.Options{Policies: []aside.Policy{models}})
				if err != nil {
					t.Error(err)
					return
				}
				collector, err := asideprom.New(c, asideprom.Options{Native: i%2 == 0})
				if err != nil {
					t.Error(err)
					return
				}
				wrapped := prometheus.WrapRegistererWith(prometheus.Labels{"worker": fmt.Sprint(i, n)}, registry)
				if err := wrapped.Register(collector); err != nil {
					t.Error(err)
				}
				for k := range 20 {
					_, _ = aside.GetOrLoad(context.Background(), c, models.Key(k), value("v"))
				}
				_ = c.Close()
				if !wrapped.Unregister(collector) {
					t.Error("not unregistered")
				}
			}
		})
	}
	for range 40 {
		for _, accept := range []string{"", "application/openmetrics-text;version=1.0.0", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"} {
			r := httptest.NewRequest("GET", "/metrics", nil)
			r.Header.Set("Accept", accept)
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			require.Equal(t, http.StatusOK, w.Code, w.Body.String())
		}
	}
	all.Wait()
}

// A closed cache retries no invalidation, so none waits: its alert says not to restart the process, and would fire for as long as that runs.
func TestNoInvalidationOfAClosedCacheWaits(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := connected(t, server.Addr())
	registry := registered(t, c, asideprom.Options{})
	server.Kill()
	_, err := c.InvalidateCategory(t.Context(), "models")
	require.NoError(t, err)
	require.EqualValues(t, 1, scraped(t, registry)["aside_invalidations_unconfirmed"])
	require.NoError(t, c.Close())
	all := scraped(t, registry)
	require.Contains(t, all, "aside_invalidations_unconfirmed")
	require.Zero(t, all["aside_invalidations_unconfirmed"])
	require.Zero(t, all["aside_invalidations_unconfirmed_oldest_seconds"])
	require.EqualValues(t, 1, all[`aside_invalidations_total{by="category"}`], "counters keep their values")
}

// Labels and prefixes that a registerer adds are added, or refused by an error.
func TestWrappedRegisterers(t *testing.T) {
	t.Parallel()
	for _, labels := range []prometheus.Labels{{"cache": "x"}, {"label": "x"}, {"tier": "x"}} {
		collector, err := asideprom.New(nil, asideprom.Options{})
		require.NoError(t, err)
		require.NotPanics(t, func() {
			require.Error(t, prometheus.WrapRegistererWith(labels, prometheus.NewRegistry()).Register(collector), labels)
		})
	}
	collector, err := asideprom.New(nil, asideprom.Options{})
	require.NoError(t, err)
	reg := prometheus.NewPedanticRegistry()
	require.NoError(t, prometheus.WrapRegistererWithPrefix("x_", reg).Register(collector))
	require.Contains(t, string(text(t, reg)), "x_aside_state")
}
