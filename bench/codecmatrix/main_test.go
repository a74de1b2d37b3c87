package main

import (
	"os"
	"slices"
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

// JSON keeps and refuses the same with the functions of asidecodec as with those of encoding/json, but for negative zero, which sonic decodes
// as zero.
func TestJSONBySonicIsJSON(t *testing.T) {
	t.Parallel()
	c, err := startChild()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	bySonic, same := jsonBySonic(), 0
	compare := func(name string, got, want []string) {
		if strings.HasSuffix(name, ", -0") {
			want = append([]string{changed, changed, changed}, want[3:]...)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, by encoding/json %v", name, got, want)
		}
		same++
	}
	for table, lines := range map[string][]line{"rows": rows, "alone": alone} {
		for i, l := range lines {
			got, _ := l.outcomes(bySonic, c, table, i)
			want, _ := l.outcomes(asideJSON, c, table, i)
			compare(l.name, got, want)
		}
	}
	for _, r := range retypings {
		compare(r.from+" as "+r.to, []string{r.outcome(bySonic)}, []string{r.outcome(asideJSON)})
	}
	if same < 100 {
		t.Fatal("only", same, "rows were compared")
	}
}

// An encrypted codec keeps and refuses what its inner codec does, with the same errors.
func TestEncryptedIsItsInnerCodec(t *testing.T) {
	t.Parallel()
	c, err := startChild()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	same, keeps := 0, 0
	for _, pair := range sealed {
		for table, lines := range map[string][]line{"rows": rows, "alone": alone} {
			for i, l := range lines {
				want, whyNot := l.outcomes(pair[0], c, table, i)
				got, why := l.outcomes(pair[1], c, table, i)
				if !slices.Equal(got, want) || why != whyNot {
					t.Errorf("%s, %s: %v %s, without encryption %v %s", pair[1].name, l.name, got, why, want, whyNot)
				}
				if same++; got[0] == kept {
					keeps++
				}
			}
		}
	}
	if same < 400 || keeps < 100 {
		t.Fatal("only", same, "rows were compared, of which", keeps, "were kept")
	}
}
