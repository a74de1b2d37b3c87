package aside_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

// documents are the pages that readers begin with, by their path from the root.
func documents(t *testing.T) []string {
	t.Helper()
	pages, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	require.NotEmpty(t, pages)
	return append(pages, "README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
}

func document(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(text)
}

// prose is the text without its blocks of code, whose brackets are no links.
func prose(text string) string {
	fenced := regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(text, "")
	return regexp.MustCompile("(?m)^    .*$").ReplaceAllString(fenced, "")
}

// anchors are the fragments by which GitHub finds the headings of a page.
func anchors(text string) map[string]bool {
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(prose(text), -1) {
		id := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, m[1])
		for n, first := 1, id; found[id]; n++ {
			id = fmt.Sprintf("%s-%d", first, n)
		}
		found[id] = true
	}
	return found
}

// brokenLinks are the relative links of a page that lead to no file, or to no heading of one.
func brokenLinks(t *testing.T, page, text string) (broken []string) {
	t.Helper()
	code := regexp.MustCompile("`[^`\n]*`")
	for _, m := range regexp.MustCompile(`\]\(([^()\s]+)\)`).FindAllStringSubmatch(code.ReplaceAllString(prose(text), "`"), -1) {
		link, err := url.Parse(m[1])
		require.NoError(t, err, "%s: %s", page, m[1])
		if link.Scheme != "" {
			continue
		}
		target, there := page, text
		if link.Path != "" {
			target = filepath.Join(filepath.Dir(page), link.Path)
			if _, err := os.Stat(target); err != nil {
				broken = append(broken, m[1])
				continue
			}
			if link.Fragment != "" {
				there = document(t, target)
			}
		}
		if link.Fragment != "" && !anchors(there)[link.Fragment] {
			broken = append(broken, m[1])
		}
	}
	return broken
}

func TestDocsLinksResolve(t *testing.T) {
	t.Parallel()
	for _, page := range documents(t) {
		require.Empty(t, brokenLinks(t, page, document(t, page)), page)
	}
	text := "# A heading, of `Two`\n[a](#a-heading-of-two) [b](docs/limits.md#http) [c](#no) [d](docs/no.md) [e](docs/limits.md#no) `[f](#f)` [g](https://example.com)\n"
	require.Equal(t, []string{"#no", "docs/no.md", "docs/limits.md#no"}, brokenLinks(t, "README.md", text))
}

func TestDocsHaveAnIndex(t *testing.T) {
	t.Parallel()
	index := document(t, "docs/README.md")
	for _, page := range documents(t) {
		if name, found := strings.CutPrefix(page, "docs/"); found && name != "README.md" {
			require.Contains(t, index, "]("+name+")")
		}
	}
}

func TestDocsTheReadmeIsAFrontPage(t *testing.T) {
	t.Parallel()
	readme := document(t, "README.md")
	require.LessOrEqual(t, strings.Count(readme, "\n"), 200, "lines of README.md: move what is too much to a page of docs")
	for _, command := range []string{"go run ./examples/gateway", "make test"} {
		require.Contains(t, readme, "\n    "+command)
	}
	// The first program is the example that is run as a test.
	example := document(t, "example_quickstart_test.go")
	program := regexp.MustCompile("(?s)```go\n(.*?)```").FindStringSubmatch(readme)
	require.NotNil(t, program)
	require.Contains(t, strings.Replace(example, "func Example()", "func main()", 1), strings.TrimSuffix(program[1], "}\n"))
}

func TestDocsOfFreshnessShowWhatIsRun(t *testing.T) {
	t.Parallel()
	page, examples := document(t, "docs/freshness.md"), document(t, "example_test.go")
	programs := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(page, -1)
	require.NotEmpty(t, programs)
	for _, program := range programs {
		require.Contains(t, examples, program[1])
	}
	for _, reason := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (?:hit|stale) \\|").FindAllStringSubmatch(page, -1) {
		require.Contains(t, document(t, "internal/engine/ageing.go")+document(t, "internal/engine/onerror.go"), strconv.Quote(reason[1]))
	}
}

// Each field of the options and of a policy, each counter and each code has its row.
func TestDocsListEveryOptionCounterAndCode(t *testing.T) {
	t.Parallel()
	rows := func(text string) (first []string) {
		for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(text, -1) {
			first = append(first, m[1])
		}
		return first
	}
	fields := func(sample any) (names []string) {
		for _, f := range reflect.VisibleFields(reflect.TypeOf(sample)) {
			names = append(names, f.Name)
		}
		return names
	}
	options, _, found := strings.Cut(document(t, "docs/configuration.md"), "\n### The table of ready policies\n")
	require.True(t, found)
	require.ElementsMatch(t, slices.Concat(fields(aside.Options{}), fields(aside.ConsistencyCheck{}), fields(aside.Observer{}), fields(aside.Policy{})), rows(options))

	counters := rows(document(t, "docs/observability.md"))
	for _, name := range slices.Concat(fields(aside.Op{}), fields(aside.End{})) {
		require.Contains(t, counters, name)
	}
	for _, name := range slices.Concat(fields(aside.LabelMetrics{}), fields(aside.Metrics{})) {
		if name != "Labels" && name != "LoadTime" {
			require.Contains(t, counters, strings.ToLower(name[:1])+name[1:])
		}
	}

	file, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	require.NoError(t, err)
	var codes []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || spec.Type == nil || fmt.Sprint(spec.Type) != "Code" {
			return true
		}
		code, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		require.NoError(t, err)
		codes = append(codes, code)
		return true
	})
	require.NotEmpty(t, codes)
	listed := rows(document(t, "docs/errors.md"))
	for _, code := range codes {
		require.Contains(t, listed, code)
	}
}
