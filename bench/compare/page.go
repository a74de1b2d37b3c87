package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/gatewayz/aside/internal/redistest"
)

const (
	pageBegin = "<!-- from here on printed by: make compare DOCS=docs -->"
	pageEnd   = "<!-- up to here printed by: make compare DOCS=docs -->"
	plotDir   = "compare"
)

// page is everything that is printed, with links to the plots if there are any.
func page(b *bench, source string, loadBefore string, results []result, plots bool) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s, %s/%s, %d processors; Redis %s on the same machine; rounds: %d. Load average %s before, %s after.\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH,
		runtime.NumCPU(), b.version, b.rounds, loadBefore, redistest.LoadAverage())
	if b.quick {
		out.WriteString("**A quick run: it shows that all works. Its figures say nothing.**\n\n")
	}
	fmt.Fprintf(&out, "Each round measures each row once, in another order. The first column has the median, the lowest and the highest round. The ratio is to the first row: the median of the "+
		"ratios within each round. The other columns are medians. Own CPU is of the whole process (getrusage), Redis CPU that of the server (INFO). The values are 1.6 KB as JSON; the large one is of %s.\n", source)
	seen, forms := make(map[string]bool), ""
	for _, r := range results {
		fmt.Fprintf(&out, "\n### %s\n\n%s\n\n%s", r.title, r.about, r.markdown())
		if plots {
			fmt.Fprintf(&out, "\n![%s](%s/%s.svg)\n", r.title, plotDir, r.name)
		}
		for _, row := range r.rows {
			if !seen[row.name] {
				seen[row.name] = true
				forms += fmt.Sprintf("| %s | %s | %s |\n", row.name, row.form, versions(row.modules))
			}
		}
	}
	return out.String() + "\n### Versions and forms\n\nAll options that are not named have their defaults.\n\n| | form | versions |\n|---|---|---|\n" + forms
}

// write puts text between the markers of performance.md in the directory docs, and writes the plots.
func write(docs, text string, results []result) error {
	path := filepath.Join(docs, "performance.md")
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	renewed, err := between(string(old), text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := writePlots(filepath.Join(docs, plotDir), results); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(renewed), 0o644)
}

func writePlots(dir string, results []result) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, r := range results {
		if err := os.WriteFile(filepath.Join(dir, r.name+".svg"), []byte(r.svg()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// between replaces what stands between the markers.
func between(page, text string) (string, error) {
	head, rest, ok := strings.Cut(page, pageBegin)
	_, tail, ends := strings.Cut(rest, pageEnd)
	if !ok || !ends {
		return "", errors.New("there are no markers: " + pageBegin + " and " + pageEnd)
	}
	return head + pageBegin + "\n\n" + text + "\n" + pageEnd + tail, nil
}
