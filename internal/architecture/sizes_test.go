package architecture

import (
	"fmt"
	"go/ast"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// sizes is sizes.txt: limits by what they are of, and the names that are free of them.
type sizes struct {
	limits map[string]int
	keep   map[string]bool
	until  map[string]bool
}

func readSizes(t *testing.T, lines []string) sizes {
	s := sizes{map[string]int{}, map[string]bool{}, map[string]bool{}}
	for _, line := range lines {
		words := strings.Fields(line)
		last := words[len(words)-1]
		switch n, err := strconv.Atoi(last); {
		case words[0] == "limit" && err == nil:
			s.limits[strings.Join(words[1:len(words)-1], " ")] = n
		case words[0] == "keep" && words[1] == "fields" && len(words) == 3:
			s.keep[last] = true
		case words[0] == "until" && len(words) == 2:
			s.until[last] = true
		default:
			t.Fatal("sizes.txt: what is ", line)
		}
	}
	return s
}

// structs are the numbers of fields of the structs of a file, those without a name under the name of the file.
func (s source) structs() (names []string, fields []int) {
	named := map[*ast.StructType]string{}
	ast.Inspect(s.tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.TypeSpec:
			if of, ok := n.Type.(*ast.StructType); ok {
				named[of] = s.pkg + "." + n.Name.Name
			}
		case *ast.StructType:
			name := named[n]
			if name == "" {
				name = s.pkg + "/" + s.name + ", a struct"
			}
			names, fields = append(names, name), append(fields, n.Fields.NumFields())
		}
		return true
	})
	return names, fields
}

// oversized compares the files of some packages with the limits, and says what is wrong.
func oversized(s sizes, all []source, pkgs map[string]bool) (wrong []string) {
	files, free := map[string]int{}, map[string]bool{}
	check := func(name, unit string, size, limit int) {
		switch {
		case size <= limit:
		case s.until[name]:
			free[name] = true
		default:
			wrong = append(wrong, fmt.Sprintf("%s has %d %s, at most %d are allowed", name, size, unit, limit))
		}
	}
	for _, file := range all {
		if file.test || !pkgs[file.pkg] {
			continue
		}
		files[file.pkg]++
		limit, ok := s.limits["lines "+file.pkg]
		if !ok {
			limit = s.limits["lines *"]
		}
		check(file.pkg+"/"+file.name, "lines", file.lines, limit)
		names, fields := file.structs()
		for n, name := range names {
			if !s.keep[name] {
				check(name, "fields", fields[n], s.limits["fields"])
			}
		}
	}
	for _, pkg := range sorted(files) {
		if limit, ok := s.limits["files "+pkg]; ok {
			check(pkg, "files", files[pkg], limit)
		}
	}
	for _, name := range sorted(s.until) {
		if !free[name] {
			wrong = append(wrong, name+" keeps to its limit, or is gone: take its line out")
		}
	}
	return wrong
}

func TestFilesAndStructsKeepToTheirSizes(t *testing.T) {
	t.Parallel()
	all, err := sources()
	require.NoError(t, err)
	for _, wrong := range oversized(readSizes(t, table(t, "sizes.txt")), all, library(packages(t))) {
		t.Error("sizes.txt: " + wrong)
	}
}

// The check itself finds each kind of fault, in this package.
func TestWhatIsTooLargeIsFound(t *testing.T) {
	t.Parallel()
	all, err := sources()
	require.NoError(t, err)
	var here []source
	for _, s := range all {
		if s.pkg == "architecture" && s.name == "sizes_test.go" {
			s.test = false
			here = append(here, s, s)
		}
	}
	limits := []string{"limit lines * 5", "limit lines architecture 1000", "limit files architecture 2", "limit fields 3", "keep fields architecture.sizes"}
	pkgs := map[string]bool{"architecture": true}
	require.Empty(t, oversized(readSizes(t, limits), here, pkgs))
	require.Equal(t, []string{
		"architecture/sizes_test.go has " + strconv.Itoa(here[0].lines) + " lines, at most 5 are allowed",
		"architecture has 1 files, at most 0 are allowed",
		"architecture.gone keeps to its limit, or is gone: take its line out",
	}, oversized(readSizes(t, []string{"limit lines * 5", "limit files architecture 0", "limit fields 2", "until architecture.sizes", "until architecture.gone"}), here[:1], pkgs))
	require.Equal(t, []string{"architecture.sizes has 3 fields, at most 2 are allowed"},
		oversized(readSizes(t, []string{"limit lines * 1000", "limit fields 2"}), here[:1], pkgs))
}
