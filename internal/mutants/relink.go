package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Most of what a mutant costs is to compile again, for each of them, what imports the package that it changes: the tests of the public API are large.
// The linker does not ask for that. It takes any archive of a package that has the same export data as the one that its importers were compiled with,
// and refuses another one by its fingerprint. Export data has what importers see: declarations with their lines, and the bodies of functions that may
// be inlined. Most mutants change neither, once their text has as many lines as before.

// A binary has the tests of a package, on the code as it is.
type binary struct {
	pkg  string // as go test takes it
	race bool
}

// A build is a binary that was built, and what it was linked from.
type build struct {
	file     string
	main     string            // the archive of its main package
	archives map[string]string // by import path
	variants map[string]bool   // those that were compiled with the tests that are in the package
}

// prepare builds a binary by the linker, nil if that fails.
func (t *tester) prepare(ctx context.Context, b binary, name string) *build {
	out, err := t.list(ctx, b.race, "", "-test", "-deps", "-f", "{{.ImportPath}}\t{{.Export}}", b.pkg)
	if err != nil {
		return nil
	}
	built := &build{file: filepath.Join(t.tmp, name+".test"), archives: map[string]string{}, variants: map[string]bool{}}
	for line := range strings.Lines(out) {
		name, archive, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		of, variant, tested := strings.Cut(name, " ")
		switch {
		case archive == "":
		case strings.HasSuffix(name, ".test"):
			built.main = archive
		case tested:
			built.archives[of], built.variants[of] = archive, variant != ""
		case !built.variants[of]:
			built.archives[of] = archive
		}
	}
	if built.main == "" || t.link(ctx, b, built, nil, built.file) != nil {
		return nil
	}
	return built
}

// list is go list -export, which compiles packages.
func (t *tester) list(ctx context.Context, race bool, overlay string, args ...string) (string, error) {
	args = append([]string{"list", "-export", "-race=" + strconv.FormatBool(race), "-overlay=" + overlay}, args...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = t.root
	out, err := cmd.Output()
	return string(out), err
}

// link links a binary to file, with other archives in place of those that it has.
func (t *tester) link(ctx context.Context, b binary, from *build, others map[string]string, file string) error {
	var config strings.Builder
	for name, archive := range from.archives {
		if other := others[name]; other != "" {
			archive = other
		}
		fmt.Fprintf(&config, "packagefile %s=%s\n", name, archive)
	}
	if err := os.WriteFile(file+".cfg", []byte(config.String()), 0o644); err != nil {
		return err
	}
	args := []string{"tool", "link", "-s", "-w", "-o", file, "-importcfg", file + ".cfg"}
	if b.race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, from.main)...)
	cmd.Dir = t.root
	return cmd.Run()
}

// relinked runs a command on a mutant by a binary of which only the packages that the mutant changes are compiled again. It returns nil where that
// cannot be done.
func (t *tester) relinked(ctx context.Context, r *row, c command, overlay string) *outcome {
	b, flags, ok := c.of()
	from := t.builds[b]
	if !ok || from == nil {
		return nil
	}
	var changed []string
	for _, e := range r.mutant.edits {
		if pkg := "./" + path.Dir(e.file); !slices.Contains(changed, pkg) {
			changed = append(changed, pkg)
		}
	}
	out, err := t.list(ctx, b.race, overlay, append([]string{"-f", "{{.ImportPath}}\t{{.Export}}"}, changed...)...)
	if err != nil {
		return nil
	}
	others := map[string]string{}
	for line := range strings.Lines(out) {
		name, archive, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if from.archives[name] == "" || from.variants[name] {
			return nil
		}
		others[name] = archive
	}
	file := filepath.Join(t.tmp, r.name, "relinked.test")
	defer os.Remove(file)
	if t.link(ctx, b, from, others, file) != nil {
		return nil
	}
	return t.runBinary(ctx, r.name+", linked again", c, file, flags)
}

// runBinary carries out a command by a binary.
func (t *tester) runBinary(ctx context.Context, what string, c command, file string, flags []string) *outcome {
	b, _, _ := c.of()
	args := []string{"tool", "test2json", "-p", b.pkg, file, "-test.v=test2json", "-test.paniconexit0", "-test.count=1", "-test." + timeout[1:]}
	return t.judged(exec.CommandContext(ctx, "go", append(args, flags...)...), filepath.Join(t.root, b.pkg), what, c)
}

// aligned gives a changed text as many lines as it had, if it has fewer now, so that what comes after the change stays where it was.
func aligned(before, after string) string {
	was, is := strings.SplitAfter(before, "\n"), strings.SplitAfter(after, "\n")
	missing := len(was) - len(is)
	if missing <= 0 {
		return after
	}
	same := 0
	for same < len(is) && is[len(is)-1-same] == was[len(was)-1-same] {
		same++
	}
	at := len(is) - same
	return strings.Join(is[:at], "") + strings.Repeat("\n", missing) + strings.Join(is[at:], "")
}
