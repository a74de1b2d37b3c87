package asideprom_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asideprom"
)

// text is a scrape in the text format.
func text(t testing.TB, registry prometheus.Gatherer) []byte {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	var all bytes.Buffer
	for _, f := range families {
		_, err := expfmt.MetricFamilyToText(&all, f)
		require.NoError(t, err)
	}
	return all.Bytes()
}

// The labels of policies in Options.Policies have all their series in the first scrape, at 0, and at most 70 each.
func TestSeriesBeginAtZeroAndKeepToTheirBudget(t *testing.T) {
	t.Parallel()
	credits := aside.Policy{Name: "credits", Category: "user", Label: "user_credits", TTL: time.Hour}
	c := open(t, aside.Options{Policies: []aside.Policy{models, credits}})
	registry := registered(t, c, asideprom.Options{})
	first := scraped(t, registry)
	for name, v := range first.counters() {
		require.Zero(t, v, name)
	}
	for _, label := range []string{"models", "user_credits"} {
		require.LessOrEqual(t, first.of(`{label="`+label+`"`), 70)
		require.Greater(t, first.of(`{label="`+label+`"`), 60)
	}
	lines := bytes.Count(text(t, registry), []byte(`,label="models"`))
	require.Equal(t, first.of(`{label="models"`), lines, "each is a line")
	for name, n := range map[string]int{"aside_hits_total": 2, "aside_misses_total": 6, "aside_loads_total": 7, "aside_errors_total": 4} {
		require.Equal(t, n, first.of(name+`{label="models",`), name)
	}

	for _, p := range []aside.Policy{models, {Name: "unlisted", Category: "unlisted", TTL: time.Hour}} {
		_, err := aside.GetOrLoad(t.Context(), c, p.Key("a"), value("v"))
		require.NoError(t, err)
	}
	second := scraped(t, registry)
	require.Equal(t, first.of(`{label="models"`), second.of(`{label="models"`), "calls add no series")
	require.Equal(t, first.of(`{label="models"`), second.of(`{label="unlisted"`))
	require.Len(t, second, len(first)+first.of(`{label="models"`))
	require.Less(t, len(first)-2*first.of(`{label="models"`), 50, "those without a label")
	require.Zero(t, second.of("aside_redis_"), "in memory mode there are none of Redis")
	requireLint(t, registry)
}

// A cache on Redis has more series, as many for each server, and they too begin at 0.
func TestSeriesOfRedisBeginAtZeroAndKeepToTheirBudget(t *testing.T) {
	t.Parallel()
	registry := registered(t, away(t), asideprom.Options{})
	all := scraped(t, registry)
	for name, v := range all.counters() {
		require.Zero(t, v, name)
	}
	require.Equal(t, 7, all.of(`node="`))
	require.Equal(t, 5*15, all.of("aside_redis_duration_seconds_"))
	require.Contains(t, all, `aside_redis_up{node="the server"}`)
	require.Zero(t, all[`aside_redis_up{node="the server"}`])
	require.Contains(t, string(text(t, registry)), `aside_redis_up{cache="default",node="`+nowhere+`"} 0`)
	require.LessOrEqual(t, all.of(`{label="models"`), 70)
	require.Less(t, len(all)-all.of(`{label="models"`), 130, "those without a label")
	requireLint(t, registry)
}

// A label of a policy that is counted under another one, since there are too many of them, has no series: they would stay 0 for ever.
func TestALabelThatIsNotCountedHasNoSeries(t *testing.T) {
	t.Parallel()
	const most, more = 1024, 50
	c := open(t, aside.Options{Policies: []aside.Policy{models}})
	for i := range most + more {
		p := aside.Policy{Category: fmt.Sprint("tenant ", i), TTL: time.Hour}
		require.NoError(t, aside.Set(t.Context(), c, p.Key("a"), "v"))
	}
	all := scraped(t, registered(t, c, asideprom.Options{}))
	require.Equal(t, most+2, all.of("aside_value_bytes_count{"), "that of the listed policy, and that of the others")
	require.EqualValues(t, more, all[`aside_value_bytes_count{label="(others)"}`])
	require.Contains(t, all, `aside_value_bytes_count{label="models"}`)
	delete(all, `aside_value_bytes_count{label="models"}`)
	for name, v := range all {
		if strings.HasPrefix(name, "aside_value_bytes_count{") {
			require.Positive(t, v, name)
		}
	}
}

// The causes, outcomes and invalidations that the library counts are those that have a series.
func TestNoCauseOutcomeOrInvalidationIsMissing(t *testing.T) {
	t.Parallel()
	c := open(t, aside.Options{})
	_, err := aside.GetOrLoad(t.Context(), c, models.Key("a"), value("v"))
	require.NoError(t, err)
	all, m := scraped(t, registered(t, c, asideprom.Options{})), c.Metrics()
	require.Equal(t, len(m.Labels["models"].Causes), all.of("aside_misses_total{"))
	for cause := range m.Labels["models"].Causes {
		require.Contains(t, all, fmt.Sprintf(`aside_misses_total{label="models",cause=%q}`, cause))
	}
	require.Equal(t, len(m.Labels["models"].Outcomes), all.of("aside_loads_total{"))
	for outcome := range m.Labels["models"].Outcomes {
		require.Contains(t, all, fmt.Sprintf(`aside_loads_total{label="models",outcome=%q}`, outcome))
	}
	require.Equal(t, len(m.Invalidations), all.of("aside_invalidations_total{"))
	for by := range m.Invalidations {
		require.Contains(t, all, fmt.Sprintf(`aside_invalidations_total{by=%q}`, by))
	}

	c = away(t)
	all, m = scraped(t, registered(t, c, asideprom.Options{})), c.Metrics()
	require.Equal(t, len(m.Redis), all.of("aside_redis_duration_seconds_count{"))
	for op := range m.Redis {
		require.Contains(t, all, fmt.Sprintf(`aside_redis_duration_seconds_count{op=%q}`, op))
	}
	trips := c.Nodes()[0].Trips
	require.Equal(t, len(trips), all.of("aside_redis_trips_total{"))
	for cause := range trips {
		require.Contains(t, all, fmt.Sprintf(`aside_redis_trips_total{cause=%q,node="the server"}`, cause))
	}
}

// No scrape loses a count or sees a counter decrease, while calls go on.
func TestScrapesUnderLoadLoseNoCount(t *testing.T) {
	t.Parallel()
	c := open(t, aside.Options{})
	registry := registered(t, c, asideprom.Options{Native: true})
	const callers, rounds, scrapes = 4, 300, 100
	var calls sync.WaitGroup
	began := make(chan struct{})
	for caller := range callers {
		calls.Go(func() {
			<-began
			for i := range rounds {
				key := models.Key(fmt.Sprint(caller, "/", i))
				for range 3 { // a load and two hits
					if _, err := aside.GetOrLoad(t.Context(), c, key, value("v")); err != nil {
						t.Error(err)
					}
				}
				_, _ = aside.GetOrLoad(t.Context(), c, models.Key("fails"), fails(errSource), aside.Refresh())
			}
		})
	}
	close(began)
	var last scrape
	for range scrapes {
		now := scraped(t, registry).counters()
		for name, v := range last {
			require.GreaterOrEqual(t, now[name], v, name)
		}
		last = now
	}
	calls.Wait()
	const loads = callers * rounds
	eventually(t, "all loads are counted", func() bool {
		s := scraped(t, registry)
		return s[`aside_loads_total{label="models",outcome="ok"}`] == loads && s[`aside_load_duration_seconds_count{label="models"}`] ==
			loads+s[`aside_loads_total{label="models",outcome="error"}`]
	})
	all := scraped(t, registry)
	require.EqualValues(t, 2*loads, all[`aside_hits_total{label="models",tier="memory"}`])
	require.EqualValues(t, loads, all[`aside_misses_total{label="models",cause="absent"}`])
	require.EqualValues(t, loads, all[`aside_misses_total{label="models",cause="asked"}`])
	require.EqualValues(t, loads, all[`aside_value_bytes_count{label="models"}`])
	require.EqualValues(t, 2*loads, all[`aside_call_duration_seconds_count{label="models"}`])
}

func TestANilCacheAndAClosedOneAreServed(t *testing.T) {
	t.Parallel()
	closed := open(t, aside.Options{Policies: []aside.Policy{models}})
	registry := registered(t, closed, asideprom.Options{})
	_, err := aside.GetOrLoad(t.Context(), closed, models.Key("a"), value("v"))
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	for name, of := range map[string]struct {
		registry prometheus.Gatherer
		mode     string
		misses   float64
	}{
		"nil":               {registered(t, nil, asideprom.Options{}), "", 0},
		"zero":              {registered(t, new(aside.Cache), asideprom.Options{}), "", 0},
		"closed":            {registry, "memory", 1},
		"closed before New": {registered(t, closed, asideprom.Options{}), "", 1},
	} {
		all := scraped(t, of.registry)
		require.EqualValues(t, 1, all[`aside_state{state="degraded"}`], name)
		require.Zero(t, all[`aside_state{state="memory"}`], name)
		require.Equal(t, 1, all.of(`aside_info{mode="`+of.mode+`",tracking="false",version="`), name)
		require.NotContains(t, all, "aside_state_since_timestamp_seconds", name)
		require.Equal(t, of.misses, all[`aside_misses_total{label="models",cause="absent"}`], name)
		requireLint(t, of.registry)
	}
}

func TestTwoCachesOfOneRegistryHaveTwoNames(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	for i, name := range []string{"", "sessions"} {
		c := open(t, aside.Options{Policies: []aside.Policy{models}})
		for range i + 1 {
			_, err := aside.Get[string](t.Context(), c, models.Key("a"))
			require.ErrorIs(t, err, aside.ErrMiss)
		}
		collector, err := asideprom.New(c, asideprom.Options{Name: name, Labels: prometheus.Labels{"region": "eu"}})
		require.NoError(t, err)
		require.NotPanics(t, func() { registry.MustRegister(collector) })
	}
	requireLint(t, registry)
	all := string(text(t, registry))
	require.Contains(t, all, "aside_misses_total{cache=\"default\",cause=\"absent\",label=\"models\",region=\"eu\"} 1\n")
	require.Contains(t, all, "aside_misses_total{cache=\"sessions\",cause=\"absent\",label=\"models\",region=\"eu\"} 2\n")

	same, err := asideprom.New(nil, asideprom.Options{Labels: prometheus.Labels{"region": "eu"}})
	require.NoError(t, err)
	var already prometheus.AlreadyRegisteredError
	require.ErrorAs(t, registry.Register(same), &already, "the second one of a name is refused, by an error")
}

// A label is any text. Whatever it is, the scrape has it, in a form that can be read back, and loses no count.
func TestHostileLabelsNeverFailAScrape(t *testing.T) {
	t.Parallel()
	shown := map[string]string{
		"a\"b": "a\"b", "line\nbreak": "line\nbreak", `back\slash`: `back\slash`, "{x=\"y\"} 1": "{x=\"y\"} 1", "\x00": "\x00", "é": "é", " ": " ",
		"# HELP": "# HELP", "\xff": "\uFFFD", "\xfe\xfd": "\uFFFD", "\uFFFD": "\uFFFD", "a\xc3": "a\uFFFD", strings.Repeat("x", 5000): strings.Repeat("x", 5000),
	}
	for _, listed := range []bool{true, false} {
		var policies []aside.Policy
		want := map[string]float64{}
		for label, as := range shown {
			policies = append(policies, aside.Policy{Name: fmt.Sprintf("%q", label), Category: "k", Label: label, TTL: time.Hour})
			want[as]++
		}
		var o aside.Options
		if listed {
			o.Policies = policies
		}
		c := open(t, o)
		registry := registered(t, c, asideprom.Options{Native: true})
		requireLint(t, registry)
		for _, p := range policies {
			_, err := aside.GetOrLoad(t.Context(), c, p.Key(p.Name), func(context.Context) (string, error) { return "v", nil })
			require.NoError(t, err)
		}
		eventually(t, "the loads are counted", func() bool { return int(scraped(t, registry)["aside_memory_entries"]) == len(shown) })
		requireLint(t, registry)

		parser := expfmt.NewTextParser(model.LegacyValidation)
		families, err := parser.TextToMetricFamilies(bytes.NewReader(text(t, registry)))
		require.NoError(t, err)
		got := map[string]float64{}
		for _, m := range families["aside_misses_total"].Metric {
			for _, l := range m.Label {
				if l.GetName() == "label" {
					got[l.GetValue()] += m.Counter.GetValue()
				}
			}
		}
		require.Equal(t, want, got)
		counts := map[string]float64{}
		for _, m := range families["aside_value_bytes"].Metric {
			for _, l := range m.Label {
				if l.GetName() == "label" {
					counts[l.GetValue()] += float64(m.Histogram.GetSampleCount())
				}
			}
		}
		require.Equal(t, want, counts)
	}
}

func TestWrongOptionsAreNamed(t *testing.T) {
	t.Parallel()
	for name, of := range map[string]struct {
		options asideprom.Options
		want    []string
	}{
		"prefix":               {asideprom.Options{Prefix: "my-cache"}, []string{`asideprom.Options.Prefix is "my-cache"`}},
		"prefix with a colon":  {asideprom.Options{Prefix: "a:b"}, []string{`asideprom.Options.Prefix is "a:b"`}},
		"prefix with a digit":  {asideprom.Options{Prefix: "1a"}, []string{`asideprom.Options.Prefix is "1a"`}},
		"prefix of two lines":  {asideprom.Options{Prefix: "a\n"}, []string{`asideprom.Options.Prefix is "a\n"`}},
		"name":                 {asideprom.Options{Name: "\xff"}, []string{`asideprom.Options.Name is "\xff"`}},
		"label name":           {asideprom.Options{Labels: prometheus.Labels{"a-b": "c"}}, []string{`asideprom.Options.Labels has the label "a-b": use`}},
		"label name, reserved": {asideprom.Options{Labels: prometheus.Labels{"__name__": "c"}}, []string{`asideprom.Options.Labels has the label "__name__": use`}},
		"label without a name": {asideprom.Options{Labels: prometheus.Labels{"": "c"}}, []string{`asideprom.Options.Labels has the label "": use`}},
		"label value":          {asideprom.Options{Labels: prometheus.Labels{"a": "\xff"}}, []string{`asideprom.Options.Labels["a"] is "\xff"`}},
		"several": {asideprom.Options{Prefix: "-", Labels: prometheus.Labels{"a b": "c", "cache": "c"}},
			[]string{"Options.Prefix", `the label "a b"`, `the label "cache", which the metrics have themselves`}},
	} {
		collector, err := asideprom.New(nil, of.options)
		require.Nil(t, collector, name)
		require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidOption}, name)
		for _, want := range of.want {
			require.ErrorContains(t, err, want, name)
		}
	}
	// Each label of the metrics is refused as a constant one, which would be there twice.
	labels := map[string]bool{"le": true}
	c := away(t)
	families, err := registered(t, c, asideprom.Options{}).Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, l := range f.Metric[0].Label {
			labels[l.GetName()] = true
		}
	}
	require.Len(t, labels, 14, labels)
	for name := range labels {
		_, err := asideprom.New(c, asideprom.Options{Labels: prometheus.Labels{name: "x"}})
		require.ErrorContains(t, err, fmt.Sprintf("has the label %q, which the metrics have themselves", name))
	}
}

func TestOptionsNameTheSeries(t *testing.T) {
	t.Parallel()
	c := open(t, aside.Options{Policies: []aside.Policy{models}})
	labels := prometheus.Labels{"region": "eu", "env": "a\"b\n"}
	registry := registered(t, c, asideprom.Options{Name: "a \"name\"", Prefix: "gateway_cache", Labels: labels})
	delete(labels, "region") // the collector keeps a copy
	requireLint(t, registry)
	for name := range scraped(t, registry) {
		require.True(t, strings.HasPrefix(name, "gateway_cache_"), name)
		require.Contains(t, name, `cache="a \"name\"",`)
		require.Contains(t, name, `env="a\"b\n",`)
		require.Contains(t, name, `region="eu"`)
	}
}

// The state is that of the scrape, and not that of New.
func TestTheStateFollowsTheCache(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		c := open(t, aside.Options{})
		registry := registered(t, c, asideprom.Options{})
		time.Sleep(1500 * time.Millisecond)
		all := scraped(t, registry)
		require.InDelta(t, float64(began.UnixNano())/1e9, all["aside_state_since_timestamp_seconds"], 1e-3)
		require.EqualValues(t, 1, all[`aside_state{state="memory"}`])
		require.NoError(t, c.Close())
		all = scraped(t, registry)
		require.Zero(t, all[`aside_state{state="memory"}`])
		require.EqualValues(t, 1, all[`aside_state{state="degraded"}`])
	})
}
