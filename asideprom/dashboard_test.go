package asideprom_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/asideprom"
)

// A query of the dashboard, and the panel that has it.
type query struct{ panel, text string }

func queries(t testing.TB) (all []query) {
	t.Helper()
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(asideprom.Dashboard(), &board))
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			all = append(all, query{p.Title, target.Expr})
		}
	}
	require.NotEmpty(t, all)
	return all
}

// described are the names of the metrics that a collector describes, and of the series that a histogram has.
func described(t testing.TB) map[string]bool {
	t.Helper()
	collector, err := asideprom.New(nil, asideprom.Options{})
	require.NoError(t, err)
	descs := make(chan *prometheus.Desc, 1000)
	collector.Describe(descs)
	close(descs)
	names := map[string]bool{}
	for d := range descs {
		names[regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(d.String())[1]] = true
	}
	families, err := registered(t, away(t), asideprom.Options{}).Gather()
	require.NoError(t, err)
	require.Len(t, families, len(names), "all that is described is collected")
	for _, f := range families {
		require.True(t, names[f.GetName()], f.GetName())
		if f.GetType() == dto.MetricType_HISTOGRAM {
			for _, suffix := range []string{"_bucket", "_count", "_sum"} {
				names[f.GetName()+suffix] = true
			}
		}
	}
	return names
}

// named are the metrics of ours that a text names.
func named(text string) []string { return regexp.MustCompile(`\baside_\w+`).FindAllString(text, -1) }

func TestTheDashboardAndTheRulesNameMetricsThatThereAre(t *testing.T) {
	t.Parallel()
	names, shown := described(t), map[string]bool{}
	for _, q := range queries(t) {
		require.NotEmpty(t, named(q.text), q.panel)
		for _, name := range named(q.text) {
			require.True(t, names[name], "%s: %s", q.panel, name)
			shown[name] = true
		}
	}
	rules := strings.ReplaceAll(string(asideprom.Rules()), "aside_hit_ratio:", "")
	require.NotEmpty(t, named(rules))
	for _, name := range named(rules) {
		require.True(t, names[name], name)
	}
	shown["aside_memory_evicted_bytes_total"] = true // the number of evictions says as much
	for name := range names {
		if strings.HasSuffix(name, "_total") {
			require.True(t, shown[name], "no panel shows %s", name)
		}
	}
}

// Each quantile and each number of observations has a form for classic histograms and one for native ones.
func TestHistogramsAreAskedForInBothForms(t *testing.T) {
	t.Parallel()
	classic := map[string]int{}
	for _, q := range queries(t) {
		for _, name := range named(q.text) {
			base, isClassic := strings.CutSuffix(strings.TrimSuffix(name, "_count"), "_bucket")
			if isClassic || strings.HasSuffix(name, "_count") {
				classic[base]++
				require.Regexp(t, `\(rate\(`+base+`\{[^}]*\}\[\$__rate_interval\]\)\)\)? or .*`+name, q.text, q.panel)
			}
		}
	}
	require.Len(t, classic, 4, "all histograms: %v", classic)
}

// The variables choose what the queries show: each query is about the job and the cache, and about the label if its series have one.
func TestEachQueryFollowsTheVariables(t *testing.T) {
	t.Parallel()
	all := scraped(t, registered(t, away(t), asideprom.Options{}))
	for _, q := range queries(t) {
		for _, m := range regexp.MustCompile(`\b(aside_\w+?)(?:_bucket|_count)?(\{[^}]*\}|\b)`).FindAllStringSubmatch(q.text, -1) {
			want := `{job=~"$job", cache=~"$cache"}`
			if all.of(m[1]+`{label="models"`)+all.of(m[1]+`_count{label="models"`) > 0 {
				want = `{job=~"$job", cache=~"$cache", label=~"$label"}`
			}
			require.Equal(t, want, m[2], "%s: %s", q.panel, m[0])
		}
	}
	var board struct {
		Templating struct {
			List []struct{ Name, Type, Query string }
		}
	}
	require.NoError(t, json.Unmarshal(asideprom.Dashboard(), &board))
	var names []string
	for _, v := range board.Templating.List {
		names = append(names, v.Name)
		for _, name := range named(v.Query) {
			require.True(t, described(t)[name], name)
		}
	}
	require.Equal(t, []string{"datasource", "job", "cache", "label"}, names)
}

func TestDashboardIsACopy(t *testing.T) {
	t.Parallel()
	asideprom.Dashboard()[0] = 'x'
	require.NotEqual(t, byte('x'), asideprom.Dashboard()[0])
}
