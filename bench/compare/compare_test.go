package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gatewayz/aside/internal/redistest"
)

func TestASummaryHasMediansAndRatiosWithinRounds(t *testing.T) {
	// The machine is ten times as slow in the last round, for both.
	got := summarize([]float64{4, 6, 50}, []float64{2, 2, 20})
	if want := (summary{median: 6, low: 4, high: 50, ratio: 2.5}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := summarize([]float64{3, 1}, nil); got != (summary{median: 2, low: 1, high: 3}) {
		t.Errorf("without a base: %v", got)
	}
	if got := summarize([]float64{3}, []float64{0}); got.ratio != 0 {
		t.Errorf("a base of 0 has the ratio %v", got.ratio)
	}
	if got := summarize(nil, nil); got != (summary{}) {
		t.Errorf("without rounds: %v", got)
	}
}

func TestAFigureHasThreeDigits(t *testing.T) {
	for f, want := range map[float64]string{0: "0", 0.0451: "0.045", 1: "1", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 12345: "12345", -0.0001: "0"} {
		if got := figure(f); got != want {
			t.Errorf("figure(%v) is %q, want %q", f, got, want)
		}
	}
}

// made is a result with two rounds for each name.
func made(first map[string][2]float64, names ...string) result {
	r := result{scenario: scenario{name: "made", title: "Made <up>", columns: []column{wall, allocs}}}
	for _, name := range names {
		r.rows = append(r.rows, row{library: library{name: name, why: "It is " + name + "."}})
		r.rounds = append(r.rounds, []sample{{wall: first[name][0], allocs: 3}, {wall: first[name][1], allocs: 3}})
	}
	return r
}

func TestTheTable(t *testing.T) {
	r := made(map[string][2]float64{"aside": {10, 20}, "aside, other": {8, 16}, "quick": {4, 8}, "equal": {8, 16}}, "aside", "aside, other", "quick", "equal")
	want := `| | wall, µs | ratio | allocations |
|---|--:|--:|--:|
| aside | 15 (10 to 20) | 1 | 3 |
| aside, other | 12 (8 to 16) | 0.8 | 3 |
| quick | 6 (4 to 8) | 0.4 | 3 |
| equal | 12 (8 to 16) | 0.8 | 3 |

Ahead of aside's best row (aside, other), in the first column:

- **quick**: 0.5 times. It is quick.
`
	if got := r.markdown(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	alone := made(map[string][2]float64{"aside": {1, 1}, "slow": {2, 2}}, "aside", "slow")
	if got := alone.ahead(); !strings.HasPrefix(got, "Nothing is ahead") {
		t.Error(got)
	}
}

func TestThePlotIsXMLWithABarForEachRow(t *testing.T) {
	for _, slow := range []float64{3, 3000, 0} { // the second one has a logarithmic scale
		r := made(map[string][2]float64{"aside": {1, 2}, "other": {slow, slow}}, "aside", "other")
		text := r.svg()
		bars := 0
		for d := xml.NewDecoder(strings.NewReader(text)); ; {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err, text)
			}
			if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
				bars++
			}
		}
		if bars != 3 { // one is the background
			t.Errorf("%d rectangles in\n%s", bars, text)
		}
		if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
			t.Error(text)
		}
	}
}

func TestThePageIsWrittenBetweenItsMarkers(t *testing.T) {
	docs := t.TempDir()
	path := filepath.Join(docs, "performance.md")
	r := made(map[string][2]float64{"aside": {1, 2}}, "aside")
	if err := os.WriteFile(path, []byte("before\n"+pageBegin+"\nold\n"+pageEnd+"\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"first", "second"} {
		if err := write(docs, text, []result{r}); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if want := "before\n" + pageBegin + "\n\n" + text + "\n" + pageEnd + "\nafter\n"; err != nil || string(got) != want {
			t.Errorf("got %q, want %q, %v", got, want, err)
		}
	}
	if plot, err := os.ReadFile(filepath.Join(docs, plotDir, "made.svg")); err != nil || string(plot) != r.svg() {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte("no markers"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := write(docs, "text", nil); err == nil {
		t.Error("a page without markers is written")
	}
	page, err := os.ReadFile("../../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := between(string(page), ""); err != nil {
		t.Error(err)
	}
}

func TestACatalogueHasTheSizeThatIsAskedFor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "models.json")
	if err := os.WriteFile(file, []byte(`{"a":{"mode":"chat","max_input_tokens":5},"b":{"mode":"chat"},"c":{"max_input_tokens":"a text"}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", file} {
		c, _, err := newCatalogue(path, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(c)
		if err != nil || len(text) < 1<<20*9/10 || len(text) > 1<<20*11/10 {
			t.Errorf("%q: %d bytes, %v", path, len(text), err)
		}
		ids := make(map[string]bool)
		for _, m := range *c {
			if ids[m.ID] {
				t.Errorf("%q: two models are %s", path, m.ID)
				break
			}
			ids[m.ID] = true
		}
	}
}

func TestScenariosAreChosenByTheBeginningOfTheirNames(t *testing.T) {
	all := []scenario{{name: "near-one"}, {name: "near-zipf"}, {name: "mixed"}}
	for only, want := range map[string]int{"": 3, "near": 2, "near-zipf,mixed": 2} {
		if got, err := chosen(all, only); err != nil || len(got) != want {
			t.Errorf("%q chooses %d, %v", only, len(got), err)
		}
	}
	if _, err := chosen(all, "far"); err == nil {
		t.Error("a scenario that there is not is no error")
	}
}

// A quick run of two scenarios; .ci/run makes one of all. Each row has all rounds, and counts what must be exact.
func TestAQuickRun(t *testing.T) {
	addr := redistest.Start(t).Addr()
	text, results, err := measureAll(addr, flags{quick: true, only: "near-one-2,cold-miss"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if !strings.Contains(text, "### "+r.title) {
			t.Errorf("the page lacks %s", r.title)
		}
		for i, row := range r.rows {
			for _, c := range r.columns {
				figures := r.figures(i, c)
				if len(figures) != 2 || slices.Min(figures) < 0 || c == wall && slices.Min(figures) == 0 {
					t.Errorf("%s: %s: %s: %v", r.name, row.name, c, figures)
				}
			}
			if got := median(r.figures(i, loads)); r.name == "cold-miss" && got != 1 {
				t.Errorf("%s makes %v loads for a miss", row.name, got)
			}
			if got := median(r.figures(i, commands)); r.name == "cold-miss" && got < 1 {
				t.Errorf("%s sends %v commands for a miss", row.name, got)
			}
		}
	}
	if _, err := newBench(addr); err != nil {
		t.Errorf("the Redis is not empty after a run: %v", err)
	}
}

func TestARedisWithKeysIsLeftAlone(t *testing.T) {
	s := redistest.Start(t)
	s.MustDo(t, "SET", "mine", "1")
	if _, _, err := measureAll(s.Addr(), flags{quick: true}); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Error(err)
	}
	if s.MustDo(t, "GET", "mine") != "1" {
		t.Error("the key is gone")
	}
}
