package asideprom_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/asideprom"
	"github.com/gatewayz/aside/internal/redistest"
)

// A monitor is a real Prometheus.
type monitor struct {
	t    *testing.T
	base string
	log  string
}

// startMonitor has a Prometheus scrape a target each second, with the rules.
func startMonitor(t *testing.T, program, target string, args ...string) *monitor {
	t.Helper()
	dir := t.TempDir()
	rules, config := filepath.Join(dir, "aside.rules.yml"), filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(rules, asideprom.Rules(), 0o600))
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs: [{job_name: gateway, static_configs: [{targets: [%q]}]}]
`, rules, target), 0o600))
	addr := fmt.Sprint("127.0.0.1:", redistest.FreePort(t))
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	defer log.Close()
	cmd := exec.Command(program, append(args, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr)...)
	cmd.Stdout, cmd.Stderr = log, log
	process := redistest.StartProgram(t, cmd)
	m := &monitor{t, "http://" + addr, log.Name()}
	eventually(t, "prometheus is ready", func() bool {
		select {
		case <-process.Done():
			t.Fatalf("prometheus has ended: %s", m.logged())
		default:
		}
		_, err := fetch(m.base + "/-/ready")
		return err == nil
	})
	return m
}

func (m *monitor) logged() string {
	text, err := os.ReadFile(m.log)
	require.NoError(m.t, err)
	return string(text)
}

func fetch(address string) ([]byte, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(address)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return body, err
}

// ask reads data from the HTTP API.
func (m *monitor) ask(path string, parameters url.Values, data any) {
	m.t.Helper()
	body, err := fetch(m.base + "/api/v1/" + path + "?" + parameters.Encode())
	require.NoError(m.t, err)
	require.NoError(m.t, json.Unmarshal(body, &struct{ Data any }{data}))
}

// values are those of an instant query, without its labels.
func (m *monitor) values(query string) (all []float64) {
	m.t.Helper()
	var data struct {
		Result []struct{ Value [2]any }
	}
	m.ask("query", url.Values{"query": {query}}, &data)
	for _, r := range data.Result {
		v, err := strconv.ParseFloat(fmt.Sprint(r.Value[1]), 64)
		require.NoError(m.t, err)
		all = append(all, v)
	}
	return all
}

// most is the largest value that a graph of the last minute has, NaN without a series.
func (m *monitor) most(query string) float64 {
	m.t.Helper()
	most := math.NaN()
	for _, v := range m.values("max_over_time((" + query + ")[1m:1s])") {
		if math.IsNaN(most) || v > most {
			most = v
		}
	}
	return most
}

// scrapes is how often the target was scraped.
func (m *monitor) scrapes() float64 {
	m.t.Helper()
	sum := 0.0
	for _, v := range m.values("count_over_time(up[10m])") {
		sum += v
	}
	return sum
}

// grafana fills in what Grafana puts in place of variables.
var grafana = strings.NewReplacer("$__rate_interval", "4s", "$job", "gateway", "$cache", "default|in memory", "$label", ".*")

// A real Prometheus takes the rules, and each query of the dashboard shows what there is of it, with classic histograms and with native ones.
func TestPrometheusShowsWhatTheDashboardAsksFor(t *testing.T) {
	t.Parallel()
	program := installed(t, "prometheus")
	w := newWorkload(t)
	mux := http.NewServeMux()
	for path, native := range map[string]bool{"/metrics": false, "/native/metrics": true} {
		registry := registered(t, w.cache, asideprom.Options{Native: native})
		inMemory, err := asideprom.New(w.local, asideprom.Options{Name: "in memory", Native: native})
		require.NoError(t, err)
		registry.MustRegister(inMemory)
		mux.Handle(path, promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	}
	classic, native := httptest.NewServer(mux), httptest.NewServer(under("/native", mux))
	t.Cleanup(classic.Close)
	t.Cleanup(native.Close)
	monitors := map[string]*monitor{
		"classic": startMonitor(t, program, classic.Listener.Addr().String()),
		"native":  startMonitor(t, program, native.Listener.Addr().String(), "--enable-feature=native-histograms"),
	}
	scraped := func() { // twice, so that a rate has two samples
		before := map[string]float64{}
		for name, m := range monitors {
			before[name] = m.scrapes()
		}
		eventually(t, "the cache is scraped", func() bool {
			for name, m := range monitors {
				if m.scrapes() < before[name]+2 {
					return false
				}
			}
			return true
		})
	}
	scraped()

	left := map[string][]query{"classic": queries(t), "native": queries(t)}
	for deadline := time.Now().Add(2 * time.Minute); ; {
		w.run(scraped)
		scraped()
		for name, m := range monitors {
			left[name] = slices.DeleteFunc(left[name], func(q query) bool {
				most := m.most(grafana.Replace(q.text))
				// The cache pauses tracking after a minute without calls, for which this test does not wait.
				return most > 0 && !math.IsInf(most, 0) || most == 0 && strings.Contains(q.text, "aside_tracking_paused_total")
			})
		}
		if len(left["classic"])+len(left["native"]) == 0 {
			break
		}
		require.True(t, time.Now().Before(deadline), "these show nothing: %v", left)
	}
	t.Logf("after %d rounds each query has shown something", w.round)
	for name, m := range monitors {
		require.True(t, math.IsNaN(m.most("aside_there_is_no_such_metric")), "the check notices a query that finds nothing")
		buckets := m.values("count(aside_load_duration_seconds_bucket)")
		require.Equal(t, name == "native", len(buckets) == 0, "%s: a server of native histograms drops the classic ones", name)
		m.requireRules()
		for line := range strings.Lines(m.logged()) {
			require.NotRegexp(t, `level=(warn|error)`, line)
		}
	}
}

// under is a handler that finds a handler's paths below a prefix.
func under(prefix string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = prefix + r.URL.Path
		h.ServeHTTP(w, r)
	})
}

// requireRules requires that each rule was evaluated, without an error.
func (m *monitor) requireRules() {
	m.t.Helper()
	type rule struct{ Name, Health, LastError string }
	var data struct {
		Groups []struct{ Rules []rule }
	}
	m.ask("rules", nil, &data)
	require.Len(m.t, data.Groups, 1)
	require.Len(m.t, data.Groups[0].Rules, len(alerts())+1)
	for _, r := range data.Groups[0].Rules {
		require.Equal(m.t, rule{Name: r.Name, Health: "ok"}, r)
	}
	require.NotEmpty(m.t, m.values("job_cache_label:aside_hit_ratio:rate30m"))
}
