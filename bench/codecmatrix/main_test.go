package main

import (
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		answer(os.Stdin, os.Stdout)
		return
	}
	os.Exit(m.Run())
}

const (
	begin = "<!-- from here on printed by: cd bench && go run ./codecmatrix -->\n\n"
	page  = "../../docs/codec-tables.md"
)

func TestEveryCellIsKeptOrRefusedAndThePageSaysWhich(t *testing.T) {
	t.Parallel()
	c, err := startChild()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	got, bad := tables(c)
	if bad > 0 {
		for line := range strings.Lines(got) {
			if strings.Contains(line, changed) {
				t.Log(line)
			}
		}
		t.Fatalf("%d cells are changed", bad)
	}
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, printed, ok := strings.Cut(string(b), begin)
	if !ok {
		t.Fatalf("%s has no line %q", page, begin)
	}
	if printed != got {
		t.Errorf("%s is not what the command prints: go run ./codecmatrix shows that", page)
	}
}
