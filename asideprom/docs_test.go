package asideprom_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/asideprom"
)

// The page has a row for each metric with the values of its labels, and for each alert, and no others; its program is the example.
func TestThePageHasEachMetricAndAlert(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile("../docs/observability.md")
	require.NoError(t, err)
	_, page, found := strings.Cut(string(file), "\n## Prometheus\n")
	require.True(t, found)
	page, _, _ = strings.Cut(page, "\n## ")

	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| `aside_.*$").FindAllString(page, -1) {
		names := regexp.MustCompile("`(aside_\\w+)`").FindAllStringSubmatch(strings.Split(row, "|")[1], -1)
		for _, name := range names {
			documented = append(documented, name[1])
		}
	}
	families, err := registered(t, away(t), asideprom.Options{}).Gather()
	require.NoError(t, err)
	var described []string
	for _, f := range families {
		described = append(described, f.GetName())
		for _, l := range f.Metric[0].Label {
			if l.GetName() != "cache" && l.GetName() != "label" {
				require.Contains(t, rowOf(page, f.GetName()), "`"+l.GetName()+"`", f.GetName())
			}
		}
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if l.GetName() != "cache" && l.GetName() != "label" && l.GetName() != "node" && f.GetName() != "aside_info" {
					require.Contains(t, rowOf(page, f.GetName()), "`"+l.GetValue()+"`", f.GetName())
				}
			}
		}
	}
	require.ElementsMatch(t, described, documented)

	var rows []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(Aside\\w+)`").FindAllStringSubmatch(page, -1) {
		rows = append(rows, m[1])
	}
	require.Equal(t, alerts(), rows)

	example, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	program := regexp.MustCompile("(?s)```go\n(.*?)```").FindStringSubmatch(page)
	require.NotNil(t, program)
	require.Contains(t, string(example), "\t"+strings.ReplaceAll(strings.TrimSuffix(program[1], "\n"), "\n", "\n\t"))
}

func rowOf(page, metric string) string {
	return regexp.MustCompile("(?m)^\\|[^|]*`" + metric + "`.*$").FindString(page)
}
