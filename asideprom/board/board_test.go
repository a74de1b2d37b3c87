package main

//lint:file-ignore SA1019 every version of Grafana imports this form of a dashboard, and only the newest its successor.

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

const committed = "../aside.dashboard.json"

func read(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(committed)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// The dashboard that asideprom has is the one that this program makes.
func TestTheCommittedDashboardIsThatOfTheProgram(t *testing.T) {
	t.Parallel()
	made, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	if string(made) != string(read(t)) {
		t.Fatalf("%s is not what this program makes: run go generate . in asideprom", committed)
	}
}

// The documented command writes the same, and refuses what it does not know.
func TestTheCommandWritesTheDashboard(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "board.json")
	if err := run(file, nil); err != nil {
		t.Fatal(err)
	}
	made, err := os.ReadFile(file)
	if err != nil || string(made) != string(read(t)) {
		t.Fatalf("the file differs: %v", err)
	}
	if err := run(file, []string{"x"}); err == nil || !strings.Contains(err.Error(), `unexpected argument "x"`) {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../dashboard.go")
	if err != nil || !strings.Contains(string(text), "//go:generate go run ./board -o aside.dashboard.json\n") {
		t.Fatalf("asideprom does not generate it: %v", err)
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("go is not in PATH: skipping")
	}
	command := exec.CommandContext(t.Context(), "go", "run", ".", "-o", filepath.Join(t.TempDir(), "no", "board.json"))
	if out, err := command.CombinedOutput(); err == nil || !strings.HasPrefix(string(out), "board: open ") {
		t.Fatalf("%v: %s", err, out)
	}
}

// Grafana's own types take each field, and miss none.
func TestGrafanasTypesTakeTheDashboard(t *testing.T) {
	// The types decode those panels and queries that they know of.
	cog.NewRuntime().RegisterPanelcfgVariant(timeseries.VariantConfig())
	cog.NewRuntime().RegisterDataqueryVariant(prometheus.VariantConfig())
	// The decoder returns a list of errors, which is an error that is not nil even if the list is empty.
	wrong := func(text string) cog.BuildErrors {
		var list cog.BuildErrors
		if err := new(dashboard.Dashboard).UnmarshalJSONStrict([]byte(text)); !errors.As(err, &list) {
			t.Fatalf("not a list of errors: %v", err)
		}
		return list
	}
	text := string(read(t))
	if list := wrong(text); len(list) > 0 {
		t.Fatal(list)
	}
	board, err := newBoard().Build()
	if err == nil {
		err = board.Validate()
	}
	if err != nil {
		t.Fatal(err)
	}
	// The check itself notices unknown fields, and one that is missing.
	for old, changed := range map[string]string{`"graphTooltip"`: `"graphToolTip"`, `"legendFormat"`: `"legend"`, `"stacking"`: `"stack"`, `"schemaVersion": 42,`: ``} {
		if !strings.Contains(text, old) || len(wrong(strings.Replace(text, old, changed, 1))) == 0 {
			t.Errorf("%s in place of %s is not noticed", changed, old)
		}
	}
}

// Panels fill their rows, have an id of their own and a text that says what they show.
func TestPanelsFillTheirRows(t *testing.T) {
	t.Parallel()
	var board struct {
		Panels []struct {
			ID                       int
			Type, Title, Description string
			GridPos                  struct{ X, Y, W, H int }
		}
	}
	if err := json.Unmarshal(read(t), &board); err != nil {
		t.Fatal(err)
	}
	ids, titles, taken := map[int]bool{}, map[string]bool{}, map[[2]int]string{}
	for _, p := range board.Panels {
		if p.ID == 0 || ids[p.ID] || p.Title == "" || titles[p.Title] || p.Type != "row" && p.Description == "" {
			t.Errorf("panel %d, %q: it needs an id and a title of its own, and a description", p.ID, p.Title)
		}
		ids[p.ID], titles[p.Title] = true, true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("%q lies on %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
	lowest := 0
	for at := range taken {
		lowest = max(lowest, at[1])
	}
	if len(taken) != 24*(lowest+1) {
		t.Errorf("%d cells of %d are taken: a row has a gap", len(taken), 24*(lowest+1))
	}
}
