// Package architecture holds the module to its structure: which package may import which, how large files and structs may be,
// and what the compiler must inline on the way of a hit in memory. It is tests alone, and the tables that they read.
package architecture

import (
	"bufio"
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	module = "github.com/gatewayz/aside"
	root   = "../.."
)

// A source is a Go file, whatever the system and the build tags that it is for.
type source struct {
	pkg   string // the name of its package in the tables
	name  string
	test  bool
	lines int
	files *token.FileSet
	tree  *ast.File
}

// sources are the files of all modules of the repository.
var sources = sync.OnceValues(func() (all []source, err error) {
	err = filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if name == "testdata" || file != root && strings.HasPrefix(name, ".") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		s := source{name: name, test: strings.HasSuffix(name, "_test.go"), lines: bytes.Count(text, []byte("\n")), files: token.NewFileSet()}
		if s.tree, err = parser.ParseFile(s.files, file, text, parser.SkipObjectResolution); err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(file))
		s.pkg = nameOf(path.Join(module, filepath.ToSlash(dir)))
		all = append(all, s)
		return err
	})
	return all, err
})

// suites is what the suites of tests share. It keeps its path: there is an asidetest for programs too.
const suites = "internal/asidetest"

// nameOf is what the tables call a package of this module: its path without internal/, and aside for the root.
func nameOf(importPath string) string {
	dir := strings.TrimPrefix(strings.TrimPrefix(importPath, module), "/")
	switch dir {
	case "":
		return "aside"
	case suites:
		return suites
	}
	return strings.TrimPrefix(dir, "internal/")
}

func (s source) imports() (paths []string) {
	for _, spec := range s.tree.Imports {
		if importPath, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, importPath)
		}
	}
	return paths
}

// A uses is what one package imports: packages of this module, by their names in the tables, and packages of others by their paths.
type uses struct{ ours, others, tests map[string]bool }

// packages are all packages, by their names in the tables.
func packages(t *testing.T) map[string]uses {
	all, err := sources()
	require.NoError(t, err)
	found := map[string]uses{}
	for _, s := range all {
		if _, ok := found[s.pkg]; !ok {
			found[s.pkg] = uses{map[string]bool{}, map[string]bool{}, map[string]bool{}}
		}
		for _, importPath := range s.imports() {
			first, _, _ := strings.Cut(importPath, "/")
			switch ours := importPath == module || strings.HasPrefix(importPath, module+"/"); {
			case ours && s.test:
				found[s.pkg].tests[nameOf(importPath)] = true
			case ours:
				found[s.pkg].ours[nameOf(importPath)] = true
			case strings.Contains(first, ".") && !s.test:
				found[s.pkg].others[importPath] = true
			}
		}
	}
	require.NotEmpty(t, found["aside"].ours)
	return found
}

// library are the packages that a program, or its tests, get which import the root, asidehttp or asidetest.
func library(all map[string]uses) map[string]bool {
	reached := map[string]bool{}
	var reach func(pkg string)
	reach = func(pkg string) {
		if !reached[pkg] {
			reached[pkg] = true
			for next := range all[pkg].ours {
				reach(next)
			}
		}
	}
	reach("aside")
	reach("asidehttp")
	reach("asidetest")
	return reached
}

// table reads the lines of a table, without empty ones and comments.
func table(t *testing.T, name string) (lines []string) {
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	for in := bufio.NewScanner(bytes.NewReader(text)); in.Scan(); {
		line, _, _ := strings.Cut(in.Text(), "#")
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

func sorted[V any](set map[string]V) []string { return slices.Sorted(maps.Keys(set)) }
