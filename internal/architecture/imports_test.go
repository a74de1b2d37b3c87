package architecture

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A layer is a row of imports.txt.
type layer struct {
	pkg          string
	ours, others []string
}

// layers reads imports.txt: its rows in their order, and the paths of the names that it has for packages of others.
func layers(t *testing.T, lines []string) (rows []layer, paths map[string]string) {
	paths = map[string]string{}
	for _, line := range lines {
		if name, path, ok := strings.Cut(line, " = "); ok {
			paths[strings.TrimSpace(name)] = strings.TrimSpace(path)
			continue
		}
		pkg, imports, ok := strings.Cut(line, ":")
		require.True(t, ok, "imports.txt: neither a row nor a name: %s", line)
		ours, others, _ := strings.Cut(imports, "|")
		rows = append(rows, layer{pkg, strings.Fields(ours), strings.Fields(others)})
	}
	return rows, paths
}

// misplaced compares packages with the table, and says what is wrong, and what to do about it.
func misplaced(rows []layer, paths map[string]string, all map[string]uses) (wrong []string) {
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	depth := map[string]int{}
	for n, row := range rows {
		if _, twice := depth[row.pkg]; twice {
			complain("%s has two rows", row.pkg)
		}
		depth[row.pkg] = n
	}
	short := func(importPath string) string {
		for name, path := range paths {
			if importPath == path || strings.HasPrefix(importPath, path+"/") {
				return name
			}
		}
		return importPath
	}
	below := func(pkg, other string) bool {
		d, ok := depth[other]
		return !ok || d > depth[pkg] // one without a row is complained of by itself
	}
	for _, pkg := range sorted(all) {
		if _, ok := depth[pkg]; !ok {
			others := map[string]bool{}
			for importPath := range all[pkg].others {
				others[short(importPath)] = true
			}
			row := strings.Join(append([]string{pkg + ":"}, sorted(all[pkg].ours)...), " ")
			if len(others) > 0 {
				row += " | " + strings.Join(sorted(others), " ")
			}
			complain("%s has no row. If its imports are meant, add, above what it imports and below what imports it: %s", pkg, row)
		}
	}
	for _, row := range rows {
		is, ok := all[row.pkg]
		if !ok {
			complain("%s has a row, and there is no such package", row.pkg)
			continue
		}
		ours, others, free := map[string]bool{}, map[string]bool{}, false
		for _, pkg := range row.ours {
			ours[pkg] = true
			if !is.ours[pkg] {
				complain("%s does not import %s: take it out of the row", row.pkg, pkg)
			}
		}
		for _, name := range row.others {
			free = free || name == "any"
			others[name] = true
		}
		for _, pkg := range sorted(is.ours) {
			if !ours[pkg] {
				complain("%s must not import %s: its row does not name it", row.pkg, pkg)
			}
			if !below(row.pkg, pkg) {
				complain("%s must not import %s, which stands above it", row.pkg, pkg)
			}
		}
		for _, pkg := range sorted(is.tests) {
			if pkg != row.pkg && pkg != suites && !below(row.pkg, pkg) {
				complain("the tests of %s must not import %s, which stands above it", row.pkg, pkg)
			}
		}
		if free {
			continue
		}
		for _, importPath := range sorted(is.others) {
			if !others[short(importPath)] {
				complain("%s must not import %s: its row does not name it", row.pkg, importPath)
			}
		}
		imported := map[string]bool{}
		for importPath := range is.others {
			imported[short(importPath)] = true
		}
		for _, name := range sorted(others) {
			if !imported[name] {
				complain("%s does not import %s: take it out of the row", row.pkg, name)
			}
		}
	}
	return wrong
}

func TestEachPackageImportsWhatItsRowNames(t *testing.T) {
	t.Parallel()
	rows, paths := layers(t, table(t, "imports.txt"))
	for _, wrong := range misplaced(rows, paths, packages(t)) {
		t.Error("imports.txt: " + wrong)
	}
}

// The check itself finds each kind of fault.
func TestMisplacedImportsAreFound(t *testing.T) {
	t.Parallel()
	rows, paths := layers(t, []string{
		"cbor = github.com/fxamacker/cbor/v2",
		"top: middle low | cbor",
		"middle:",
		"low: middle | cbor",
		"gone:",
		"free: | any",
	})
	set := func(names ...string) map[string]bool {
		all := map[string]bool{}
		for _, name := range names {
			all[name] = true
		}
		return all
	}
	require.ElementsMatch(t, []string{
		"new has no row. If its imports are meant, add, above what it imports and below what imports it: new: low | cbor example.com/x",
		"top does not import middle: take it out of the row",
		"top does not import cbor: take it out of the row",
		"middle must not import low: its row does not name it",
		"low must not import middle, which stands above it",
		"the tests of low must not import top, which stands above it",
		"low must not import example.com/x: its row does not name it",
		"gone has a row, and there is no such package",
	}, misplaced(rows, paths, map[string]uses{
		"top":    {ours: set("low")},
		"middle": {ours: set("low")},
		"low":    {ours: set("middle"), others: set("github.com/fxamacker/cbor/v2", "example.com/x"), tests: set("low", "top", suites)},
		"new":    {ours: set("low"), others: set("github.com/fxamacker/cbor/v2/sub", "example.com/x")},
		"free":   {others: set("example.com/x")},
	}))
}
