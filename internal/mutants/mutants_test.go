package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestTheListIsUpToDate says within a second which mutants a change of the code has left behind.
func TestTheListIsUpToDate(t *testing.T) {
	rows, err := load(filepath.Join("..", ".."), regexp.MustCompile(""))
	check(t, err)
	for _, r := range rows {
		if r.broken != "" {
			t.Error(r.broken)
		}
	}
}

const whole = `# Why.
hazard: 20
rule: a value is stored: once
test: ./a   ./b -run TestA$
test: ./c -run TestC/x|TestD
race: yes
tries: 5
hangs: yes

file: a/a.go
<<<<
	if a {
====
	# not a comment

>>>>
<<<<
gone
====
>>>>
# Another one.
file: b.go
<<<<
x: y
====
x: z
>>>>
`

func TestParse(t *testing.T) {
	m, err := parse("20.mutant", whole)
	check(t, err)
	equal(t, &mutant{
		path: "20.mutant", hazard: 20, rule: "a value is stored: once",
		tests: []string{"./a ./b -run TestA$", "./c -run TestC/x|TestD"},
		race:  true, hangs: true, tries: 5,
		edits: []edit{
			{file: "a/a.go", line: 11, old: "\tif a {", new: "\t# not a comment\n"},
			{file: "a/a.go", line: 17, old: "gone"},
			{file: "b.go", line: 23, old: "x: y", new: "x: z"},
		},
	}, m)

	m, err = parse("20.mutant", strings.NewReplacer("race: yes\n", "", "tries: 5\n", "", "hangs: yes", "hangs: no").Replace(whole))
	check(t, err)
	equal(t, []any{false, false, 1}, []any{m.race, m.hangs, m.tries})
}

func TestAMalformedFileIsRefusedWithItsLine(t *testing.T) {
	for _, c := range []struct{ replace, by, want string }{
		{"hazard: 20\n", "", `1: there is no hazard: header`},
		{"rule: a value is stored: once\n", "", `1: there is no rule: header`},
		{whole[strings.Index(whole, "file: a"):], "", `1: there is no file: header`},
		{"test:", "#", `1: there is no test: header`},
		{"hazard: 20", "hazard: twenty", `2: hazard: twenty: give a number`},
		{"hazard: 20", "hazard: 0", `2: hazard: 0: give a number`},
		{"tries: 5", "tries: 0", `7: tries: 0: give a number`},
		{"race: yes", "race: maybe", `6: race: maybe: say yes or no`},
		{"hangs: yes", "hazard: 3", `8: there is a hazard: in line 2 already`},
		{"hangs: yes", "hang: yes", `8: unknown header "hang"`},
		{"hangs: yes", "rule:", `8: "rule:" is neither a header`},
		{"# Another one.", "note: x", `21: "note: x": headers come before the first file:`},
		{"# Another one.", "func f() {", `21: "func f() {" is neither a header`},
		{"test: ./a ", "test: -run X ./a ", `4: test: -run X`},
		{"TestA$", "'TestA$'", `4: test: ./a`},
		{"TestA$", "TestA$ -race", `4: test: ./a`},
		{"file: a/a.go\n", "", `10: which file?`},
		{"file: a/a.go", "file: /a.go", `10: file: /a.go: give the path`},
		{"file: a/a.go", "file: a_test.go", `10: file: a_test.go: give the path`},
		{"file: a/a.go", "file: b.go\nfile: a/a.go", `10: no block follows`},
		{whole[strings.Index(whole, "<<<<\nx"):], "", `22: no block follows`},
		{"gone\n====\n", "gone\n", `19: >>>> where ==== is due`},
		{"x: z\n>>>>\n", "x: z\n", `25: no >>>> follows`},
		{"gone\n", "", `17: the old text is empty`},
		{"x: z", "x: y", `23: the new text is the old one`},
	} {
		t.Run(c.want, func(t *testing.T) {
			contains(t, whole, c.replace)
			_, err := parse("20.mutant", strings.ReplaceAll(whole, c.replace, c.by))
			contains(t, fmt.Sprint(err), "20.mutant:"+c.want)
		})
	}
}

func TestTheOldTextOccursExactlyOnce(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{"a.go": "one\ntwo\ntwo\naaa\n", "b.go": "b\n"})
	apply := func(edits ...edit) (map[string]string, error) {
		return (&mutant{path: "m", edits: edits}).apply(root)
	}

	texts, err := apply(edit{"a.go", 1, "one", "1"}, edit{"a.go", 2, "1\ntwo", ""}, edit{"b.go", 3, "b", "c"})
	check(t, err)
	equal(t, map[string]string{"a.go": "\ntwo\naaa\n", "b.go": "c\n"}, texts)

	for _, c := range []struct {
		edit edit
		want string
	}{
		{edit{"a.go", 7, "three", ""}, "m:7: a.go does not contain this text: the code has moved on"},
		{edit{"a.go", 7, "two", ""}, "m:7: a.go contains this text more than once, in lines 2 and 3"},
		{edit{"a.go", 7, "aa", ""}, "m:7: a.go contains this text more than once, in lines 4 and 4"},
		{edit{"c.go", 7, "c", ""}, "the code has moved on"},
	} {
		_, err := apply(c.edit)
		contains(t, fmt.Sprint(err), c.want)
	}
}

func TestJudge(t *testing.T) {
	const (
		start = `{"Action":"start","Package":"x/p"}` + "\n"
		runs  = start + `{"Action":"run","Package":"x/p","Test":"TestA"}` + "\n" + `{"Action":"run","Package":"x/p","Test":"TestA/b"}` + "\n"
		ends  = `{"Action":"fail","Package":"x/p"}` + "\n"
	)
	result := func(action, test string) string {
		return fmt.Sprintf(`{"Action":%q,"Package":"x/p","Test":%q}`+"\n", action, test)
	}
	const timeout = `{"Action":"output","Package":"x/p","Test":"TestA","Output":"panic: test timed out after 1s\n"}` + "\n"
	for _, c := range []struct {
		name, events      string
		failed            []string
		noBuild, timedOut bool
	}{
		{"a case fails", runs + result("fail", "TestA/b") + result("fail", "TestA") + ends, []string{"TestA/b"}, false, false},
		{"the test fails, its case does not", runs + result("pass", "TestA/b") + result("fail", "TestA") + ends, []string{"TestA"}, false, false},
		{"the process dies", runs + ends, []string{"TestA/b"}, false, false},
		{"it dies after the tests", runs + result("pass", "TestA/b") + result("pass", "TestA") + ends, []string{"p.TestMain"}, false, false},
		{"it dies before the tests", start + ends, nil, false, false},
		{"a timeout", runs + timeout + ends, []string{"TestA/b"}, false, true},
		{"a timeout after a failure", runs + result("fail", "TestA/b") + timeout + ends, []string{"TestA/b"}, false, false},
		{"no build", `{"ImportPath":"x/p","Action":"build-fail"}` + "\n" + start + ends, nil, true, false},
		{"no events at all", "go: no go.mod\n", nil, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := judge(c.events, errors.New("exit status 1"))
			equal(t, c.failed, o.failed)
			equal(t, c.noBuild, o.noBuild)
			equal(t, c.timedOut, o.timedOut)
		})
	}
}

// module is a library with guards, to take out.
var module = map[string]string{
	"go.mod": "module example.com/tiny\n\ngo 1.25\n",
	"tiny.go": `package tiny

import "os"

func Half(n int) int {
	if n < 0 {
		return 0
	}
	if n == 1000 {
		return 500
	}
	return n / 2
}

// Sometimes is wrong every second time that it is run, when its guard is gone.
func Sometimes() bool {
	guarded := true
	if guarded {
		return true
	}
	_, err := os.Stat(os.Getenv("TINY_STATE"))
	if err == nil {
		return false
	}
	return os.WriteFile(os.Getenv("TINY_STATE"), nil, 0o600) == nil
}

// Third has a body that no importer has a copy of.
//
//go:noinline
func Third(n int) int {
	if n < 0 {
		return 0
	}
	return n / 3
}

func Wait(c chan int) {
	if c == nil {
		return
	}
	<-c
}
`,
	"tiny_test.go": `package tiny

import (
	"os"
	"testing"
	"time"
)

func TestHalf(t *testing.T) {
	t.Run("negative", func(t *testing.T) {
		if Half(-4) != 0 {
			t.Error("not 0")
		}
	})
	t.Run("positive", func(t *testing.T) {
		if Half(4) != 2 || Half(1000) != 500 {
			t.Error("not half")
		}
	})
}

func TestSometimes(t *testing.T) {
	if !Sometimes() {
		t.Error("false")
	}
}

func TestRequired(t *testing.T) {
	if os.Getenv("ASIDE_REQUIRE_REDIS") != "1" {
		t.Error("not set")
	}
}

func TestWait(t *testing.T)  { go time.Sleep(time.Hour); Wait(nil) }
func TestFails(t *testing.T) { t.Error("always") }
func TestSkips(t *testing.T) { t.Skip("always") }
`,
	"outer/outer_test.go": `package outer

import (
	"testing"

	"example.com/tiny"
)

func TestThird(t *testing.T) {
	if tiny.Third(-3) != 0 || tiny.Third(3) != 1 {
		t.Error("not a third")
	}
}

func TestHalf(t *testing.T) {
	if tiny.Half(-4) != 0 {
		t.Error("not 0")
	}
}
`,
}

// negative takes the first guard out of Half.
const negative = "file: tiny.go\n<<<<\n\tif n < 0 {\n\t\treturn 0\n\t}\n\tif n == 1000 {\n====\n\tif n == 1000 {\n>>>>\n"

// third takes the guard out of Third.
const third = "file: tiny.go\n<<<<\n\tif n < 0 {\n\t\treturn 0\n\t}\n\treturn n / 3\n====\n\treturn n / 3\n>>>>\n"

// waits makes Wait hang.
const waits = "file: tiny.go\n<<<<\n\tif c == nil {\n\t\treturn\n\t}\n====\n>>>>\n"

// guarded makes Sometimes fail at every second time.
const guarded = "file: tiny.go\n<<<<\nguarded := true\n====\nguarded := false\n>>>>\n"

var mutants = map[string]string{
	"01-caught":   "hazard: 1\nrule: r1\ntest: . -run TestHalf|TestRequired\n" + negative,
	"03-tries":    "hazard: 3\nrule: r3\ntest: . -run TestSometimes$\ntries: 3\n" + guarded,
	"04-hangs":    "hazard: 4\nrule: r4\ntest: . -run TestWait$ -timeout 1s\nhangs: yes\n" + waits,
	"05-linked":   "hazard: 5\nrule: r5\ntest: ./outer -run TestThird$\n" + third,
	"06-inlined":  "hazard: 6\nrule: r6\ntest: ./outer -run TestHalf$\n" + negative,
	"20-survives": "hazard: 20\nrule: r20\ntest: . -run TestHalf$\nfile: tiny.go\n<<<<\n\tif n == 1000 {\n====\n\tif false {\n>>>>\n",
	"21-no-build": "hazard: 21\nrule: r21\ntest: . -run TestHalf$\nfile: tiny.go\n<<<<\n\treturn n / 2\n====\n\treturn \"\"\n>>>>\n",
	"22-timeout":  "hazard: 22\nrule: r22\ntest: . -run TestWait$ -timeout 1s\n" + waits,
	"23-fails":    "hazard: 23\nrule: r23\ntest: . -run TestFails$\n" + negative,
	"24-skips":    "hazard: 24\nrule: r24\ntest: . -run TestSkips$|TestHalf$\n" + negative,
	"25-renamed":  "hazard: 25\nrule: r25\ntest: . -run TestOfOldName$\n" + negative,
	"26-moved-on": "hazard: 26\nrule: r26\ntest: . -run TestHalf$\nfile: tiny.go\n<<<<\nif n > 0 {\n====\n>>>>\n",
	"27-no-tests": "hazard: 27\nrule: r27\ntest: ./nowhere -run TestHalf$\n" + negative,
	"28-bad-file": "hazard: 28\nwhy: r28\n",
}

func TestAMutantHasAsManyLinesAsBefore(t *testing.T) {
	for _, c := range []struct{ before, after, want string }{
		{"a\nb\nc\nd\n", "a\nd\n", "a\n\n\nd\n"},
		{"a\nb\nc\n", "a\nx\nc\n", "a\nx\nc\n"},
		{"a\nb\n", "a\nx\ny\nb\n", "a\nx\ny\nb\n"},
		{"a\nb(c,\n\td)\ne\n", "a\nb(c)\ne\n", "a\nb(c)\n\ne\n"},
		{"a\nb", "b", "\nb"},
	} {
		equal(t, c.want, aligned(c.before, c.after))
	}
}

func TestEndToEnd(t *testing.T) {
	root := t.TempDir()
	write(t, root, module)
	for name, text := range mutants {
		write(t, root, map[string]string{listDir + "/" + name + ".mutant": text})
	}
	before := read(t, root)
	t.Setenv("GOWORK", "off")
	t.Setenv("GOFLAGS", "")
	t.Setenv("ASIDE_REQUIRE_REDIS", "") // the runner sets it
	t.Setenv("TINY_STATE", filepath.Join(t.TempDir(), "state"))
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	t.Setenv("TMP", temporary) // Windows

	var stdout, stderr bytes.Buffer
	status := run(context.Background(), root, []string{"-v"}, &stdout, &stderr)
	out := stdout.String()
	t.Logf("%s\n%s", stderr.String(), out)
	equal(t, 1, status)
	for _, want := range []string{
		`1 +01-caught +r1 +TestHalf/negative +\d+\.\ds\n`,
		`3 +03-tries +r3 +TestSometimes +\d+\.\ds\n`,
		`5 +05-linked +r5 +TestThird +\d+\.\ds\n`,
		`6 +06-inlined +r6 +TestHalf +\d+\.\ds\n`,
		`4 +04-hangs +r4 +TestWait +\d+\.\ds\n`,
		`20 +20-survives +r20 +SURVIVED +\d+\.\ds\n`,
		`21 +21-no-build +r21 +BROKEN, see below +\d+\.\ds\n`,
		`28 +28-bad-file +BROKEN, see below +0\.0s\n`,
		`\n20-survives: no test fails without the guard: \. -run TestHalf\$\n`,
		`\n21-no-build: the mutant does not compile:\n(.*\n)*.*untyped string constant`,
		`\n22-timeout: go test \. -run TestWait\$ -timeout 1s runs into the timeout in TestWait; .* hangs: yes\n`,
		`\n23-fails: go test \. -run TestFails\$ does not pass on the code as it is \(exit status 1\):\n(.*\n)*.*always`,
		`\n24-skips: .* skips TestSkips: `,
		`\n25-renamed: .* runs no test of \.: has it another name now\?\n`,
		`\n26-moved-on: internal/mutants/list/26-moved-on.mutant:5: tiny.go does not contain this text: `,
		`\n27-no-tests: go test ./nowhere -run TestHalf\$ does not pass on the code as it is `,
		`\n28-bad-file: internal/mutants/list/28-bad-file.mutant:2: unknown header "why"`,
		`\nmutants: 5 of 14 caught, hazards 1 3 4 5 6\n$`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("no %s in the report", want)
		}
	}
	contains(t, stderr.String(), "26-moved-on.mutant:5: ")
	contains(t, stderr.String(), "test commands on the code as it is: 10 ")
	contains(t, stderr.String(), "05-linked, linked again: go test ./outer -run TestThird$: exit status 1")
	contains(t, stderr.String(), "06-inlined: go test ./outer -run TestHalf$: exit status 1") // its importers have a copy: all of them are compiled again
	if strings.Contains(stderr.String(), "06-inlined, linked again") {
		t.Error("the linker takes an archive with other export data")
	}

	stdout.Reset()
	equal(t, 0, run(context.Background(), root, []string{"-run", "^01-"}, &stdout, &stderr))
	if !regexp.MustCompile(`^HAZARD +MUTANT +RULE +CAUGHT BY +TIME\n1 .*\n\nmutants: 1 of 1 caught, hazards 1\n$`).MatchString(stdout.String()) {
		t.Errorf("reports\n%s", stdout.String())
	}

	equal(t, before, read(t, root)) // the tree is not touched
	left, err := filepath.Glob(filepath.Join(temporary, "mutants*"))
	check(t, err)
	equal(t, 0, len(left))
}

func TestItSaysHowItIsUsed(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{listDir + "/a.mutant": whole})
	for args, want := range map[string]int{"-j 0": 2, "-run (": 2, "a": 2, "-x": 2, "-run b": 1} {
		var stdout, stderr bytes.Buffer
		status := run(context.Background(), root, strings.Fields(args), &stdout, &stderr)
		if status != want || stderr.Len() == 0 || stdout.Len() > 0 {
			t.Errorf("%s: exit status %d, stderr %q, stdout %q", args, status, &stderr, &stdout)
		}
	}
}

func TestParallel(t *testing.T) {
	for _, n := range []int{0, 1, 7} {
		done := make([]bool, n)
		parallel(2, n, func(i int) { done[i] = true })
		equal(t, false, slices.Contains(done, false))
	}
}

func write(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		file := filepath.Join(root, filepath.FromSlash(name))
		check(t, os.MkdirAll(filepath.Dir(file), 0o755))
		check(t, os.WriteFile(file, []byte(files[name]), 0o600))
	}
}

// read returns what write has written and whatever else is there.
func read(t *testing.T, root string) map[string]string {
	t.Helper()
	files := map[string]string{}
	check(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		files[path] = string(text)
		return err
	}))
	return files
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal(t *testing.T, want, got any) {
	t.Helper()
	if !reflect.DeepEqual(want, got) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func contains(t *testing.T, text, want string) {
	t.Helper()
	if !strings.Contains(text, want) {
		t.Errorf("%q does not contain %q", text, want)
	}
}

// docs/hazards.md has a row for each hazard that has a mutant named after it, and none without one.
func TestThePageOfHazardsAndTheListAgree(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "hazards.md"))
	check(t, err)
	rows := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\| (\d+) \|`).FindAllSubmatch(page, -1) {
		rows[string(m[1])] = true
	}
	held := map[string]bool{}
	files, err := filepath.Glob(filepath.Join("list", "[0-9]*.mutant")) // the others are about rules that no interleaving breaks
	check(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		check(t, err)
		for _, m := range regexp.MustCompile(`(?m)^hazard: (\d+)`).FindAllSubmatch(text, -1) {
			held[string(m[1])] = true
		}
	}
	for n := range held {
		if !rows[n] {
			t.Errorf("docs/hazards.md has no row %s, which mutants are about", n)
		}
	}
	for n := range rows {
		if !held[n] {
			t.Errorf("row %s of docs/hazards.md has no mutant", n)
		}
	}
}

// Each alternative of a -run names a test that is there: one that was lost or renamed is not noticed before all mutants are run.
func TestTheTestsOfTheListAreThere(t *testing.T) {
	root := filepath.Join("..", "..")
	rows, err := load(root, regexp.MustCompile(""))
	check(t, err)
	known := make(map[string][]string) // what was read, by its directory
	tests := func(dir string) []string {
		if _, ok := known[dir]; !ok {
			known[dir] = testsOf(t, filepath.Join(root, dir))
		}
		return known[dir]
	}
	seen := 0
	for _, r := range rows {
		for _, command := range r.mutant.tests {
			seen++
			args := strings.Fields(command)
			at := slices.Index(args, "-run")
			if at < 0 || at+1 == len(args) {
				continue
			}
			top, _, _ := strings.Cut(args[at+1], "/")
			for one := range strings.SplitSeq(top, "|") {
				if strings.ContainsAny(one, "()[]") {
					one = top // not a list of names
				}
				if !slices.ContainsFunc(args[:at], func(dir string) bool { return slices.ContainsFunc(tests(dir), regexp.MustCompile(one).MatchString) }) {
					t.Errorf("%s: no test matches %s", r.mutant.path, one)
				}
			}
		}
	}
	if seen < 100 {
		t.Fatalf("only %d commands were looked at", seen)
	}
}

var testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example)\w*)`)

// testsOf are the names of the tests of a package.
func testsOf(t *testing.T, dir string) (names []string) {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	check(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		check(t, err)
		for _, m := range testFunc.FindAllSubmatch(text, -1) {
			names = append(names, string(m[1]))
		}
	}
	return names
}
