package asideprom_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asideprom"
)

// installed is the path of a program of Prometheus: in PATH, or where scripts/install-test-tools.sh has put it.
func installed(t *testing.T, program string) string {
	t.Helper()
	if path, err := exec.LookPath(program); err == nil {
		return path
	}
	path, err := filepath.Abs("../.tools/" + program)
	require.NoError(t, err)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if required := "ASIDE_REQUIRE_" + strings.ToUpper(program); os.Getenv(required) == "1" {
		t.Fatalf("%s not found, and %s=1 asks for it: run scripts/install-test-tools.sh", program, required)
	}
	t.Skipf("%s not found: skipping; `make tools` installs it", program)
	return ""
}

func promtool(t *testing.T) string { t.Helper(); return installed(t, "promtool") }

func run(t *testing.T, stdin []byte, tool string, args ...string) string {
	t.Helper()
	cmd := exec.Command(tool, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "promtool %v: %s", args, out)
	return string(out)
}

func TestPromtoolAcceptsTheMetrics(t *testing.T) {
	t.Parallel()
	tool := promtool(t)
	c := open(t, aside.Options{Policies: []aside.Policy{models, {Name: "hostile", Category: "hostile", Label: "a\"b\nc\\\xff", TTL: time.Hour}}})
	_, err := aside.GetOrLoad(t.Context(), c, models.Key("a"), value("v"))
	require.NoError(t, err)
	registry := registered(t, c, asideprom.Options{Labels: prometheus.Labels{"region": "eu"}})
	require.Empty(t, run(t, text(t, registry), tool, "check", "metrics"), "it prints what it does not like")
	require.Empty(t, run(t, text(t, registered(t, away(t), asideprom.Options{})), tool, "check", "metrics"))
}

func TestPromtoolAcceptsTheRules(t *testing.T) {
	t.Parallel()
	tool := promtool(t)
	file := filepath.Join(t.TempDir(), "aside.rules.yml")
	require.NoError(t, os.WriteFile(file, asideprom.Rules(), 0o600))
	require.Contains(t, run(t, nil, tool, "check", "rules", file), fmt.Sprintf("SUCCESS: %d rules found", len(alerts())+1))
}

func alerts() (names []string) {
	for _, m := range regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllSubmatch(asideprom.Rules(), -1) {
		names = append(names, string(m[1]))
	}
	return names
}

// Each alert has a file of tests, with a case in which it fires and one in which it does not.
func TestEachAlertFiresWhenItShould(t *testing.T) {
	t.Parallel()
	require.Len(t, alerts(), 9)
	files, err := filepath.Glob("testdata/rules/*.yml")
	require.NoError(t, err)
	require.Len(t, files, len(alerts())+1, "a file for each alert, and one for what is recorded")
	for _, name := range alerts() {
		tests, err := os.ReadFile(filepath.Join("testdata/rules", name+".yml"))
		require.NoError(t, err)
		cases := strings.Count(string(tests), "alertname: "+name+"\n")
		quiet := strings.Count(string(tests), "exp_alerts: []\n")
		require.Greater(t, quiet, 0, name)
		require.Greater(t, cases, quiet, name)
	}
	tool := promtool(t)
	run(t, nil, tool, append([]string{"test", "rules"}, files...)...)
}

// The rules use series that are there, and each alert says what to do.
func TestTheRulesUseTheMetricsThatThereAre(t *testing.T) {
	t.Parallel()
	rules := string(asideprom.Rules())
	all := scraped(t, registered(t, away(t), asideprom.Options{}))
	used := regexp.MustCompile(`\baside_\w+`).FindAllString(rules, -1)
	require.NotEmpty(t, used)
	for _, name := range used {
		if name == "aside_hit_ratio" {
			continue // recorded
		}
		_, plain := all[name]
		require.True(t, plain || all.of(name+"{")+all.of(name+"_bucket{") > 0, name)
	}
	for _, m := range regexp.MustCompile(`(\w+)(?:=~|!=|=)"([\w|]+)"`).FindAllStringSubmatch(rules, -1) {
		for _, v := range strings.Split(m[2], "|") {
			require.NotZero(t, all.of(fmt.Sprintf("%s=%q", m[1], v)), m[0])
		}
	}
	require.Equal(t, len(alerts()), strings.Count(rules, "\n          description: \""))
	require.Equal(t, len(alerts()), strings.Count(rules, "\n          summary: \""))
	require.Equal(t, len(alerts()), strings.Count(rules, "\n          severity: "))
}

func TestRulesAreACopy(t *testing.T) {
	t.Parallel()
	asideprom.Rules()[0] = 'x'
	require.NotEqual(t, byte('x'), asideprom.Rules()[0])
}
